"""verify says `same` for what the converter makes, and names exactly what was changed where something was."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest
from click.testing import CliRunner
from lxml import etree

from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.cli.main import cli
from virtsnap.convert import convert_command_line
from virtsnap.errors import HypervisorError
from virtsnap.host.stand_in_files import make_image, stand_in_folder
from virtsnap.host.stopped_machine import stopped_domain, stopped_process
from virtsnap.host.versions import connected_version
from virtsnap.verify.compare import Comparison, compare_hardware
from virtsnap.verify.hardware import read_hardware
from virtsnap.verify.verify import NotStartedError, check_round_trip, verify_command_line

EMULATOR = "/usr/bin/qemu-system-x86_64"
PC = """
-machine pc -nodefaults -display none -m 256 -smp 2,sockets=1,cores=2,threads=1 -cpu qemu64,+avx
-uuid 11111111-2222-4333-8444-555555555555
-device piix3-usb-uhci,id=usb,bus=pci.0,addr=0x1.0x2 -device usb-tablet,id=tablet,bus=usb.0,port=1
-drive file={disk},format=raw,if=none,id=d0
-device virtio-blk-pci,drive=d0,id=v0,bus=pci.0,addr=0x5,serial=first,bootindex=1
-netdev user,id=n0 -device e1000,netdev=n0,id=nic0,mac=52:54:00:00:00:01,bus=pci.0,addr=0x3
-device VGA,id=vga,bus=pci.0,addr=0x2
"""
Q35 = """
-machine q35 -nodefaults -display none -m 512 -smp 1 -cpu qemu64
-uuid 11111111-2222-4333-8444-555555555556
-device pcie-root-port,id=rp1,bus=pcie.0,addr=0x2,chassis=1,port=16
-device pcie-root-port,id=rp2,bus=pcie.0,addr=0x3,chassis=2,port=17
-drive file={disk},format=raw,if=none,id=d0 -device ide-hd,drive=d0,bus=ide.0,serial=sata,bootindex=1
-netdev user,id=n0 -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02,bus=rp1,addr=0x0
-device qemu-xhci,id=xhci,bus=rp2,addr=0x0 -device usb-tablet,bus=xhci.0,port=1
"""


@pytest.fixture
def disk() -> Iterator[Path]:
    with stand_in_folder() as folder:
        make_image(folder / "disk.img", format_="raw", size_bytes=64 << 20)
        yield folder / "disk.img"


def argv_of(text: str, disk: Path) -> list[str]:
    return [EMULATOR, *shlex.split(text.format(disk=disk))]


def told(comparison: Comparison) -> list[str]:
    return [f"{d.subject}, {d.where}: {d.argv} | {d.domain}" for d in comparison.differences]


@pytest.mark.parametrize("text", [PC, Q35], ids=["pc", "q35"])
def test_converted_domain_is_the_same_machine(text: str, disk: Path, host_uri: str) -> None:
    verdict = verify_command_line(
        argv_of(text, disk), uri=host_uri, base=Path("/"), for_libvirt=connected_version(host_uri)
    )
    assert told(verdict.comparison) == []


def compare_changed(
    host_uri: str, disk: Path, change: Callable[[etree._Element], None], text: str = PC
) -> list[str]:
    """Compare argv with its domain after a change to the domain."""
    argv = argv_of(text, disk)
    xml = convert_command_line(argv, name="virtsnap-verify-test", for_libvirt=connected_version(host_uri)).xml
    root = etree.fromstring(xml)
    change(root)
    with stopped_process(argv, folder=Path("/")) as machine:
        ours = read_hardware(machine)
    with stopped_domain(host_uri, etree.tostring(root, encoding="unicode")) as domain:
        theirs = read_hardware(domain)
    return told(compare_hardware(ours, theirs))


def find(root: etree._Element, path: str) -> etree._Element:
    found = root.find(path)
    assert found is not None, path
    return found


def test_other_mac_is_exactly_that_difference(host_uri: str, disk: Path) -> None:
    def change(root: etree._Element) -> None:
        find(root, "devices/interface/mac").set("address", "52:54:00:00:00:99")

    assert compare_changed(host_uri, disk, change) == [
        "device, e1000 at i440FX-pcihost/pci 03.0: mac: 52:54:00:00:00:01 | 52:54:00:00:00:99"
    ]


def test_other_slot_is_said_to_be_another_place(host_uri: str, disk: Path) -> None:
    def change(root: etree._Element) -> None:
        find(root, "devices/interface/address").set("slot", "0x9")

    found = compare_changed(host_uri, disk, change)
    assert "device, e1000: place: at i440FX-pcihost/pci 03.0 | at i440FX-pcihost/pci 09.0" in found
    # The same is seen from the PCI side, and nothing else.
    assert {line.split(",")[0] for line in found} == {"device", "PCI"}
    assert len(found) == 3


def test_missing_device_is_named(host_uri: str, disk: Path) -> None:
    def change(root: etree._Element) -> None:
        tablet = next(e for e in root.findall("devices/input") if e.get("type") == "tablet")
        find(root, "devices").remove(tablet)

    assert compare_changed(host_uri, disk, change) == [
        "device, usb-tablet: at i440FX-pcihost/pci 01.2/port 1 | None"
    ]


def test_other_serial_and_other_cpu_feature_are_named(host_uri: str, disk: Path) -> None:
    def change(root: etree._Element) -> None:
        find(root, "devices/disk/serial").text = "second"
        feature = next(e for e in root.findall("cpu/feature") if e.get("name") == "avx")
        feature.set("policy", "disable")

    found = compare_changed(host_uri, disk, change)
    assert any("serial: first | second" in line for line in found)
    assert "cpu, avx: True | False" in found


def test_verb_prints_a_table_and_leaves_nothing_behind(host: PrivateLibvirtd, disk: Path) -> None:
    with libvirt.open(host.uri) as connection:
        before = {domain.name() for domain in connection.listAllDomains()}
        words = ["-c", host.uri, "--json", "verify", "--", *argv_of(PC, disk)]
        done = CliRunner().invoke(cli, words, standalone_mode=False)
        assert {domain.name() for domain in connection.listAllDomains()} == before
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["differences"], done.return_value) == (True, [], 0)
    assert any(entry["reason"] for entry in answer["stand_ins"])


def test_command_line_that_qemu_refuses_is_told_in_its_own_words(host_uri: str) -> None:
    argv = [EMULATOR, "-display", "none", "-device", "no-such-device"]
    with pytest.raises(NotStartedError, match="'no-such-device' is not a valid device model name"):
        verify_command_line(argv, uri=host_uri, base=Path("/"), for_libvirt=None)


def test_stopped_process_is_gone_after_an_error() -> None:
    with pytest.raises(RuntimeError), stopped_process([EMULATOR, "-display", "none"], folder=Path("/")) as machine:
        pid = machine.execute("query-cpus-fast")[0]["thread-id"]
        raise RuntimeError
    assert not Path(f"/proc/{pid}").exists()


def test_process_ends_with_a_verify_that_is_killed() -> None:
    script = (
        "import sys, time, pathlib\n"
        "from virtsnap.host.stopped_machine import stopped_process\n"
        f"with stopped_process(['{EMULATOR}', '-display', 'none'], folder=pathlib.Path('/')) as machine:\n"
        "    print(machine.execute('query-cpus-fast')[0]['thread-id'], flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as verify:
        assert verify.stdout is not None
        task = Path(f"/proc/{verify.stdout.readline().strip()}")
        assert task.exists()
        verify.kill()
    deadline = time.monotonic() + 10
    while task.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_refused_domain_is_an_error_with_libvirts_words(host_uri: str) -> None:
    with pytest.raises(HypervisorError), stopped_domain(host_uri, "<domain type='qemu'><name>x</name></domain>"):
        pass


def test_round_trip_changes_only_what_is_explained(host_uri: str, disk: Path) -> None:
    changes = check_round_trip(
        argv_of(PC, disk), uri=host_uri, base=Path("/"), for_libvirt=connected_version(host_uri)
    )
    assert [change for change in changes if change.reason is None] == []
