"""The main promise: what a guest was at a save, in RAM and on disk, comes back at a load."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

import virtsnap
from tests.host.engines import TakingTurns, require_native_engine
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.engines import EngineName
from virtsnap.snapshots.origin import ORIGIN_NS


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a test's loads are done: with which engines in turn (None: of virtsnap's choice), for which RAM."""

    engines: tuple[EngineName | None, ...]
    ram_folder: str | None = None
    needs_native: bool = False


WAYS = {
    "restore": Way(engines=("restore",)),
    "native": Way(engines=("native",), needs_native=True),
    "alternating": Way(engines=("native", "restore"), needs_native=True),
    "instant": Way(engines=(None,), ram_folder=DEFAULT_FOLDER),
    "instant, native": Way(engines=(None, "native"), ram_folder=DEFAULT_FOLDER, needs_native=True),
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, host: PrivateLibvirtd) -> Way:
    """All ways have to keep the same promises."""
    way = WAYS[request.param]
    if way.needs_native:
        require_native_engine(host.uri)
    return way


@pytest.fixture
def vm(farm: GuestFarm, way: Way) -> Iterator[tuple[RunningGuest, SnapshotDomain]]:
    """A running guest with one disk, and virtsnap's hold on it."""
    guest = farm.running_guest(ram_folder=way.ram_folder)
    guest.console.wait_disk()
    with virtsnap.connect(farm.uri) as host:
        yield guest, TakingTurns(host.domain(guest.name), way.engines)


def put(guest: RunningGuest, token: str) -> None:
    """Write a token to RAM and to the disk."""
    guest.console.check(f"echo {token} > /run/token; echo {token} > /mnt/token; sync")


def tokens(guest: RunningGuest) -> tuple[str, str]:
    """Read the tokens in RAM and on disk, the disk's without the page cache."""
    ram, disk = guest.console.check(
        "echo 3 > /proc/sys/vm/drop_caches; cat /run/token /mnt/token"
    ).splitlines()
    return ram, disk


def disk_files(guest: RunningGuest, *, live: bool) -> list[str]:
    """Name the files of the domain's disks in the live or the persistent definition."""
    root = etree.fromstring(guest.domain.XMLDesc(0 if live else 2).encode())
    found = root.xpath("devices/disk[@device='disk']/source/@file")
    assert isinstance(found, list)
    return [str(path) for path in found]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def own_files(guest: RunningGuest) -> set[str]:
    """Name the files that virtsnap holds for a guest."""
    return {path.name for path in guest.folder.glob("virtsnap-*/*")}


def names_in_libvirt(guest: RunningGuest) -> set[str]:
    return {snapshot.getName() for snapshot in guest.domain.listAllSnapshots()}


Vm = tuple[RunningGuest, SnapshotDomain]


def test_a_wrecked_guest_comes_back_five_times_and_can_be_saved_again(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    saved = domain.save_snapshot("lastgood")
    assert saved.state == "running"
    assert saved.bytes["memory"] > 1_000_000
    assert names_in_libvirt(guest) == {"lastgood"}
    before = digest(guest.disks[0])
    for number in range(5):
        put(guest, f"wrong{number}")
        if number == 1:
            guest.console.send("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
        loaded = domain.load_snapshot("lastgood")
        assert loaded.state == "running"
        assert tokens(guest) == ("one", "one")
        assert disk_files(guest, live=True) == disk_files(guest, live=False)
        assert digest(guest.disks[0]) == before
    put(guest, "two")
    domain.save_snapshot("later")
    put(guest, "three")
    domain.load_snapshot("later")
    assert tokens(guest) == ("two", "two")
    domain.load_snapshot("lastgood")
    assert tokens(guest) == ("one", "one")
    assert digest(guest.disks[0]) == before


def test_after_a_load_power_off_and_start_boot_the_loaded_line(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("s")
    put(guest, "two")
    domain.load_snapshot("s")
    guest.console.check("echo line > /mnt/line; sync")
    guest.domain.destroy()
    guest.domain.create()
    guest.console.wait_ready()
    guest.console.wait_disk()
    assert guest.console.check("cat /mnt/token /mnt/line") == "one\nline"


def test_a_load_is_linear_and_forgets_what_came_later_with_its_files(vm: Vm) -> None:
    guest, domain = vm
    for name in ("a", "b", "c"):
        put(guest, name)
        domain.save_snapshot(name)
    domain.load_snapshot("a")
    assert names_in_libvirt(guest) == {"a"}
    assert tokens(guest) == ("a", "a")
    # a's memory (with its RAM) and the new overlay, which libvirt's own revert puts elsewhere
    suffixes = [Path(name).suffix for name in own_files(guest)]
    assert set(suffixes) <= {".mem", ".ram", ".qcow2"}
    assert len(suffixes) == len(set(suffixes))
    assert [(each.name, each.is_current) for each in domain.snapshots()] == [("a", True)]
    put(guest, "d")
    domain.save_snapshot("d")
    assert [(each.name, each.parent) for each in domain.snapshots()] == [("a", None), ("d", "a")]


def test_keep_newer_keeps_what_came_later_loadable(vm: Vm) -> None:
    guest, domain = vm
    for name in ("a", "b"):
        put(guest, name)
        domain.save_snapshot(name)
    domain.load_snapshot("a", keep_newer=True)
    assert tokens(guest) == ("a", "a")
    put(guest, "other")
    domain.save_snapshot("other")
    for name in ("b", "other", "a", "b"):
        domain.load_snapshot(name, keep_newer=True)
        assert tokens(guest) == (name, name)
    assert names_in_libvirt(guest) == {"a", "b", "other"}


def test_a_save_of_a_name_that_is_there_replaces_it(vm: Vm) -> None:
    guest, domain = vm
    for token in ("old", "newer", "newest"):
        put(guest, token)
        domain.save_snapshot("category/module#2")
    assert names_in_libvirt(guest) == {"category%2Fmodule#2"}
    assert [each.name for each in domain.snapshots()] == ["category/module#2"]
    put(guest, "wrong")
    domain.load_snapshot("category/module#2")
    assert tokens(guest) == ("newest", "newest")
    assert sum(name.endswith(".mem") for name in own_files(guest)) == 1


def test_a_replaced_name_leaves_its_children_loadable(vm: Vm) -> None:
    guest, domain = vm
    for token, name in (("1", "a"), ("2", "b"), ("3", "a")):
        put(guest, token)
        domain.save_snapshot(name)
    assert [(each.name, each.parent) for each in domain.snapshots()] == [("b", None), ("a", "b")]
    domain.load_snapshot("b", keep_newer=True)
    assert tokens(guest) == ("2", "2")
    domain.load_snapshot("a")
    assert tokens(guest) == ("3", "3")


def test_rm_of_a_leaf_and_of_an_inner_one_leaves_the_others_loadable(vm: Vm) -> None:
    guest, domain = vm
    for name in ("a", "b", "c", "d"):
        put(guest, name)
        domain.save_snapshot(name)
    domain.remove_snapshot("d")
    domain.remove_snapshot("b")
    assert names_in_libvirt(guest) == {"a", "c"}
    assert sum(name.endswith(".mem") for name in own_files(guest)) == 2
    guest.console.check("true")
    for name in ("c", "a"):
        domain.load_snapshot(name, keep_newer=True)
        assert tokens(guest) == (name, name)
    domain.remove_snapshot("a")
    domain.load_snapshot("c")
    assert tokens(guest) == ("c", "c")
    domain.remove_snapshot("c")
    put(guest, "on")
    assert tokens(guest) == ("on", "on")


def test_a_paused_guest_is_saved_and_runs_after_a_load_unless_told_otherwise(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    guest.domain.suspend()
    assert domain.save_snapshot("p").state == "paused"
    assert domain.load_snapshot("p").state == "running"
    assert tokens(guest) == ("one", "one")
    assert domain.load_snapshot("p", final="as-saved").state == "paused"
    assert domain.load_snapshot("p", final="paused").state == "paused"
    guest.domain.resume()
    assert tokens(guest) == ("one", "one")


def test_an_offline_snapshot_is_loaded_by_a_start(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    guest.domain.destroy()
    saved = domain.save_snapshot("off")
    assert saved.state == "shutoff"
    before = digest(guest.disks[0])
    guest.domain.create()
    guest.console.wait_disk()
    guest.console.check("echo two > /mnt/token; sync")
    assert domain.load_snapshot("off").state == "running"
    guest.console.wait_disk()
    assert guest.console.check("cat /mnt/token") == "one"
    assert digest(guest.disks[0]) == before
    assert domain.load_snapshot("off", final="as-saved").state == "shutoff"
    assert {oct(path.stat().st_mode & 0o777) for path in guest.folder.glob("virtsnap-*/*")} <= {"0o600"}


def test_two_disks_and_a_cdrom(farm: GuestFarm) -> None:
    iso = farm.new_folder(farm.new_name("media")) / "empty.iso"
    iso.write_bytes(b"\0" * 1_048_576)
    guest = farm.running_guest(extra_disk_sizes=["64M"], extra_devices=f"""
        <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{iso}'/>
          <target dev='hda' bus='ide'/><readonly/></disk>
        <disk type='file' device='cdrom'><target dev='hdb' bus='ide'/><readonly/></disk>""")
    guest.console.wait_disk()

    def second(text: str) -> None:
        guest.console.check(f"echo {text} | dd of=/dev/vdb conv=fsync 2>/dev/null")

    def read_second() -> str:
        return guest.console.check("echo 3 > /proc/sys/vm/drop_caches; head -c 3 /dev/vdb")

    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        put(guest, "one")
        second("one")
        domain.save_snapshot("s")
        digests = [digest(disk) for disk in guest.disks]
        for _ in range(2):
            put(guest, "two")
            second("two")
            domain.load_snapshot("s")
            assert tokens(guest) == ("one", "one")
            assert read_second() == "one"
        assert [digest(disk) for disk in guest.disks] == digests


def test_a_transient_domain_is_saved_and_loaded_and_stays_transient(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    guest.console.wait_disk()
    guest.domain.undefine()
    put(guest, "one")
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        domain.save_snapshot("s")
        assert not guest.domain.isPersistent()
        put(guest, "two")
        domain.load_snapshot("s")
        assert tokens(guest) == ("one", "one")
        assert not guest.domain.isPersistent()
        assert "urn:virtsnap" not in guest.domain.XMLDesc(0)


def test_the_default_user_and_ownership_of_qemu_conf(default_user_farm: GuestFarm) -> None:
    guest = default_user_farm.running_guest()
    guest.console.wait_disk()
    with virtsnap.connect(default_user_farm.uri) as host:
        domain = host.domain(guest.name)
        put(guest, "one")
        domain.save_snapshot("s")
        for _ in range(2):
            put(guest, "two")
            domain.load_snapshot("s")
            assert tokens(guest) == ("one", "one")
        put(guest, "three")
        domain.save_snapshot("s")
        domain.load_snapshot("s")
        assert tokens(guest) == ("three", "three")
        guest.domain.destroy()
        guest.domain.create()
        guest.console.wait_disk()
        assert guest.console.check("cat /mnt/token") == "three"
        modes = {oct(path.stat().st_mode & 0o777) for path in guest.folder.glob("virtsnap-*/*")}
        assert modes == {"0o600"}


def test_nothing_of_an_operation_is_left_in_the_definitions(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("s")
    domain.load_snapshot("s")
    assert "urn:virtsnap" not in guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    (facts,) = (each.facts for each in domain.snapshots())
    assert facts is not None
    live = guest.domain.XMLDesc(0)
    # What the next save of a guest has to know that was loaded from a file of RAM
    assert (ORIGIN_NS in live) is (facts.engine == "instant")
    assert "urn:virtsnap" not in live.replace(ORIGIN_NS, "")
    assert all("urn:virtsnap:lock" not in each.xml for each in domain.snapshots())


def phases(outcome: Any) -> set[str]:
    return set(outcome.phases_s)


def test_phases_are_told(vm: Vm) -> None:
    _, domain = vm
    assert {"check", "prepare", "save", "record"} <= phases(domain.save_snapshot("s"))
    assert {"check", "stop", "restore", "resume"} <= phases(domain.load_snapshot("s"))
