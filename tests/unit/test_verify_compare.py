"""Two machines are the same or differ in named things; ids of the host say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from virtsnap.verify.compare import Difference, compare_hardware
from virtsnap.verify.fw_cfg import boot_order, read_files, smbios_structures
from virtsnap.verify.hardware import Device, Hardware
from virtsnap.verify.qtree import parse_qtree, placed

QTREE = """\
bus: main-system-bus
  type System
  dev: i440FX-pcihost, id ""
    short_root_bus = 0 (0x0)
    bus: pci.0
      type PCI
      dev: virtio-scsi-pci, id "scsi0"
        addr = 04.0
        class SCSI controller, addr 00:04.0, pci id 1af4:1004 (sub 1af4:0008)
        bar 0: i/o at 0xffffffffffffffff [0x3e]
        bus: virtio-bus
          type virtio-pci-bus
          dev: virtio-scsi-device, id ""
            bus: scsi0.0
              type SCSI
              dev: scsi-hd, id "d1"
                drive = "a"
                channel = 0 (0x0)
                scsi-id = 0 (0x0)
                lun = 1 (0x1)
      dev: piix3-ide, id ""
        addr = 01.1
        bus: ide.1
          type IDE
          dev: ide-cd, id ""
            drive = "b"
            unit = 0 (0x0)
        bus: ide.0
          type IDE
      dev: piix3-usb-uhci, id "usb"
        addr = 01.2
        bus: usb.0
          type usb-bus
          dev: usb-tablet, id ""
            serial = "42"
            addr 0.0, port 1, speed 12, name QEMU USB Tablet, attached
"""


def test_qtree_gives_every_device_its_place_without_ids() -> None:
    assert [(place, node.driver) for place, _, node in placed(parse_qtree(QTREE))] == [
        ("i440FX-pcihost", "i440FX-pcihost"),
        ("i440FX-pcihost/pci 01.2", "piix3-usb-uhci"),
        ("i440FX-pcihost/pci 01.2/port 1", "usb-tablet"),
        ("i440FX-pcihost/pci 01.1", "piix3-ide"),
        ("i440FX-pcihost/pci 01.1:1/unit 0", "ide-cd"),
        ("i440FX-pcihost/pci 04.0", "virtio-scsi-pci"),
        ("i440FX-pcihost/pci 04.0/virtio-scsi-device", "virtio-scsi-device"),
        ("i440FX-pcihost/pci 04.0/virtio-scsi-device/scsi 0:0:1", "scsi-hd"),
    ]


def test_qtree_values_lose_their_second_spelling_and_their_quotes() -> None:
    nodes = {node.driver: node for _, _, node in placed(parse_qtree(QTREE))}
    assert nodes["scsi-hd"].properties["lun"] == "1"
    assert nodes["usb-tablet"].properties["serial"] == "42"


def test_text_without_a_bus_is_no_qtree() -> None:
    with pytest.raises(ValueError, match="no qtree"):
        parse_qtree("unknown command: 'info qtree'\n")


def device(place: str, driver: str = "e1000", **properties: str) -> Device:
    return Device(place=place, bus="PCI", driver=driver, properties=properties)


BASE = Hardware(
    devices=(device("pci 02.0", mac="52:54:00:00:00:01"), device("pci 03.0", "virtio-blk-pci", serial="s")),
    facts={"cpu": {"avx": "True"}, "boot order": {"1": "/a"}, "PCI": {"02.0": "8086:100e"}},
)


def differences(other: Hardware) -> list[tuple[str, str, str | None, str | None]]:
    return [(d.subject, d.where, d.argv, d.domain) for d in compare_hardware(BASE, other).differences]


def test_same_machine_shows_no_difference() -> None:
    comparison = compare_hardware(BASE, BASE)
    assert comparison.same
    assert comparison.expected == ()


def test_other_property_is_exactly_one_difference() -> None:
    other = replace(BASE, devices=(device("pci 02.0", mac="52:54:00:00:00:02"), BASE.devices[1]))
    assert differences(other) == [
        ("device", "e1000 at pci 02.0: mac", "52:54:00:00:00:01", "52:54:00:00:00:02")
    ]


def test_moved_device_is_said_to_have_moved() -> None:
    other = replace(BASE, devices=(device("pci 05.0", mac="52:54:00:00:00:01"), BASE.devices[1]))
    assert differences(other) == [("device", "e1000: place", "at pci 02.0", "at pci 05.0")]


def test_missing_and_surplus_devices_are_told_apart() -> None:
    other = replace(BASE, devices=(BASE.devices[0], device("pci 09.0", "pvpanic-pci")))
    assert differences(other) == [
        ("device", "virtio-blk-pci", "at pci 03.0", None), ("device", "pvpanic-pci", None, "at pci 09.0")
    ]


def test_device_below_a_missing_one_is_not_told_twice() -> None:
    surplus = (device("pci 09.0", "ahci"), device("pci 09.0:1/unit 0", "ide-hd"))
    other = replace(BASE, devices=(*BASE.devices, *surplus))
    assert differences(other) == [("device", "ahci", None, "at pci 09.0")]


def test_other_cpu_feature_is_a_difference() -> None:
    other = replace(BASE, facts={**BASE.facts, "cpu": {"avx": "False", "sse": "True"}})
    assert differences(other) == [("cpu", "avx", "True", "False"), ("cpu", "sse", None, "True")]


def test_strict_boot_is_expected_and_another_order_is_not() -> None:
    strict = replace(BASE, facts={**BASE.facts, "boot order": {"1": "/a", "2": "HALT"}})
    comparison = compare_hardware(BASE, strict)
    assert comparison.same
    assert "strict=on" in (comparison.expected[0].reason or "")
    assert not compare_hardware(BASE, replace(BASE, facts={**BASE.facts, "boot order": {"1": "/b"}})).same


def smbios(uuid: str, serial: str) -> Hardware:
    area = "01020304" + uuid + "0600"
    return replace(BASE, facts={**BASE.facts, "SMBIOS": {"type 1 #1": f"{area} | {serial}"}})


def test_uuid_is_expected_to_differ_only_where_argv_has_none() -> None:
    none, one, two = "00" * 16, "11" * 16, "22" * 16
    assert compare_hardware(smbios(none, "s"), smbios(one, "s")).same
    assert not compare_hardware(smbios(two, "s"), smbios(one, "s")).same
    assert not compare_hardware(smbios(none, "s"), smbios(one, "other")).same


def test_expected_differences_carry_their_reason() -> None:
    (found,) = compare_hardware(smbios("00" * 16, "s"), smbios("11" * 16, "s")).expected
    assert isinstance(found, Difference)
    assert found.reason


class Ports:
    """fw_cfg behind two I/O ports, as the human monitor reaches them."""

    def __init__(self, entries: dict[int, bytes]) -> None:
        self.entries = entries
        self.key, self.at = 0, 0

    def ask(self, line: str) -> str:
        command, _, port, *value = line.split()
        if command == "o":
            assert port == "0x510"
            self.key, self.at = int(value[0], 16), 0
            return ""
        data = self.entries.get(self.key, b"")
        byte = data[self.at] if self.at < len(data) else 0
        self.at += 1
        return f"portb[0x0511] = {byte:#04x}\r\n"


def test_firmware_files_are_read_through_the_ports() -> None:
    order = b"/pci@i0cf8/scsi@4/disk@0,0\nHALT\0"
    entry = len(order).to_bytes(4, "big") + (0x20).to_bytes(2, "big") + bytes(2) + b"bootorder".ljust(56, b"\0")
    big = (1 << 20).to_bytes(4, "big") + (0x21).to_bytes(2, "big") + bytes(2) + b"etc/acpi/tables".ljust(56, b"\0")
    ports = Ports({0: b"QEMU", 0x19: (2).to_bytes(4, "big") + entry + big, 0x20: order})
    files = read_files(ports.ask)
    assert [file.name for file in files] == ["bootorder", "etc/acpi/tables"]
    assert files[1].size_bytes == 1 << 20
    assert files[1].content is None
    assert boot_order(files) == ["/pci@i0cf8/scsi@4/disk@0,0", "HALT"]


def test_machine_without_the_ports_has_no_firmware_files() -> None:
    assert read_files(Ports({0: b"\xff\xff\xff\xff"}).ask) == ()


def test_smbios_is_split_into_structures() -> None:
    table = bytes([1, 6, 0, 1, 0xAA, 0xBB]) + b"Maker\0Product\0\0" + bytes([127, 4, 1, 1]) + b"\0\0"
    assert smbios_structures(table) == [(1, b"\xaa\xbb", ["Maker", "Product"]), (127, b"", [])]
