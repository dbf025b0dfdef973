"""virtsnap's own engines, through the API that its users have."""

from __future__ import annotations

from functools import partial
from typing import get_args

from virtsnap.bench.engines import EngineRow, Machine, ScenarioName, Surroundings
from virtsnap.bench.engines.through_libvirt import DomainGuest
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER, with_ram_in_file
from virtsnap.host.doctor import has_reflinks
from virtsnap.snapshots.api import connect
from virtsnap.snapshots.depth import MOST_LAYERS
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


class InstantEngine(OwnEngine):
    """A domain of `virtsnap create --ram-file`, whose saves and loads are instant by themselves.

    The RAM file is in the default folder; where files can share their blocks it is beside the disk, so that
    its copies are reflinks.
    """

    def __init__(self, here: Surroundings, machine: Machine) -> None:
        super().__init__("instant", here, machine)

    def _xml(self) -> str:
        folder = str(self._machine.folder) if has_reflinks(self._machine.folder) else DEFAULT_FOLDER
        return with_ram_in_file(super()._xml(), folder=folder)


ROWS = (
    EngineRow(name="instant", title="virtsnap, engine instant (RAM in a file)", kind="virtsnap",
              make=InstantEngine, scenarios=("engines", "sizes", "parallel"), boots_every=1),
    EngineRow(name="instant-again", title="virtsnap, engine instant, a guest that was loaded before",
              kind="virtsnap", make=InstantEngine, is_loaded_first=True),
    EngineRow(name="restore", title="virtsnap, engine restore", kind="virtsnap",
              make=partial(OwnEngine, "restore"), scenarios=get_args(ScenarioName)),
    # So that it has short chains and long ones as often as the guest that it is compared with
    EngineRow(name="restore-young", kind="virtsnap", make=partial(OwnEngine, "restore"),
              title=f"virtsnap, engine restore, a guest booted anew every {MOST_LAYERS} rounds",
              scenarios=("cycles",), boots_every=MOST_LAYERS),
    EngineRow(name="native", title="virtsnap, engine native", kind="virtsnap", libvirt=((9, 9), (99, 0)),
              make=partial(OwnEngine, "native"), every=2),
)
