"""Every kind of disk, and what a domain has beside: it comes back as it was, or is refused with the reason."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import virtsnap
import virtsnap.host
from tests.guest.build import GuestFiles
from tests.host.accelerator import DomainType
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.test_refusals import command, still_runs
from tests.host.test_save_and_load import digest, disk_files, put, tokens


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A disk of the guest; it is known inside by its size."""

    target: str
    bus: str
    format: str
    mib: int
    layers: int = 1


KINDS = (
    Kind(target="vdb", bus="virtio", format="raw", mib=11),
    Kind(target="vdc", bus="virtio", format="qcow2", mib=12, layers=3),
    Kind(target="sda", bus="scsi", format="qcow2", mib=13),
    Kind(target="sdb", bus="scsi", format="raw", mib=14),
    Kind(target="sdc", bus="sata", format="qcow2", mib=15),
    Kind(target="hda", bus="ide", format="qcow2", mib=16),
    Kind(target="sdd", bus="usb", format="raw", mib=17),
)


@pytest.fixture
def full_farm(
    host: PrivateLibvirtd, all_drivers_guest_files: GuestFiles, accelerator: DomainType
) -> Iterator[GuestFarm]:
    """Makes domains whose kernel drives every bus."""
    with GuestFarm(host, all_drivers_guest_files, accelerator) as farm:
        yield farm


def make_disk(folder: Path, kind: Kind) -> Path:
    """Make an image of a kind; with layers, a chain."""
    disk = folder / f"{kind.target}.{kind.format}"
    below = [folder / f"{kind.target}-{number}.qcow2" for number in range(kind.layers - 1)]
    for backing, path in itertools.pairwise([None, *below, disk]):
        over = () if backing is None else ("-b", str(backing), "-F", "qcow2")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", kind.format, *over, str(path), f"{kind.mib}M"], check=True
        )
    return disk


def disk_element(kind: Kind, path: Path) -> str:
    return f"""<disk type='file' device='disk'><driver name='qemu' type='{kind.format}'/><source file='{path}'/>
      <target dev='{kind.target}' bus='{kind.bus}'/></disk>"""


def with_device(kind: Kind, command: str) -> str:
    """Give shell words that run `command` with $dev as the disk of that size."""
    return (
        f"for size in /sys/class/block/*/size; do [ $(cat $size) = {kind.mib * 2048} ] && found=${{size%/size}}; "
        f"done; dev=/dev/${{found##*/}}; {command}"
    )


def put_on_all(guest: RunningGuest, token: str) -> None:
    put(guest, token)
    for kind in KINDS:
        guest.console.check(with_device(kind, f"echo {token} | dd of=$dev conv=fsync 2>/dev/null"))


def read_all(guest: RunningGuest) -> set[str]:
    found = set(tokens(guest))
    for kind in KINDS:
        found.add(guest.console.check(with_device(kind, "head -n 1 $dev")))
    return found


def test_eight_disks_on_every_bus_come_back_and_what_cannot_be_written_stays_out(full_farm: GuestFarm) -> None:
    media = full_farm.new_folder(full_farm.new_name("media"))
    shared = media / "shared.raw"
    shared.write_bytes(b"shared\n" + b"\0" * 1_048_569)
    iso = media / "full.iso"
    iso.write_bytes(b"\0" * 1_048_576)
    paths = {kind: make_disk(media, kind) for kind in KINDS}
    guest = full_farm.running_guest(extra_devices=f"""
        <controller type='scsi' model='virtio-scsi'/><controller type='usb' model='qemu-xhci'/>
        {"".join(disk_element(kind, path) for kind, path in paths.items())}
        <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{shared}'/>
          <target dev='vdd' bus='virtio'/><readonly/><shareable/></disk>
        <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{iso}'/>
          <target dev='sde' bus='sata'/><readonly/></disk>
        <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
        <interface type='user'><model type='virtio'/></interface>
        <interface type='user'><model type='e1000'/></interface>
        <console type='pty'><target type='virtio'/></console>
        <channel type='unix'><target type='virtio' name='org.example.test'/></channel>""")
    # A USB disk comes a second after the others: too late for the boot's coldplug.
    guest.console.check(f"until grep -qx {17 * 2048} /sys/class/block/*/size; do coldplug; sleep 1; done")
    guest.console.wait_disk()
    with virtsnap.connect(full_farm.uri) as host:
        domain = host.domain(guest.name)
        assert domain.check().obstacles == ()
        put_on_all(guest, "one")
        domain.save_snapshot("s")
        files = [guest.disks[0], *paths.values(), shared, iso]
        digests = [digest(path) for path in files]
        for wrong in ("two", "three"):
            put_on_all(guest, wrong)
            domain.load_snapshot("s")
            assert read_all(guest) == {"one"}
        assert guest.console.check("ls /sys/class/net | grep -c eth") == "2"
        assert [digest(path) for path in files] == digests
        assert len(set(disk_files(guest, live=False))) == len(KINDS) + 2
        # Shut off as well: all disks of one pause, which a boot then has.
        put_on_all(guest, "off")
        guest.domain.destroy()
        domain.save_snapshot("off")
        domain.load_snapshot("s")
        assert read_all(guest) == {"one"}


@pytest.fixture
def loop_device(farm: GuestFarm) -> Iterator[Path]:
    """A block device of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can set up a loop device: run this test as root")
    image = farm.new_folder(farm.new_name("loop")) / "image"
    with image.open("wb") as stream:
        stream.truncate(64 * 2**20)
    made = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = Path(made.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", str(device)], check=True)


def test_a_block_device_is_frozen_under_an_overlay_in_a_file(
    farm: GuestFarm, loop_device: Path, host_uri: str
) -> None:
    guest = farm.running_guest(extra_devices=f"""
        <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='{loop_device}'/>
          <target dev='vdb' bus='virtio'/></disk>""")
    guest.console.wait_disk()

    def second(text: str) -> None:
        guest.console.check(f"echo {text} | dd of=/dev/vdb conv=fsync 2>/dev/null")

    def read_second() -> str:
        return guest.console.check("echo 3 > /proc/sys/vm/drop_caches; head -n 1 /dev/vdb")

    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        put(guest, "one")
        second("one")
        domain.save_snapshot("s", with_digests=True)
        before = digest(loop_device)
        for _ in range(2):
            put(guest, "two")
            second("two")
            domain.load_snapshot("s", verify=True)
            assert (tokens(guest), read_second()) == (("one", "one"), "one")
        assert digest(loop_device) == before
        assert domain.check().is_good
        # What libvirt's own revert cannot do is said before anything is touched.
        number = guest.domain.ID()
        assert command(host_uri, "load", guest.name, "s", "--engine", "native")[0] == 6
        assert still_runs(guest, number)
        put(guest, "three")
        second("three")
        domain.save_snapshot("t")
        domain.flatten()
        assert (tokens(guest), read_second()) == (("three", "three"), "three")
        domain.load_snapshot("s")
        assert (tokens(guest), read_second()) == (("one", "one"), "one")
        domain.remove_snapshot("s")
        assert digest(loop_device) == before


def domain_without_a_guest(farm: GuestFarm, devices: str, words: str = "") -> str:
    """Start a domain that boots nothing; give its name."""
    name = farm.new_name("kind")
    disk = farm.new_disk(farm.new_folder(name), "disk0")
    farm.make_domain(f"""
      <domain type='{farm.domain_type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
        <name>{name}</name><memory unit='MiB'>64</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
          <target dev='vda' bus='virtio'/></disk>{devices}</devices>{words}
      </domain>""")
    return name


def refused(farm: GuestFarm, name: str, why: str) -> None:
    """See a save refused (6) and `check` name the reason, nothing having been touched."""
    domain = farm.connection.lookupByName(name)
    before = domain.ID(), domain.XMLDesc(0)
    code, _, err = command(farm.uri, "save", name, "s")
    assert (code, why in err) == (6, True), err
    code, out, _ = command(farm.uri, "check", name)
    assert (code, why in out) == (1, True), out
    assert (domain.ID(), domain.XMLDesc(0)) == before
    assert not list((farm.host.work / name).glob("virtsnap-*"))


def test_a_network_disk_is_refused(farm: GuestFarm) -> None:
    folder = farm.new_folder(farm.new_name("nbd"))
    disk = farm.new_disk(folder, "served", size="16M")
    socket = folder / "socket"
    with subprocess.Popen(
        ["qemu-nbd", "--socket", str(socket), "--format", "qcow2", "--persistent", "--shared", "4", str(disk)]
    ) as server:
        try:
            while not socket.exists():
                assert server.poll() is None
            name = domain_without_a_guest(farm, f"""
                <disk type='network' device='disk'><driver name='qemu' type='raw'/>
                  <source protocol='nbd' name=''><host transport='unix' socket='{socket}'/></source>
                  <target dev='vdb' bus='virtio'/></disk>""")
            refused(farm, name, "disk vdb is of type network")
            farm.connection.lookupByName(name).destroy()
        finally:
            server.terminate()


def test_nvme_is_refused_before_qemu_11(farm: GuestFarm) -> None:
    words = "".join(f"<qemu:arg value='{word}'/>" for word in (
        "-blockdev", "driver=null-co,node-name=n0,size=1048576", "-device", "nvme,serial=x,drive=n0,addr=0x1e",
    ))
    name = domain_without_a_guest(farm, "", f"<qemu:commandline>{words}</qemu:commandline>")
    with virtsnap.host.connect(farm.uri) as host:
        version = host.qemu_version
    if version >= (11, 0):
        assert command(farm.uri, "save", name, "s")[0] == 0
    else:
        refused(farm, name, "an NVMe controller (-device nvme,serial=x,drive=n0,addr=0x1e)")
