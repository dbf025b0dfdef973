"""Everything is done by libvirt's calls alone, from a client that sees none of the hypervisor's files."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

import virtsnap
from tests.host.engines import require_native_engine
from tests.host.far_client import FarClient
from tests.host.guests import GuestFarm, RunningGuest, domain_xml
from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.test_save_and_load import digest, disk_files, names_in_libvirt, own_files, put, tokens
from tests.host.virsh_calls import FRONT, ConsoleSession
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER
from virtsnap.host.chains import read_chain
from virtsnap.host.local_files import LocalFiles


@pytest.fixture
def far(host: PrivateLibvirtd) -> FarClient:
    return FarClient(host=host)


@pytest.fixture
def guest(farm: GuestFarm) -> Iterator[RunningGuest]:
    """A guest with two disks; after the test no pool of ours is left."""
    guest = farm.running_guest(extra_disk_sizes=["16M"])
    guest.console.wait_disk(timeout_s=90)
    yield guest
    assert farm.connection.listAllStoragePools() == []


@dataclass(frozen=True, kw_only=True)
class ShutOff:
    """A domain that is never started; tests write to its disks as a guest would."""

    name: str
    folder: Path
    disks: tuple[Path, ...]
    domain: Any

    def tops(self) -> list[str]:
        """Name the files of its disks."""
        root = etree.fromstring(self.domain.XMLDesc(0).encode())
        return [source.get("file", "") for source in root.iterfind("devices/disk/source")]

    def write(self, byte: int) -> None:
        """Fill a part of each disk with a byte, and a part that is that byte's own."""
        for path in self.tops():
            qemu_io(path, f"write -P {byte} 1M 64k")
            qemu_io(path, f"write -P {byte} {2048 + byte * 64}k 64k")

    def assert_holds(self, byte: int) -> None:
        """See that each disk holds it."""
        for path in self.tops():
            qemu_io(path, f"read -P {byte} 1M 64k")


def qemu_io(path: str, command: str) -> None:
    said = subprocess.run(["qemu-io", "-c", command, path], check=True, capture_output=True, text=True)
    assert "verification failed" not in said.stdout, said.stdout


@pytest.fixture
def off(farm: GuestFarm) -> Iterator[ShutOff]:
    """A shut-off domain with two disks; after the test no pool and no machine of ours is left."""
    name = farm.new_name()
    folder = farm.new_folder(name)
    disks = tuple(farm.new_disk(folder, f"disk{number}", size="8M") for number in range(2))
    domain = farm.connection.defineXML(domain_xml(
        name=name, domain_type=farm.domain_type, files=farm.files, serial=None, disks=disks, memory_mib=64, cpus=1
    ))
    farm.adopt(name)
    yield ShutOff(name=name, folder=folder, disks=disks, domain=domain)
    assert farm.connection.listAllStoragePools() == []
    assert {each.name() for each in farm.connection.listAllDomains()} <= {name}


def put_on_both(guest: RunningGuest, token: str) -> None:
    put(guest, token)
    guest.console.check(f"echo {token} | dd of=/dev/vdb bs=512 conv=sync 2>/dev/null; sync")


def all_tokens(guest: RunningGuest) -> set[str]:
    return {*tokens(guest), guest.console.check("dd if=/dev/vdb bs=512 count=1 2>/dev/null | tr -d '\\0'")}


def test_the_client_sees_no_file(guest: RunningGuest, far: FarClient) -> None:
    hidden = far.run(("ls", "-A", str(guest.folder.parent), str(far.host.folder / "lib"), "/var/lib/libvirt"))
    assert hidden.code == 0
    assert {line for line in hidden.out.splitlines() if line and not line.endswith(":")} == set()


def test_a_guest_is_saved_replaced_loaded_listed_and_removed(guest: RunningGuest, far: FarClient) -> None:
    for token in ("old", "a"):
        put_on_both(guest, token)
        answer = json.loads(far.virtsnap("--json", "save", guest.name, "a"))
        assert answer["state"] == "running"
        assert answer["bytes"]["memory"] > 1_000_000
    put_on_both(guest, "b")
    far.virtsnap("save", guest.name, "b")
    frozen = {path: digest(path) for path in guest.disks}
    assert {path.stat().st_mode & 0o777 for path in guest.folder.glob("virtsnap-*/*")} == {0o600}
    for name in ("b", "a", "b"):
        put_on_both(guest, "wrong")
        far.virtsnap("load", guest.name, name, "--keep-newer")
        assert all_tokens(guest) == {name}
        assert disk_files(guest, live=True) == disk_files(guest, live=False)
    listed = json.loads(far.virtsnap("--json", "list", guest.name))
    assert [each["name"] for each in listed["snapshots"]] == ["a", "b"]
    far.virtsnap("load", guest.name, "a")
    assert names_in_libvirt(guest) == {"a"}
    assert all_tokens(guest) == {"a"}
    guest.domain.destroy()
    guest.domain.create()
    guest.console.wait_disk(timeout_s=90)
    assert guest.console.check("cat /mnt/token") == "a"
    assert {path: digest(path) for path in guest.disks} == frozen
    far.virtsnap("rm", guest.name, "a")
    assert names_in_libvirt(guest) == set()
    assert not {name for name in own_files(guest) if name.endswith(".mem")}


def test_libvirts_own_revert_takes_turns_with_ours(guest: RunningGuest, far: FarClient) -> None:
    require_native_engine(guest.uri)
    for name in ("a", "b"):
        put_on_both(guest, name)
        far.virtsnap("save", guest.name, name)
    for name, engine in (("a", "native"), ("b", "restore"), ("a", "native"), ("b", "native")):
        far.virtsnap("load", guest.name, name, "--keep-newer", "--engine", engine)
        assert all_tokens(guest) == {name}


def test_what_is_saved_near_is_loaded_far_and_the_other_way_round(guest: RunningGuest, far: FarClient) -> None:
    with virtsnap.connect(guest.uri) as near:
        put_on_both(guest, "near")
        near.domain(guest.name).save_snapshot("near")
        put_on_both(guest, "far")
        far.virtsnap("save", guest.name, "far")
        far.virtsnap("load", guest.name, "near", "--keep-newer")
        assert all_tokens(guest) == {"near"}
        near.domain(guest.name).load_snapshot("far", keep_newer=True)
        assert all_tokens(guest) == {"far"}


def test_a_shut_off_domain_is_saved_and_loaded(off: ShutOff, far: FarClient) -> None:
    for byte in (1, 2):
        off.write(byte)
        far.virtsnap("save", off.name, str(byte))
    off.write(9)
    assert {path.stat().st_mode & 0o777 for path in off.folder.glob("virtsnap-*/*")} == {0o600}
    for byte in (1, 2):
        far.virtsnap("load", off.name, str(byte), "--as-saved", "--keep-newer")
        off.assert_holds(byte)
        off.write(9)
    far.virtsnap("load", off.name, "1", "--paused")
    assert off.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    off.domain.destroy()
    off.assert_holds(1)
    assert [snapshot.getName() for snapshot in off.domain.listAllSnapshots()] == ["1"]
    far.virtsnap("rm", off.name, "1")
    assert off.domain.listAllSnapshots() == []
    code, said = far.refused("save", off.name, "2", "--durable")
    assert (code, "writes a snapshot's files out" in said) == (6, True), said


def test_damage_is_seen_before_the_stop(guest: RunningGuest, far: FarClient) -> None:
    put_on_both(guest, "a")
    far.virtsnap("save", guest.name, "a")
    far.virtsnap("check", guest.name)
    assert "4 recorded" in far.virtsnap("check", guest.name, "--deep")
    put_on_both(guest, "now")
    number = guest.domain.ID()
    (memory,) = guest.folder.glob("virtsnap-*/*.mem")
    before = memory.stat()
    flip(memory)
    os.utime(memory, ns=(before.st_atime_ns, before.st_mtime_ns))
    far.virtsnap("check", guest.name)
    code, said = far.refused("load", guest.name, "a", "--verify")
    assert (code, "does not hold what it held" in said) == (8, True), said
    flip(memory)
    code, said = far.refused("load", guest.name, "a")
    assert (code, "was written to after the save" in said) == (8, True), said
    os.utime(memory, ns=(before.st_atime_ns, before.st_mtime_ns))
    base = guest.disks[1]
    base.rename(base.with_name("away"))
    code, said = far.refused("load", guest.name, "a")
    assert (code, f"{base}: no such file" in said) == (8, True), said
    assert far.refused("check", guest.name)[0] == 1
    base.with_name("away").rename(base)
    assert guest.domain.ID() == number
    assert all_tokens(guest) == {"now"}
    far.virtsnap("load", guest.name, "a", "--verify")
    assert all_tokens(guest) == {"a"}


def flip(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 4]))


@pytest.mark.parametrize("is_running", [False, True])
def test_chains_are_flattened(off: ShutOff, far: FarClient, is_running: bool) -> None:
    for byte in (1, 2, 3):
        off.write(byte)
        far.virtsnap("save", off.name, str(byte))
    off.write(4)
    frozen = {path: digest(path) for path in off.folder.rglob("*.qcow2") if str(path) not in off.tops()}
    if is_running:
        off.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    answer = json.loads(far.virtsnap("--json", "flatten", off.name))
    assert answer["bytes"]["pulled"] > 0
    if is_running:
        off.domain.destroy()
    for top, base in zip(off.tops(), off.disks, strict=True):
        assert [layer.path for layer in read_chain(LocalFiles(), top, "qcow2")] == [top, str(base)]
    assert {path: digest(path) for path in frozen} == frozen
    off.assert_holds(4)
    for byte in (2, 1, 3):
        far.virtsnap("load", off.name, str(byte), "--keep-newer", "--as-saved")
        off.assert_holds(byte)


def test_an_undefine_brings_home_what_was_written(off: ShutOff, far: FarClient) -> None:
    for byte in (1, 2):
        off.write(byte)
        far.virsh("snapshot-create-as", off.name, str(byte))
    off.write(3)
    far.virsh("undefine", "--snapshots-metadata", off.name)
    assert off.domain.connect().listAllDomains() == []
    assert sorted(off.folder.iterdir()) == sorted(off.disks)
    for path in off.disks:
        qemu_io(str(path), "read -P 3 1M 64k")


def test_libvirts_own_revert_of_a_shut_off_domain(off: ShutOff, far: FarClient) -> None:
    require_native_engine(far.host.uri)
    for byte in (1, 2):
        off.write(byte)
        far.virtsnap("save", off.name, str(byte))
    for byte, engine in ((1, "native"), (2, "restore"), (1, "native"), (2, "native")):
        far.virtsnap("load", off.name, str(byte), "--keep-newer", "--as-saved", "--engine", engine)
        off.assert_holds(byte)
        off.write(9)


def test_garbage_is_found_and_removed(guest: RunningGuest, far: FarClient) -> None:
    put_on_both(guest, "a")
    far.virtsnap("save", guest.name, "a")
    (folder,) = guest.folder.glob("virtsnap-*")
    mine, foreign = folder / "0000000a.mem", folder / "notes.txt"
    mine.write_bytes(b"x" * 10_000)
    foreign.write_text("keep me")
    vanished = guest.folder / f"virtsnap-{uuid.uuid4()}"
    vanished.mkdir()
    (vanished / "0000000b-vda.qcow2").write_bytes(b"x" * 10_000)
    elsewhere = far.host.work / f"elsewhere-{guest.name}" / f"virtsnap-{uuid.uuid4()}"
    elsewhere.mkdir(parents=True)
    (elsewhere / "0000000c.mem").touch()
    before = own_files(guest)
    assert "2 files would be removed" in far.virtsnap("gc", "--dry-run")
    assert own_files(guest) == before
    assert "3 files were removed" in far.virtsnap("gc", "--dir", str(elsewhere.parent))
    assert [path.exists() for path in (mine, vanished, elsewhere, foreign)] == [False, False, False, True]
    elsewhere.parent.rmdir()
    foreign.unlink()
    code, said = far.refused("gc", "--dir", "here")
    assert (code, "not absolute" in said) == (2, True)
    far.virtsnap("load", guest.name, "a")
    assert all_tokens(guest) == {"a"}


@pytest.mark.parametrize(("verb", "when", "step", "how"), [
    ("save", "before", 3, "undone"), pytest.param("save", "after", 3, "finished", marks=pytest.mark.whole),
    pytest.param("load", "before", 5, "undone", marks=pytest.mark.whole), ("load", "after", 5, "finished"),
])
def test_a_killed_operation_is_recovered(
    guest: RunningGuest, far: FarClient, verb: str, when: str, step: int, how: str
) -> None:
    put_on_both(guest, "a")
    far.virtsnap("save", guest.name, "a")
    put_on_both(guest, "now")
    name = "new" if verb == "save" else "a"
    far.killed(when, step, verb, guest.name, name)
    answer = json.loads(far.virtsnap("--json", "recover", guest.name))
    assert (answer["interrupted"], answer["result"]) == (verb, how)
    if (verb, how) == ("save", "finished"):
        far.virtsnap("load", guest.name, "new", "--keep-newer")
        assert all_tokens(guest) == {"now"}
    elif how == "undone":
        assert all_tokens(guest) == {"now"}
    far.virtsnap("load", guest.name, "a")
    assert all_tokens(guest) == {"a"}


def test_virshs_verbs_keep_a_tree(off: ShutOff, far: FarClient) -> None:
    for byte in (1, 2, 3):
        off.write(byte)
        far.virsh("snapshot-create-as", off.name, str(byte))
    far.virsh("snapshot-revert", off.name, "1")
    off.assert_holds(1)
    far.virsh("snapshot-delete", off.name, "2")
    assert far.virsh("snapshot-list", off.name, "--name").split() == ["1", "3"]
    assert far.virsh("snapshot-parent", off.name, "3").split() == ["1"]
    far.virsh("snapshot-revert", off.name, "3")
    off.assert_holds(3)
    far.virsh("snapshot-delete", off.name, "1", "--children")
    assert far.virsh("snapshot-list", off.name, "--name").split() == []
    off.assert_holds(3)


def test_a_console_session_outlives_a_load(farm: GuestFarm, far: FarClient) -> None:
    guest = farm.running_guest(extra_devices="<serial type='pty'/>")
    far.virtsnap("save", guest.name, "a")
    with ConsoleSession(guest.uri, guest.name, "serial1", program=far.words(*FRONT)) as session:
        session.wait_for("Escape character is ^]")
        for number in range(2):
            far.virtsnap("load", guest.name, "a")
            for attempt in range(20):
                guest.console.check(f"echo said-{number}-{attempt} > /dev/ttyS1")
                try:
                    session.wait_for(f"said-{number}-{attempt}", timeout_s=1)
                except AssertionError:
                    continue
                break
            else:
                raise AssertionError(f"nothing was heard: {session.output!r}")


def test_the_default_user_of_qemu_conf(default_user_farm: GuestFarm) -> None:
    far = FarClient(host=default_user_farm.host)
    guest = default_user_farm.running_guest(extra_disk_sizes=["16M"])
    guest.console.wait_disk(timeout_s=90)
    put_on_both(guest, "one")
    far.virtsnap("save", guest.name, "s")
    for _ in range(2):
        put_on_both(guest, "two")
        far.virtsnap("load", guest.name, "s")
        assert all_tokens(guest) == {"one"}
    assert {path.stat().st_mode & 0o777 for path in guest.folder.glob("virtsnap-*/*")} == {0o600}
    guest.domain.destroy()
    far.virsh("undefine", "--snapshots-metadata", guest.name)
    assert list(guest.folder.glob("virtsnap-*")) == []


def test_instant_snapshots_are_loaded_and_none_is_made(farm: GuestFarm, far: FarClient) -> None:
    guest = farm.running_guest(ram_folder=DEFAULT_FOLDER)
    guest.console.wait_disk(timeout_s=90)
    put(guest, "near")
    with virtsnap.connect(guest.uri) as near:
        near.domain(guest.name).save_snapshot("near")
    number, files = guest.domain.ID(), own_files(guest)
    code, said = far.refused("save", "--engine", "instant", guest.name, "far")
    assert (code, "cannot be saved by `instant`: the hypervisor is on another machine" in said) == (6, True), said
    assert (guest.domain.ID(), own_files(guest), names_in_libvirt(guest)) == (number, files, {"near"})
    put(guest, "far")  # RAM that is a file: it goes into the image with the rest
    far.virtsnap("save", guest.name, "far")
    (ram,) = guest.folder.glob("virtsnap-*/*.ram")
    before = digest(ram)
    put(guest, "wrong")
    far.virtsnap("load", guest.name, "near", "--keep-newer")
    assert tokens(guest) == ("near", "near")
    put(guest, "private")  # now the guest's RAM is the snapshot's, page by page its own
    far.virtsnap("save", guest.name, "private")
    listed = json.loads(far.virtsnap("--json", "list", guest.name))["snapshots"]
    assert {each["name"]: each["engine"] for each in listed} == {
        "near": "instant", "far": "libvirt", "private": "libvirt",
    }
    assert "near: whole" in far.virtsnap("check", guest.name)
    for name in ("far", "near", "private"):
        put(guest, "wrong")
        far.virtsnap("load", guest.name, name, "--keep-newer")
        assert tokens(guest) == (name, name)
    assert digest(ram) == before
    # A damaged one is refused with the guest running on.
    number = guest.domain.ID()
    ram.rename(ram.with_suffix(".kept"))
    code, said = far.refused("load", guest.name, "near")
    assert (code, "RAM file" in said, guest.domain.ID()) == (8, True, number), said
    ram.with_suffix(".kept").rename(ram)
    # What was saved from private pages needs the file that they were copies of no more.
    far.virtsnap("rm", guest.name, "near")
    assert not ram.exists()
    far.virtsnap("load", guest.name, "private")
    assert tokens(guest) == ("private", "private")
    put(guest, "near again")
    with virtsnap.connect(guest.uri) as near:
        assert near.domain(guest.name).save_snapshot("again").bytes["memory"] > 1_000_000
    assert list(guest.folder.glob("virtsnap-*/*.ram")) != []


def test_several_clients_at_once_share_the_pools(farm: GuestFarm, far: FarClient) -> None:
    guests = [farm.running_guest(memory_mib=128) for _ in range(3)]
    for guest in guests:
        guest.console.wait_disk(timeout_s=90)
        put(guest, guest.name)
    for verb in ("save", "load", "load", "save", "load"):
        processes = [far.start(verb, guest.name, "s") for guest in guests]
        for process in processes:
            said, _ = process.communicate(timeout=200)
            assert process.returncode == 0, said
    for guest in guests:
        assert tokens(guest) == (guest.name, guest.name)
    assert farm.connection.listAllStoragePools() == []
