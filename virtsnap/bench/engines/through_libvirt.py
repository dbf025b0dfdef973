"""The argv as a domain of libvirt's: made, paused, listened to and removed in one way for all engines on it."""

from __future__ import annotations

import contextlib
import shutil

from virtsnap.bench.engines import Machine, Surroundings
from virtsnap.bench.engines.raw_qmp import new_disk
from virtsnap.convert import convert_command_line
from virtsnap.errors import VirtsnapError
from virtsnap.host import Domain, connect
from virtsnap.host.pauses import RunEvent


class DomainGuest:
    """A guest of the machine's argv, converted by virtsnap, under libvirt."""

    def __init__(self, here: Surroundings, machine: Machine) -> None:
        self._here = here
        self._machine = machine
        self._host = connect(here.uri)
        self._running: Domain | None = None

    @property
    def _domain(self) -> Domain:
        assert self._running is not None
        return self._running

    def start(self) -> None:
        """See Engine."""
        self._running = self._host.define(self._xml())
        self._running.start(paused=False)

    def events(self) -> list[RunEvent]:
        """See Engine."""
        return self._here.watch.take(self._machine.name)

    def phases_s(self) -> dict[str, float]:
        """See Engine."""
        return {}

    def rest(self) -> None:
        """See Engine."""
        self._domain.pause()

    def wake(self) -> None:
        """See Engine."""
        self._domain.resume()

    def stop(self) -> None:
        """See Engine."""
        if self._running is not None:
            with contextlib.suppress(VirtsnapError):
                self._running.destroy()
            for name in self._running.snapshot_names():
                self._running.forget_snapshot(name)
            self._running.undefine()
            self._running = None
        self._host.close()

    def _xml(self) -> str:
        machine = self._machine
        disk = new_disk(machine)
        argv = machine.guest.argv(machine.folder, machine.folder / "disk.qcow2", memory_mib=machine.memory_mib)
        assert disk in " ".join(argv)
        return convert_command_line(
            argv, name=machine.name, for_libvirt=self._host.libvirt_version, base=machine.folder,
            find_program=shutil.which,
        ).xml
