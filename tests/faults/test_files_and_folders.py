"""Disks that are full, folders that cannot be written to, names that are taken, devices that cannot be saved."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from pytest_mock import MockerFixture

import virtsnap
from tests.faults.guest_with_two import GuestWithTwo
from tests.guest.build import GuestFiles
from tests.host.accelerator import DomainType
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.test_save_and_load import put, tokens
from virtsnap.errors import HypervisorError, UnsupportedError

MIB = 1 << 20


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 300 MiB, mounted before the daemon that shall see it starts."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount: run this test as root")
    with tempfile.TemporaryDirectory(prefix="virtsnap-small-") as folder:
        place = Path(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m,mode=777", "tmpfs", place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


@pytest.fixture
def beside(small_disk: Path, guest_files: GuestFiles, accelerator: DomainType) -> Iterator[GuestWithTwo]:
    """A guest on a daemon of its own, which sees the small file system."""
    del small_disk
    with PrivateLibvirtd() as host, GuestFarm(host, guest_files, accelerator) as farm:
        guest = farm.running_guest()
        guest.console.wait_disk()
        with virtsnap.connect(farm.uri) as opened:
            two = GuestWithTwo(guest=guest, domain=opened.domain(guest.name))
            two.reset()
            yield two


def fill(place: Path, *, leave_bytes: int) -> Path:
    """Leave so much room in a file system."""
    filler = place / "filler"
    free = os.statvfs(place)
    with filler.open("wb") as stream:
        stream.write(b"\0" * max(0, free.f_bavail * free.f_frsize - leave_bytes))
    return filler


def test_a_full_disk_while_memory_or_an_overlay_is_written(beside: GuestWithTwo, small_disk: Path) -> None:
    name, number = beside.guest.name, beside.guest.domain.ID()
    filler = fill(small_disk, leave_bytes=8 * MIB)
    code, said = beside.command("save", name, "t", "--dir", str(small_disk))
    assert code == 8, said
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    assert beside.disagreements() == []
    assert (beside.guest.domain.ID(), tokens(beside.guest)) == (number, ("now", "now"))
    filler.unlink()
    beside.domain.save_snapshot("t", directory=str(small_disk))
    put(beside.guest, "later")
    filler = fill(small_disk, leave_bytes=0)
    code, said = beside.command("load", name, "t")
    filler.unlink()
    assert (code, "cannot make the overlay" in said) == (8, True), said
    assert (beside.guest.domain.ID(), tokens(beside.guest)) == (number, ("later", "later"))
    beside.domain.load_snapshot("t")
    assert tokens(beside.guest) == ("now", "now")


def test_a_folder_that_cannot_be_written_to(beside: GuestWithTwo, small_disk: Path) -> None:
    beside.domain.save_snapshot("t", directory=str(small_disk))
    number = beside.guest.domain.ID()
    beside.domain.load_snapshot("b", keep_newer=True)
    number = beside.guest.domain.ID()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        code, said = beside.command("save", beside.guest.name, "u", "--dir", str(small_disk))
        assert code == 8, said
        code, said = beside.command("load", beside.guest.name, "t")
        assert (code, "cannot be written to" in said) == (8, True), said
        assert beside.guest.domain.ID() == number
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    beside.domain.load_snapshot("t")
    assert tokens(beside.guest) == ("now", "now")


@pytest.mark.parametrize("suffix", [".mem", "-vda.qcow2"])
def test_a_file_that_exists_is_neither_overwritten_nor_removed(
    two: GuestWithTwo, mocker: MockerFixture, suffix: str
) -> None:
    mocker.patch("virtsnap.snapshots.api.new_token", return_value="0badcafe")
    folder = next(two.guest.folder.glob("virtsnap-*"))
    there = folder / f"0badcafe{suffix}"
    there.write_text("mine")
    with pytest.raises(HypervisorError, match="exists already"):
        two.domain.save_snapshot("c")
    if suffix != ".mem":
        number = two.guest.domain.ID()
        with pytest.raises(HypervisorError, match="exists already"):
            two.domain.load_snapshot("b")
        assert two.guest.domain.ID() == number
    assert there.read_text() == "mine"
    there.unlink()
    assert tokens(two.guest) == ("now", "now")
    assert two.names() == {"a", "b"}


def test_a_disk_in_a_block_job_is_refused(two: GuestWithTwo) -> None:
    domain, copy = two.guest.domain, two.guest.folder / "copy.qcow2"
    flags = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    domain.blockCopy("vda", f"<disk type='file'><driver type='qcow2'/><source file='{copy}'/></disk>", {}, flags)
    try:
        code, said = two.command("save", two.guest.name, "c")
        assert (code, "active block job" in said) == (6, True), said
        code, said = two.command("check", two.guest.name)
        assert (code, "active block job" in said) == (1, True), said
    finally:
        domain.blockJobAbort("vda", 0)
        copy.unlink()
    assert tokens(two.guest) == ("now", "now")
    two.domain.save_snapshot("c")


def test_a_device_that_cannot_migrate_is_named_and_the_guest_runs_on(module_farm: GuestFarm) -> None:
    name = module_farm.new_name("mtp")
    folder = module_farm.new_folder(name)
    disk = module_farm.new_disk(folder, "disk0")
    device = json.dumps({"driver": "usb-mtp", "rootdir": str(folder)})
    # JSON: QEMU makes devices of the older syntax first, before there is a USB bus.
    domain = module_farm.make_domain(f"""
      <domain type='{module_farm.domain_type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
        <name>{name}</name><memory unit='MiB'>64</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><controller type='usb' model='qemu-xhci'/>
          <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
          <target dev='vda' bus='virtio'/></disk></devices>
        <qemu:commandline><qemu:arg value='-device'/>
          <qemu:arg value='{device}'/></qemu:commandline>
      </domain>""")
    with virtsnap.connect(module_farm.uri) as host:
        vm = host.domain(name)
        number = domain.ID()
        with pytest.raises((HypervisorError, UnsupportedError), match="mtp"):
            vm.save_snapshot("s")
        assert any("mtp" in obstacle for obstacle in vm.check().obstacles)
    assert domain.ID() == number
    assert not list(folder.glob("virtsnap-*"))
