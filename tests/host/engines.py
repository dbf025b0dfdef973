"""A domain whose loads take turns with the engines, for tests that every engine has to pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

import virtsnap
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.engines import EngineName
from virtsnap.snapshots.run import Outcome


def require_native_engine(uri: str) -> None:
    """Skip the test where libvirt cannot revert to external snapshots."""
    with virtsnap.connect(uri) as host:
        if host.libvirt_version < (9, 9):
            major, minor = host.libvirt_version
            pytest.skip(f"libvirt {major}.{minor} has no revert to external snapshots; it came with 9.9")


class TakingTurns(SnapshotDomain):
    """A domain of virtsnap's; each load takes the next of some engines."""

    def __init__(self, domain: SnapshotDomain, engines: Sequence[EngineName | None]) -> None:
        super().__init__(domain._host, domain._domain)
        self._turns = itertools.cycle(engines)

    def load_snapshot(self, name: str, **options: Any) -> Outcome:
        """Load with the engine whose turn it is."""
        return super().load_snapshot(name, **{"engine": next(self._turns), **options})
