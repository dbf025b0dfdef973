"""What cannot be done is refused before anything is touched: the guest runs on, and the exit code says why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from pytest_mock import MockerFixture

import virtsnap
import virtsnap.host
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.test_save_and_load import disk_files, names_in_libvirt, own_files, put, tokens
from virtsnap.errors import BusyError, HypervisorError, OperationTimeoutError, UnsupportedError
from virtsnap.host import Domain, Host
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.lock import Lock

Vm = tuple[RunningGuest, SnapshotDomain]


@pytest.fixture
def vm(farm: GuestFarm) -> Iterator[Vm]:
    """A running guest with one disk, and virtsnap's hold on it."""
    guest = farm.running_guest()
    guest.console.wait_disk()
    with virtsnap.connect(farm.uri) as host:
        yield guest, host.domain(guest.name)


def command(uri: str, *words: str) -> tuple[int, str, str]:
    program = "import sys; from virtsnap.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "-c", uri, *words],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


def still_runs(guest: RunningGuest, domain_id: int) -> bool:
    """Say whether the guest's QEMU is the one of before, and the guest answers."""
    guest.console.check("true")
    return bool(guest.domain.ID() == domain_id)


def test_what_is_missing_has_its_exit_code_and_the_guest_runs_on(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    number = guest.domain.ID()
    put(guest, "one")
    assert command(host_uri, "load", guest.name, "nothing")[0] == 4
    assert command(host_uri, "rm", guest.name, "nothing")[0] == 4
    assert command(host_uri, "save", "no-such-vm", "s")[0] == 3
    assert command(host_uri, "load", "no-such-vm", "s")[0] == 3
    assert command(host_uri, "list", "no-such-vm")[0] == 3
    assert command(host_uri, "save", guest.name, "x" * 201)[0] == 2
    assert command(host_uri, "save", guest.name, "")[0] == 2
    assert command(host_uri, "load", guest.name, "x" * 201)[0] == 2
    assert still_runs(guest, number)
    assert own_files(guest) == set()
    assert domain.snapshots() == ()


def test_the_verbs_end_to_end(vm: Vm, host_uri: str) -> None:
    guest, _ = vm
    put(guest, "one")
    code, out, err = command(host_uri, "save", guest.name, "boot/ready #1")
    assert (code, err) == (0, "")
    assert out.startswith(f"saved {guest.name} as boot/ready #1: ")
    code, out, _ = command(host_uri, "list", guest.name)
    assert code == 0
    assert "boot/ready #1" in out
    assert command(host_uri, "--readonly", "list", guest.name)[1] == out
    assert command(host_uri, "--readonly", "load", guest.name, "boot/ready #1")[0] == 6
    put(guest, "two")
    number = guest.domain.ID()
    code, out, _ = command(host_uri, "load", guest.name, "boot/ready #1", "--dry-run")
    assert code == 0
    assert "point of no return" in out
    assert still_runs(guest, number)
    code, out, _ = command(host_uri, "--json", "load", guest.name, "boot/ready #1")
    answer: dict[str, Any] = json.loads(out)
    assert code == 0
    assert answer["ok"] is True
    assert answer["state"] == "running"
    assert {"stop", "restore"} <= set(answer["phases_s"])
    assert tokens(guest) == ("one", "one")
    code, out, _ = command(host_uri, "--json", "list", guest.name)
    assert [each["name"] for each in json.loads(out)["snapshots"]] == ["boot/ready #1"]
    assert command(host_uri, "rm", guest.name, "boot/ready #1")[0] == 0
    code, out, _ = command(host_uri, "--json", "rm", guest.name, "boot/ready #1")
    assert (code, json.loads(out)["error"]["code"]) == (4, "no-such-snapshot")


def truncate(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def mark_partial(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"LibvirtQemudPart")


def test_a_visibly_damaged_snapshot_leaves_the_guest_running(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("r")
    overlay, base = Path(disk_files(guest, live=True)[0]), guest.disks[0]
    domain.save_snapshot("s")
    put(guest, "two")
    number, files = guest.domain.ID(), disk_files(guest, live=True)
    memory = max(guest.folder.glob("virtsnap-*/*.mem"), key=lambda path: path.stat().st_mtime_ns)
    # Moved, not copied, and moved back: the running guest has the disks open.
    damages: list[tuple[Path, Callable[[Path], object] | None, str]] = [
        (memory, None, "is missing"), (memory, truncate, "bytes, not"), (memory, mark_partial, "written to"),
        (memory, Path.touch, "written to"), (base, None, "no such file"), (base, Path.touch, "was changed"),
        (overlay, None, "no such file"), (overlay, Path.touch, "was changed"), (overlay, truncate, "was changed"),
    ]
    for path, damage, words in damages:
        whole = path.with_name("whole")
        path.rename(whole)
        if damage is not None:
            shutil.copy2(whole, path)
            damage(path)
        code, _, err = command(host_uri, "load", guest.name, "s")
        path.unlink(missing_ok=True)
        whole.rename(path)
        assert code == 8, err
        assert "cannot be loaded" in err
        assert words in err
        assert guest.domain.ID() == number
    assert still_runs(guest, number)
    assert disk_files(guest, live=True) == files
    assert tokens(guest) == ("two", "two")
    assert names_in_libvirt(guest) == {"r", "s"}
    domain.load_snapshot("s")
    assert tokens(guest) == ("one", "one")


def test_a_writable_disk_that_only_qemu_knows_is_refused(farm: GuestFarm, host_uri: str) -> None:
    extra = farm.new_folder(farm.new_name("extra")) / "extra.raw"
    extra.write_bytes(b"\0" * 1_048_576)
    name = farm.new_name()
    folder = farm.new_folder(name)
    disk = farm.new_disk(folder, "disk0")
    farm.make_domain(f"""
      <domain type='{farm.domain_type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
        <name>{name}</name><memory unit='MiB'>64</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
          <target dev='vda' bus='virtio'/></disk></devices>
        <qemu:commandline><qemu:arg value='-drive'/>
          <qemu:arg value='file={extra},format=raw,if=none,id=hidden'/></qemu:commandline>
      </domain>""")
    code, _, err = command(host_uri, "save", name, "s")
    assert code == 6
    assert "id=hidden" in err
    assert not list(folder.glob("virtsnap-*"))


def test_a_save_whose_memory_cannot_be_written_leaves_everything_as_it_was(
    vm: Vm, mocker: MockerFixture
) -> None:
    guest, domain = vm
    files = disk_files(guest, live=True)
    # libvirt itself fails: the memory's folder is gone when it comes to write there.
    mocker.patch("virtsnap.snapshots.plan.places.memory_path", return_value=f"{guest.folder}/gone/s.mem")
    with pytest.raises(HypervisorError):
        domain.save_snapshot("s")
    assert disk_files(guest, live=True) == files == disk_files(guest, live=False)
    assert not list(guest.folder.glob("virtsnap-*"))
    assert names_in_libvirt(guest) == set()
    assert "urn:virtsnap" not in guest.domain.XMLDesc(2)
    guest.console.check("true")


@pytest.mark.parametrize("power", ["running", "shutoff"])
def test_a_save_that_fails_after_libvirt_took_it_is_taken_back(
    vm: Vm, mocker: MockerFixture, power: str
) -> None:
    guest, domain = vm
    put(guest, "one")
    if power == "shutoff":
        guest.domain.destroy()
    files = disk_files(guest, live=True)
    mocker.patch.object(Domain, "redefine_snapshot", side_effect=HypervisorError("injected"))
    with pytest.raises(HypervisorError, match="injected"):
        domain.save_snapshot("s")
    mocker.stopall()
    assert disk_files(guest, live=True) == files == disk_files(guest, live=False)
    assert not list(guest.folder.glob("virtsnap-*"))
    assert names_in_libvirt(guest) == set()
    if power == "running":
        assert tokens(guest) == ("one", "one")
        put(guest, "two")
    # and the disk is fit for the next save
    domain.save_snapshot("s")
    domain.load_snapshot("s")


def test_a_replacing_save_that_fails_keeps_the_old_one(vm: Vm, mocker: MockerFixture) -> None:
    guest, domain = vm
    put(guest, "old")
    domain.save_snapshot("s")
    put(guest, "new")
    mocker.patch("virtsnap.snapshots.acts.objects.renamed", side_effect=HypervisorError("injected"))
    with pytest.raises(HypervisorError, match="injected"):
        domain.save_snapshot("s")
    mocker.stopall()
    assert [each.object_name for each in domain.snapshots()] == ["s"]
    assert tokens(guest) == ("new", "new")
    domain.load_snapshot("s")
    assert tokens(guest) == ("old", "old")


@pytest.mark.parametrize("call", ["restore", "define", "resume"])
def test_a_load_that_fails_after_the_stop_leaves_the_disks_of_before_bootable(
    vm: Vm, mocker: MockerFixture, call: str
) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("s")
    put(guest, "two")
    files, before = disk_files(guest, live=True), own_files(guest)
    if call == "define":
        # The second definition is the undo's, which works.
        real = Host.define
        calls: list[str] = []

        def fail_first(self: Host, xml: str) -> Domain:
            calls.append(xml)
            if len(calls) == 1:
                raise HypervisorError("injected")
            return real(self, xml)

        mocker.patch.object(Host, "define", fail_first)
    else:
        mocker.patch.object(Host if call == "restore" else Domain, call, side_effect=HypervisorError("injected"))
    with pytest.raises(HypervisorError, match="shut off now"):
        domain.load_snapshot("s")
    mocker.stopall()
    assert not guest.domain.isActive()
    assert disk_files(guest, live=False) == files
    assert own_files(guest) == before
    guest.domain.create()
    guest.console.wait_disk()
    assert guest.console.check("cat /mnt/token") == "two"
    domain.load_snapshot("s")
    assert tokens(guest) == ("one", "one")


def test_a_load_that_fails_before_the_stop_leaves_the_guest_running(vm: Vm, mocker: MockerFixture) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("s")
    put(guest, "two")
    number, before = guest.domain.ID(), own_files(guest)
    mocker.patch.object(Domain, "stop", side_effect=HypervisorError("injected"))
    with pytest.raises(HypervisorError, match="injected"):
        domain.load_snapshot("s")
    mocker.stopall()
    assert still_runs(guest, number)
    assert own_files(guest) == before


def test_a_domain_held_by_another_operation_is_busy(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    with virtsnap.host.connect(host_uri) as host, Lock(host.domain(guest.name), "save"):
        with pytest.raises(BusyError, match="held by `save` of process"):
            domain.save_snapshot("s")
        assert command(host_uri, "save", guest.name, "s")[0] == 9
    domain.save_snapshot("s")


def test_the_lock_of_a_dead_owner_is_broken(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    script = (
        "import sys; from virtsnap.host import connect; from virtsnap.snapshots.lock import Lock\n"
        "host = connect(sys.argv[1]); Lock(host.domain(sys.argv[2]), 'load').__enter__()\n"
        "import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, host_uri, guest.name], check=True)
    assert "urn:virtsnap:lock" in guest.domain.XMLDesc(2)
    domain.save_snapshot("s")
    assert "urn:virtsnap:lock" not in guest.domain.XMLDesc(2)


def guest_with_much_memory(farm: GuestFarm) -> RunningGuest:
    """Start a guest whose save takes long enough to be cut off; pages of zeros would cost nothing."""
    guest = farm.running_guest(memory_mib=768)
    fill = "head -c 4m /dev/urandom > /run/some && for i in $(seq 75); do cat /run/some; done > /run/much"
    guest.console.check(fill, timeout_s=60)
    assert guest.console.check("wc -c < /run/much") == str(75 * 4 * 2**20)
    return guest


def test_a_save_that_runs_out_of_time_leaves_everything_as_it_was(farm: GuestFarm) -> None:
    guest = guest_with_much_memory(farm)
    number, files = guest.domain.ID(), disk_files(guest, live=True)
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        # Before libvirt's job, in the midst of it or just after: it depends on the machine, and must not matter.
        for timeout_s in (0.02, 0.08, 0.15):
            with pytest.raises(OperationTimeoutError):
                domain.save_snapshot("s", timeout_s=timeout_s)
            assert still_runs(guest, number)
            assert disk_files(guest, live=True) == files == disk_files(guest, live=False)
            assert not list(guest.folder.glob("virtsnap-*"))
            assert names_in_libvirt(guest) == set()
        domain.save_snapshot("s", timeout_s=120)


def test_a_disk_that_is_no_file_and_a_managed_save_are_refused(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    guest.domain.managedSave()
    with virtsnap.connect(farm.uri) as host, pytest.raises(UnsupportedError, match="managed save"):
        host.domain(guest.name).save_snapshot("s")
    guest.domain.managedSaveRemove()


def test_external_snapshots_of_plain_virsh_are_loaded(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    guest.domain.snapshotCreateXML(
        f"<domainsnapshot><name>theirs</name><memory snapshot='external' file='{guest.folder}/theirs.mem'/>"
        f"<disks><disk name='vda' snapshot='external'><source file='{guest.folder}/theirs.qcow2'/></disk></disks>"
        "</domainsnapshot>"
    )
    put(guest, "two")
    domain.save_snapshot("ours")
    for _ in range(2):
        put(guest, "three")
        domain.load_snapshot("theirs", keep_newer=True)
        assert tokens(guest) == ("one", "one")
    domain.load_snapshot("ours")
    assert tokens(guest) == ("two", "two")
    guest.domain.snapshotCreateXML(
        "<domainsnapshot><name>disks</name></domainsnapshot>", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    )
    put(guest, "four")
    domain.load_snapshot("disks")
    guest.console.wait_disk()
    assert guest.console.check("cat /mnt/token") == "two"
    domain.remove_snapshot("theirs")
    # its files are not virtsnap's to remove
    assert (guest.folder / "theirs.mem").exists()
    domain.load_snapshot("ours")
    assert tokens(guest) == ("two", "two")


def test_an_internal_snapshot_is_loaded_by_libvirt_while_there_is_no_external_one(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    guest.domain.snapshotCreateXML("<domainsnapshot><name>inside</name></domainsnapshot>")
    assert [each.is_internal for each in domain.snapshots()] == [True]
    put(guest, "two")
    assert domain.load_snapshot("inside").state == "running"
    assert tokens(guest) == ("one", "one")
    with pytest.raises(UnsupportedError, match="internal"):
        domain.remove_snapshot("inside")
    domain.save_snapshot("outside")
    put(guest, "three")
    number = guest.domain.ID()
    with pytest.raises(UnsupportedError, match="external ones"):
        domain.load_snapshot("inside")
    assert still_runs(guest, number)
    assert tokens(guest) == ("three", "three")


def test_of_many_at_once_those_that_say_done_are_done_and_the_others_say_busy(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    put(guest, "one")
    program = "import sys; from virtsnap.cli.main import main; sys.exit(main())"
    processes = {
        f"s{number}": subprocess.Popen(
            [sys.executable, "-c", program, "-c", host_uri, "save", guest.name, f"s{number}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(4)
    }
    codes = {name: process.wait(120) for name, process in processes.items()}
    assert set(codes.values()) <= {0, 9}
    assert 0 in codes.values()
    done = {name for name, code in codes.items() if code == 0}
    assert names_in_libvirt(guest) == done
    assert len(own_files(guest)) == 2 * len(done)
    assert "urn:virtsnap" not in guest.domain.XMLDesc(2)
    put(guest, "two")
    domain.load_snapshot(sorted(done)[0])
    assert tokens(guest) == ("one", "one")


def test_a_domain_with_no_writable_disk_needs_to_be_told_where(farm: GuestFarm, host_uri: str) -> None:
    name = farm.new_name()
    folder = farm.new_folder(name)
    farm.make_domain(f"""
      <domain type='{farm.domain_type}'><name>{name}</name><memory unit='MiB'>64</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>""")
    code, _, err = command(host_uri, "save", name, "s")
    assert code == 6
    assert "--dir" in err
    assert command(host_uri, "save", name, "s", "--dir", str(folder))[0] == 0
    assert command(host_uri, "load", name, "s")[0] == 0


def test_a_save_that_is_told_to_end_takes_itself_back(farm: GuestFarm, host_uri: str) -> None:
    guest = guest_with_much_memory(farm)
    files = disk_files(guest, live=True)
    program = "import sys; from virtsnap.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", program, "-c", host_uri, "save", guest.name, "s"], stdin=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 30
        while not own_files(guest) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 143
    assert disk_files(guest, live=True) == files
    assert not list(guest.folder.glob("virtsnap-*"))
    assert names_in_libvirt(guest) == set()
    assert "urn:virtsnap" not in guest.domain.XMLDesc(2)
    guest.console.check("true")
