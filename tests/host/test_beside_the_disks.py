"""UEFI variables and a TPM come back: with the memory, from an offline snapshot, and at the next boot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.firmware import Firmware
from tests.host.engines import require_native_engine
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.test_save_and_load import put

TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
_BOOT_S = 240


class Machine:
    """A guest with UEFI and a TPM, and virtsnap where it sees the daemon's folders."""

    def __init__(self, guest: RunningGuest, host: PrivateLibvirtd) -> None:
        self.guest = guest
        self.firmware = Firmware(guest.console)
        self._host = host

    def virtsnap(self, *words: str, program: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run a verb; give exit code and what it said."""
        inline = ("-c", "import sys; from virtsnap.cli.main import main; sys.exit(main())")
        argv = [sys.executable, *(program or inline), "-c", self.guest.uri, *words]
        inside, environment = self._host.inside(argv)
        done = subprocess.run(
            inside, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment,
        )
        return done.returncode, done.stdout + done.stderr

    def must(self, *words: str) -> str:
        """Run a verb that has to work."""
        code, said = self.virtsnap(*words)
        assert code == 0, said
        return said

    def put(self, token: str) -> None:
        """Write a token of three letters wherever the guest can keep one."""
        put(self.guest, token)
        self.firmware.set_variable(token)
        self.firmware.put(token)

    def on_disk(self) -> tuple[str, str, str]:
        """Read the tokens that outlive a power cut: UEFI variable, TPM, disk."""
        self.guest.console.wait_disk(timeout_s=_BOOT_S)
        on_disk = self.guest.console.check("echo 3 > /proc/sys/vm/drop_caches; cat /mnt/token")
        return self.firmware.variable(), self.firmware.kept(), on_disk

    def own_files(self) -> list[Path]:
        """Name what virtsnap holds."""
        return sorted(self.guest.folder.glob("virtsnap-*/*"))


@pytest.fixture(params=["restore", "native"])
def engine(request: pytest.FixtureRequest, host: PrivateLibvirtd) -> str:
    """Each way to revert."""
    if request.param == "native":
        require_native_engine(host.uri)
    return str(request.param)


@pytest.fixture
def machine(farm: GuestFarm, host: PrivateLibvirtd) -> Iterator[Machine]:
    """A q35 guest with OVMF and a TPM, whose tokens are `one`."""
    guest = farm.running_guest(machine="q35", uefi=True, extra_devices=TPM)
    guest.console.wait_disk()
    made = Machine(guest, host)
    made.firmware.make_index()
    made.put("one")
    yield made


@pytest.mark.whole  # a boot takes OVMF half a minute under TCG
def test_with_the_memory_they_come_back_and_the_next_boot_has_them_too(engine: str, machine: Machine) -> None:
    name, firmware = machine.guest.name, machine.firmware
    off = firmware.register()
    firmware.extend()
    machine.must("save", name, "s")
    register = firmware.register()
    for _ in range(2):
        machine.put("two")
        firmware.extend()
        assert firmware.register() != register
        machine.must("load", name, "s", "--engine", engine)
        assert machine.on_disk() == ("one", "one", "one")
        assert firmware.register() == register
    assert not [path for path in machine.own_files() if path.suffix == ".state"]
    # What is on the host has to be the loaded line's too.
    machine.guest.domain.destroy()
    machine.guest.domain.create()
    assert machine.on_disk() == ("one", "one", "one")
    assert firmware.register() == off != register


def test_an_offline_snapshot_holds_them(machine: Machine) -> None:
    name = machine.guest.name
    machine.guest.domain.destroy()
    said = machine.must("check", name)
    assert "can be saved" in said
    machine.must("save", name, "off")
    archive, = (path for path in machine.own_files() if path.suffix == ".state")
    assert {oct(path.stat().st_mode & 0o777) for path in machine.own_files()} == {"0o600"}
    machine.guest.domain.create()
    machine.guest.console.wait_disk(timeout_s=_BOOT_S)
    machine.put("two")
    # damaged: the guest runs on
    number, whole = machine.guest.domain.ID(), archive.with_name("whole")
    archive.rename(whole)
    code, said = machine.virtsnap("load", name, "off")
    assert (code, "beside its disks" in said, "is missing" in said) == (8, True, True), said
    whole.rename(archive)
    assert machine.guest.domain.ID() == number
    assert machine.on_disk() == ("two", "two", "two")
    machine.must("load", name, "off")
    assert machine.on_disk() == ("one", "one", "one")
    assert [path.suffix for path in machine.own_files()].count(".state") == 1
    listed = json.loads(machine.must("--json", "list", name))
    assert listed["snapshots"][0]["facts"]["beside"]["path"] == str(archive)
    machine.must("check", name, "--deep")
    machine.must("rm", name, "off")
    assert not archive.exists()
    assert machine.on_disk() == ("one", "one", "one")


@pytest.mark.whole
def test_a_load_that_fails_after_the_stop_leaves_those_of_before(machine: Machine) -> None:
    name = machine.guest.name
    machine.must("save", name, "s")
    machine.put("two")
    # The step after the restore fails: the TPM of the snapshot has been started by then.
    code, said = machine.virtsnap("load", name, "s", program=("-m", "tests.faults.failing", "define"))
    assert (code, "shut off now" in said) == (8, True), said
    machine.guest.domain.create()
    assert machine.on_disk() == ("two", "two", "two")
    assert not [path for path in machine.own_files() if path.suffix == ".state"]
