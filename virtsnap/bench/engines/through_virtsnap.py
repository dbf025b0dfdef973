"""virtsnap's own engines, through the API that its users have."""

from __future__ import annotations

from functools import partial

from virtsnap.bench.engines import EngineRow, Machine, Surroundings
from virtsnap.bench.engines.through_libvirt import DomainGuest
from virtsnap.snapshots.api import connect
from virtsnap.snapshots.engines import EngineName


class OwnEngine(DomainGuest):
    """`virtsnap save` and `virtsnap load --engine NAME`."""

    def __init__(self, engine: EngineName, here: Surroundings, machine: Machine) -> None:
        super().__init__(here, machine)
        self._engine: EngineName = engine
        self._snapshots = connect(here.uri)
        self._phases: dict[str, float] = {}

    def save(self, name: str) -> None:
        """See Engine."""
        self._phases = dict(self._snapshots.domain(self._machine.name).save_snapshot(name).phases_s)

    def load(self, name: str) -> None:
        """See Engine."""
        outcome = self._snapshots.domain(self._machine.name).load_snapshot(name, engine=self._engine)
        self._phases = dict(outcome.phases_s)

    def forget(self, name: str) -> None:
        """See Engine."""
        self._snapshots.domain(self._machine.name).remove_snapshot(name)

    def phases_s(self) -> dict[str, float]:
        """See Engine."""
        return self._phases

    def stop(self) -> None:
        """See Engine."""
        super().stop()
        self._snapshots.close()


ROWS = (
    EngineRow(name="restore", title="virtsnap, engine restore", kind="virtsnap",
              make=partial(OwnEngine, "restore"), also=("sizes", "cycles", "parallel")),
    EngineRow(name="native", title="virtsnap, engine native", kind="virtsnap", libvirt=((9, 9), (99, 0)),
              make=partial(OwnEngine, "native")),
)
