"""Ways to bring a domain back to a snapshot, behind one interface.

`restore` works on every libvirt. Room is kept for `native` (libvirt's own
revert of external snapshots, 9.9 and later) and `instant` (RAM in a file):
each is an `Engine`, which turns a `Revert` into the steps from a prepared
host to a guest that is ready to run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from virtsnap.snapshots.catalog import Facts
from virtsnap.snapshots.steps import Step


@dataclass(frozen=True, kw_only=True)
class Revert:
    """What a load asks of an engine.

    `saved_xml` is the definition inside the memory image (None for an offline
    snapshot), `persistent_xml` the one for the next boot as it was at the
    save; `overlays` are the disks to be (target, path); `start` says whether
    an offline snapshot is to be booted.
    """

    facts: Facts
    is_active: bool
    saved_xml: str | None = field(repr=False)
    persistent_xml: str = field(repr=False)
    previous_persistent_xml: str = field(repr=False)
    overlays: tuple[tuple[str, str], ...]
    owner_like: tuple[tuple[str, str], ...] = ()
    start: bool = True


class Engine(Protocol):
    """A way to revert. Pure: it plans, `virtsnap.snapshots.run` acts."""

    name: str

    def prepare(self, revert: Revert) -> tuple[Step, ...]:
        """Plan what can be done, and fail, while the old guest still runs."""
        ...

    def switch(self, revert: Revert) -> tuple[Step, ...]:
        """Plan the stop of the old guest and everything up to a new one, paused, with both definitions."""
        ...


def choose_engine(libvirt_version: tuple[int, int]) -> Engine:
    """Choose the engine for a host. There is one so far, which every version can run."""
    from virtsnap.snapshots.engines.restore import RestoreEngine

    del libvirt_version
    return RestoreEngine()
