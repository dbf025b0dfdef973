"""virtsnap: a QEMU command line becomes a libvirt domain with named disk+memory snapshots."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtsnap.convert.conversion import Conversion, convert_command_line
    from virtsnap.snapshots.api import SnapshotDomain, SnapshotHost, connect

__version__ = "0.1.0"
__all__ = ["Conversion", "SnapshotDomain", "SnapshotHost", "__version__", "connect", "convert_command_line"]

# Found when first used (PEP 562), so that `virtsnap --version` loads neither libvirt nor lxml.
_EXPORTS = {
    "Conversion": "virtsnap.convert.conversion",
    "SnapshotDomain": "virtsnap.snapshots.api",
    "SnapshotHost": "virtsnap.snapshots.api",
    "connect": "virtsnap.snapshots.api",
    "convert_command_line": "virtsnap.convert.conversion",
}


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
