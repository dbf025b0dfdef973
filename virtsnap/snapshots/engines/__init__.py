"""Ways to bring a domain back to a snapshot, behind one interface.

`restore` works on every libvirt and with every snapshot, `native` is libvirt's
own revert of external snapshots (9.9 and later), `instant` is for snapshots
whose RAM is a file of its own. Each is an `Engine`, which turns a `Revert` into the
steps from a prepared host to a guest that is ready to run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from virtsnap.errors import UnsupportedError
from virtsnap.snapshots.catalog import Facts
from virtsnap.snapshots.steps import KeptObject, Step

EngineName = Literal["restore", "native", "instant"]
SaveEngineName = Literal["libvirt", "instant"]
SAVE_ENGINE_NAMES: tuple[SaveEngineName, ...] = get_args(SaveEngineName)
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True, kw_only=True)
class Revert:
    """What a load asks of an engine.

    `saved_xml` is the definition inside the memory image (None for an offline
    snapshot), `persistent_xml` the one for the next boot as it was at the
    save; `overlays` are the disks to be (target, path); `start` says whether
    an offline snapshot is to be booted; `now_s` is Unix time, `in_use` what the
    domain and all snapshots stand on, `current` the object that is the current one.
    """

    facts: Facts
    snapshot: KeptObject
    now_s: int
    in_use: frozenset[str]
    is_active: bool
    saved_xml: str | None = field(repr=False)
    persistent_xml: str = field(repr=False)
    previous_persistent_xml: str = field(repr=False)
    overlays: tuple[tuple[str, str], ...]
    owner_like: tuple[tuple[str, str], ...] = ()
    start: bool = True
    current: str | None = None
    # A RAM file to be made for the guest, where it can share its blocks with the snapshot's
    ram_path: str | None = None


class Engine(Protocol):
    """A way to revert. Pure: it plans, `virtsnap.snapshots.run` acts."""

    name: str

    def prepare(self, revert: Revert) -> tuple[Step, ...]:
        """Plan what can be done, and fail, while the old guest still runs."""
        ...

    def switch(self, revert: Revert) -> tuple[Step, ...]:
        """Plan the stop of the old guest and everything up to a new one, paused, with both definitions."""
        ...


def choose_engine(
    libvirt_version: tuple[int, int], forced: EngineName | None = None, *, facts: Facts | None = None
) -> Engine:
    """Choose the engine for a snapshot on a host: `instant` where it was saved so, else `restore`, unless forced.

    On failure: UnsupportedError for an engine that this libvirt, or this snapshot, cannot be loaded by.
    """
    from virtsnap.snapshots.engines.instant import InstantEngine
    from virtsnap.snapshots.engines.native import NativeEngine
    from virtsnap.snapshots.engines.restore import RestoreEngine

    is_instant = facts is not None and facts.ram is not None
    if forced == "instant" and not is_instant:
        raise UnsupportedError("the snapshot was not saved by `instant`: its RAM is in its memory image",
                               hint="leave --engine out: `restore` loads it")
    if forced in (None, "instant"):
        return InstantEngine() if is_instant else RestoreEngine()
    if forced == "restore":
        return RestoreEngine()
    if libvirt_version < (9, 9):
        raise UnsupportedError(
            f"libvirt {libvirt_version[0]}.{libvirt_version[1]} cannot revert to external snapshots; 9.9 can",
            hint="leave --engine out: `restore` does it on any version",
        )
    return NativeEngine()
