"""A QEMU of our own, saved and loaded over QMP as os-autoinst's backend/qemu.pm does, and by internal snapshots.

Followed is os-autoinst a490955 (backend/qemu.pm, OpenQA/Qemu/Proc.pm):

    save  stop; blockdev-snapshot-sync; capabilities and parameters; getfd; migrate; cont
    load  stop; end QEMU; make the overlay anew; start with -incoming defer; migrate-incoming; cont

It differs where the original would not work or would be unfair: real paths
instead of `file:dumpfd`, which QEMU takes for a relative path, and a file for
each snapshot. With `polls` it sleeps where os-autoinst sleeps: 0.5 s before
each look at a migration, 1 s after it has found QEMU's monitor, 1 s between
looks at a load. Without, it waits for QEMU's events.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from virtsnap.bench.engines import OPERATION_TIMEOUT_S, EngineRow, Machine, ScenarioName, Surroundings, Version
from virtsnap.errors import HypervisorError
from virtsnap.host.chains import read_chain
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.own_qemu import OwnQemu
from virtsnap.host.pauses import RunEvent

_SAVE_POLL_S, _CONNECT_PAUSE_S, _LOAD_POLL_S = 0.5, 1.0, 1.0
_NODE = "hd0"
_FILES = LocalFiles()
_LOOK_S = 0.001
_UNLIMITED = 2**63 - 1  # LONG_MAX
_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How RAM travels. `incoming` says how a load reads it: os-autoinst's `exec:cat`, or the faster `fd:`."""

    mapped: bool = False
    compress: bool = False
    incoming: Literal["exec", "fd", "file"] = "fd"
    polls: bool = False


class _Process:
    """The guest's process, and what all engines here do with it in the same way."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._disk = machine.folder / "disk.qcow2"
        self._running: OwnQemu | None = None
        self._seen: list[RunEvent] = []

    @property
    def _qemu(self) -> OwnQemu:
        assert self._running is not None
        return self._running

    def start(self) -> None:
        """See Engine."""
        new_disk(self._machine)
        self._launch(str(self._disk))
        self._qemu.execute("cont")

    def events(self) -> list[RunEvent]:
        """See Engine."""
        self._collect()
        found, self._seen = self._seen, []
        return found

    def phases_s(self) -> dict[str, float]:
        """See Engine."""
        return {}

    def rest(self) -> None:
        """See Engine."""
        self._qemu.execute("stop")

    def wake(self) -> None:
        """See Engine."""
        self._qemu.execute("cont")

    def stop(self) -> None:
        """See Engine."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _launch(self, disk: str, *more: str, connect_pause_s: float = 0.0) -> None:
        machine = self._machine
        argv = machine.guest.argv(machine.folder, self._disk, memory_mib=machine.memory_mib)
        words = [word.replace(str(self._disk), disk) for word in argv]
        self._running = OwnQemu(
            [*words, "-S", *more], folder=machine.folder, connect_pause_s=connect_pause_s
        )

    def _collect(self) -> None:
        for event in self._qemu.take_events():
            if event["event"] in ("STOP", "RESUME"):
                stamp = event["timestamp"]
                self._seen.append(RunEvent(
                    at_s=stamp["seconds"] + stamp["microseconds"] / 1e6, runs=event["event"] == "RESUME"
                ))

    def _until_status(self, ended: Callable[[str], bool], *, pause_s: float) -> None:
        deadline = time.monotonic() + OPERATION_TIMEOUT_S
        while not ended(status := self._qemu.execute("query-status")["status"]):
            if time.monotonic() > deadline:
                raise HypervisorError(f"QEMU stays {status}")
            time.sleep(pause_s)


class RawEngine(_Process):
    """External snapshots as os-autoinst takes them."""

    def __init__(self, variant: Variant, here: Surroundings, machine: Machine) -> None:
        super().__init__(machine)
        self._variant = variant
        self._node = _NODE
        self._file = str(self._disk)
        self._frozen: dict[str, str] = {}

    def save(self, name: str) -> None:
        """See Engine."""
        qemu, overlay = self._qemu, self._overlay(name)
        qemu.execute("query-status")
        qemu.execute("stop")
        self._frozen[name] = self._file
        qemu.execute(
            "blockdev-snapshot-sync", node_name=self._node, snapshot_node_name=f"{_NODE}-{name}",
            snapshot_file=overlay, format="qcow2",
        )
        self._node, self._file = f"{_NODE}-{name}", overlay
        self._set_capability("events")
        parameters: dict[str, Any] = {"max_bandwidth": _UNLIMITED}
        if self._variant.mapped:
            self._set_capability("multifd")
            self._set_capability("mapped-ram")
            parameters |= {"multifd_channels": _THREADS, "direct_io": False}
        elif self._variant.compress:
            self._set_capability("compress")
            parameters |= {"compress_level": 6, "compress_threads": _THREADS}
        qemu.execute("migrate-set-parameters", **parameters)
        qemu.execute("stop")
        if self._variant.mapped:
            uri = f"file:{self._memory(name)}"
        else:
            qemu.give_file(self._memory(name), name="dumpfd")
            uri = "fd:dumpfd"
        qemu.execute("migrate", uri=uri)
        self._await_outgoing()
        qemu.execute("cont")

    def load(self, name: str) -> None:
        """See Engine."""
        self._qemu.execute("query-status")
        self._qemu.execute("stop")
        self._collect()
        self._qemu.stop()
        frozen = self._frozen[name]
        if self._file not in self._frozen.values():
            _FILES.remove(self._file)
        overlay = self._overlay(name)
        overlay_over(frozen, overlay)
        self._launch(overlay, "-incoming", "defer",
                     connect_pause_s=_CONNECT_PAUSE_S if self._variant.polls else 0.0)
        self._node, self._file = _NODE, overlay
        self._set_capability("events")
        if self._variant.mapped:
            self._set_capability("multifd")
            self._set_capability("mapped-ram")
        elif self._variant.compress:
            self._set_capability("compress")
        if self._variant.incoming == "fd":
            self._qemu.give_file(self._memory(name), name="dumpfd")
        self._qemu.execute("migrate-incoming", uri={
            "fd": "fd:dumpfd", "file": f"file:{self._memory(name)}",
            "exec": f"exec:cat {shlex.quote(self._memory(name))}",  # QEMU's shell, as os-autoinst has it
        }[self._variant.incoming])
        if not self._variant.polls:
            self._await_migration_event()
        self._until_status(lambda status: "migrate" not in status,
                           pause_s=_LOAD_POLL_S if self._variant.polls else _LOOK_S)
        self._qemu.execute("cont")

    def forget(self, name: str) -> None:
        """See Engine. The overlays stay, as os-autoinst's do: the guest stands on them."""
        _FILES.remove(self._memory(name))

    def _await_outgoing(self) -> None:
        if self._variant.polls:
            deadline = time.monotonic() + OPERATION_TIMEOUT_S
            while True:
                time.sleep(_SAVE_POLL_S)
                status = self._qemu.execute("query-migrate")["status"]
                if status == "completed":
                    break
                if status == "failed" or time.monotonic() > deadline:
                    raise HypervisorError(f"the migration to a file is {status}")
        else:
            self._await_migration_event()
        self._until_status(lambda status: status not in ("paused", "finish-migrate"),
                           pause_s=1.0 if self._variant.polls else _LOOK_S)

    def _await_migration_event(self) -> None:
        ended = self._qemu.wait_for(
            lambda event: event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed"),
            timeout_s=OPERATION_TIMEOUT_S,
        )
        if ended["data"]["status"] != "completed":
            raise HypervisorError(f"the migration failed: {self._qemu.execute('query-migrate')}")

    def _set_capability(self, name: str) -> None:
        self._qemu.execute("migrate-set-capabilities", capabilities=[{"capability": name, "state": True}])

    def _overlay(self, name: str) -> str:
        return str(self._machine.folder / f"{name}-overlay.qcow2")

    def _memory(self, name: str) -> str:
        return str(self._machine.folder / f"{name}-memory")


class InternalEngine(_Process):
    """Internal snapshots over QMP: snapshot-save and snapshot-load, RAM and disk in the one qcow2."""

    def __init__(self, here: Surroundings, machine: Machine) -> None:
        super().__init__(machine)

    def save(self, name: str) -> None:
        """See Engine."""
        self._job("snapshot-save", name, vmstate=_NODE)

    def load(self, name: str) -> None:
        """See Engine."""
        self._qemu.execute("stop")
        self._job("snapshot-load", name, vmstate=_NODE)
        self._qemu.execute("cont")

    def forget(self, name: str) -> None:
        """See Engine."""
        self._job("snapshot-delete", name)

    def _job(self, command: str, name: str, **arguments: str) -> None:
        job = f"{command}-{name}"
        self._qemu.execute(command, job_id=job, tag=name, devices=[_NODE], **arguments)
        self._qemu.wait_for(
            lambda event: event["event"] == "JOB_STATUS_CHANGE" and event["data"]["id"] == job
            and event["data"]["status"] == "concluded",
            timeout_s=OPERATION_TIMEOUT_S,
        )
        problem = next((each.get("error") for each in self._qemu.execute("query-jobs") if each["id"] == job), None)
        self._qemu.execute("job-dismiss", id=job)
        if problem:
            raise HypervisorError(f"{command}: {problem}")


def new_disk(machine: Machine) -> str:
    """Make the overlay on which a guest boots; give its path."""
    path = str(machine.folder / "disk.qcow2")
    overlay_over(str(machine.guest.disk), path)
    return path


def overlay_over(base: str, path: str) -> None:
    """Make an overlay over a file; what is at `path` goes."""
    layer = read_chain(_FILES, base, None)[0]
    _FILES.remove(path)
    _FILES.make_overlay(path, backing_path=base, backing_format=layer.format, virtual_bytes=layer.virtual_bytes,
                        owner=None)


def _row(
    name: str, title: str, variant: Variant, *, since: Version = (0, 0), until: Version = (99, 0),
    scenarios: tuple[ScenarioName, ...] = ("engines",),
) -> EngineRow:
    return EngineRow(name=name, title=title, kind="raw QMP", qemu=(since, until), polls=variant.polls,
                     make=partial(RawEngine, variant), scenarios=scenarios, every=2 if variant.polls else 1)


ROWS = (
    _row("raw-plain", "raw QMP, plain stream", Variant(), until=(11, 0),
         scenarios=("engines", "sizes", "parallel")),
    _row("raw-compress", "raw QMP, stream with os-autoinst's compression",
         Variant(compress=True, incoming="exec"), until=(9, 1)),
    _row("raw-mapped", "raw QMP, mapped-ram and multifd", Variant(mapped=True, incoming="file"), since=(9, 1),
         scenarios=("engines", "sizes", "parallel")),
    _row("raw-plain-polling", "raw QMP, plain stream, os-autoinst's polling",
         Variant(incoming="exec", polls=True), until=(11, 0)),
    _row("raw-compress-polling", "os-autoinst before QEMU 9.1: compression and polling",
         Variant(compress=True, incoming="exec", polls=True), until=(9, 1)),
    _row("raw-mapped-polling", "os-autoinst from QEMU 9.1: mapped-ram, multifd and polling",
         Variant(mapped=True, incoming="file", polls=True), since=(9, 1)),
    EngineRow(name="internal-qmp", title="internal snapshot by QMP (snapshot-save, snapshot-load)",
              kind="internal", qemu=((6, 0), (99, 0)), make=InternalEngine, every=2),
)
