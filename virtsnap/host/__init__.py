"""The only place that talks to libvirt, qemu-img and QMP.

`connect(uri)` opens a `Host`; `Host.domain(name)` finds a `Domain`. libvirt
ships no types, so its Any ends here: what leaves this package is typed, and
every error that leaves it is one of `virtsnap.errors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtsnap.host.domain import Domain, Power, SnapshotObject
    from virtsnap.host.hypervisor import Host, connect

__all__ = ["Domain", "Host", "Power", "SnapshotObject", "connect"]

# Found when first used (PEP 562): `convert` wants libvirt's version alone.
_EXPORTS = {
    "Domain": "virtsnap.host.domain",
    "Host": "virtsnap.host.hypervisor",
    "Power": "virtsnap.host.domain",
    "SnapshotObject": "virtsnap.host.domain",
    "connect": "virtsnap.host.hypervisor",
}


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
