"""The ways to save and load that are measured, behind one interface, in a table of rows.

An engine has one guest. What is timed are `save` and `load` alone; `forget`,
`rest` and `wake` are the bench's own affairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from virtsnap.bench.guest import Guest
from virtsnap.host.pauses import PauseWatch, RunEvent

Kind = Literal["virtsnap", "libvirt", "raw QMP", "internal"]
ScenarioName = Literal["engines", "cycles", "sizes", "parallel"]
Version = tuple[int, int]

OPERATION_TIMEOUT_S = 240.0  # os-autoinst's for a save


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where engines run: the hypervisor, its versions, and who listens to its events."""

    uri: str | None
    libvirt: Version
    qemu: Version
    watch: PauseWatch


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One guest to be made: its name, its folder (empty, with room), its RAM."""

    name: str
    folder: Path
    guest: Guest
    memory_mib: int


class Engine(Protocol):
    """A way to save and load one guest. Names are plain words, each used once."""

    def start(self) -> None:
        """Boot the guest."""
        ...

    def save(self, name: str) -> None:
        """Save RAM and disk; the guest runs afterwards."""
        ...

    def load(self, name: str) -> None:
        """Bring the guest back to `name`; it runs afterwards."""
        ...

    def forget(self, name: str) -> None:
        """Give back what a snapshot holds, as far as that can be done."""
        ...

    def events(self) -> list[RunEvent]:
        """Give the guest's stops and resumes since the last call."""
        ...

    def phases_s(self) -> dict[str, float]:
        """Say where the time of the last save or load went, where the engine knows."""
        ...

    def rest(self) -> None:
        """Pause the guest while others are measured."""
        ...

    def wake(self) -> None:
        """Let it go on."""
        ...

    def stop(self) -> None:
        """End the guest; its folder can be removed then."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One engine: its name on the command line, what it is for the reader, and where it can run.

    `qemu` and `libvirt` are the versions from which, and up to but not with which, it can run there.
    `polls` marks the variants that sleep as os-autoinst does. `scenarios` are those that it is for: all are
    compared at one size, but for rows that are there for the sake of another one, and for what goes beyond that
    most are too slow. Who is there for the picture alone has its turn `every` so many rounds, and is in "engines"
    only. After `boots_every` rounds its guest is booted anew. An engine that saves a guest which was
    loaded in another way than one which was not has two rows: of one the guest is booted anew for each turn, of
    the other it has been loaded before the first (`is_loaded_first`).
    """

    name: str
    title: str
    kind: Kind
    make: Callable[[Surroundings, Machine], Engine]
    libvirt: tuple[Version, Version] = ((0, 0), (99, 0))
    qemu: tuple[Version, Version] = ((0, 0), (99, 0))
    polls: bool = False
    scenarios: tuple[ScenarioName, ...] = ("engines",)
    every: int = 1
    boots_every: int | None = None
    is_loaded_first: bool = False

    def why_not(self, here: Surroundings) -> str | None:
        """Say why it cannot run here; None where it can."""
        for what, (since, until), now in (
            ("libvirt", self.libvirt, here.libvirt), ("QEMU", self.qemu, here.qemu),
        ):
            if now < since:
                return f"needs {what} {since[0]}.{since[1]}"
            if now >= until:
                return f"{what} {until[0]}.{until[1]} has taken it away"
        return None


def engine_rows() -> Sequence[EngineRow]:
    """Give the table; the first ones are virtsnap's."""
    from virtsnap.bench.engines.plain_libvirt import ROWS as LIBVIRT_ROWS
    from virtsnap.bench.engines.raw_qmp import ROWS as RAW_ROWS
    from virtsnap.bench.engines.through_virtsnap import ROWS as OUR_ROWS

    return (*OUR_ROWS, *LIBVIRT_ROWS, *RAW_ROWS)
