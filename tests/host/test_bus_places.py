"""Devices without an address get from the converter the slots and ports that QEMU itself gives them.

QEMU is started from the command line and from what libvirt makes of the
converted domain; every device must be in the same place on the same bus.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from virtsnap.host.versions import connected_version
from virtsnap.verify.verify import verify_command_line

QEMU = "qemu-system-x86_64 -nodefaults -display none -vga none"
LINES = {
    "pc": """
        -M pc,acpi=off -usb -device virtio-rng-pci,addr=9 -device virtio-rng-pci -device nvme,serial=x -device edu
        -device pci-bridge,id=pci.3,chassis_nr=3 -device pci-bridge,id=b,chassis_nr=7,bus=pci.3,addr=9
        -device virtio-rng-pci,bus=b,addr=1 -device edu,bus=b,addr=2 -device virtio-rng-pci,bus=pci.3,addr=4
        -device pxb,id=far,bus_nr=128 -device virtio-rng-pci,bus=far
        -device usb-tablet -device usb-mouse -device usb-kbd -device usb-wacom-tablet
    """,
    "q35": """
        -M q35,acpi=off -device pcie-root-port,id=r1,slot=1
        -device pcie-root-port,id=r2,slot=2,multifunction=on,addr=5.0 -device pcie-root-port,id=r3,slot=3,addr=5.3
        -device x3130-upstream,id=up,bus=r1
        -device xio3130-downstream,id=down,bus=up,chassis=9 -device virtio-rng-pci,bus=down
        -device i82801b11-bridge,id=dmi -device pci-bridge,id=pb,bus=dmi,chassis_nr=4,shpc=off
        -device virtio-rng-pci,bus=pb -device pcie-pci-bridge,id=conv,bus=r2 -device edu,bus=r3
        -device virtio-rng-pci,bus=conv,addr=2 -device intel-iommu,aw-bits=48
        -device '{"driver":"virtio-balloon-pci"}' -device virtio-scsi-pci,id=ctl -device virtio-serial,id=vser
        -device virtserialport,name=x -device nec-usb-xhci,id=ehci -device usb-mtp,rootdir=/tmp
    """,
    "usb": """
        -M q35,acpi=off -usb -usbdevice tablet -device usb-hub -device usb-mouse -device qemu-xhci,p2=2,p3=6
        -device usb-kbd -device usb-mouse,bus=usb-bus.1,port=2 -device nec-usb-xhci,p2=8,p3=8 -device usb-kbd
        -device ich9-usb-ehci1,id=ehci,addr=4.7
        -device ich9-usb-uhci1,masterbus=ehci.0,firstport=0,addr=4.0,multifunction=on
        -device ich9-usb-uhci2,masterbus=ehci.0,firstport=2,addr=4.1
        -device usb-ehci -device pci-ohci -device piix3-usb-uhci
        -device usb-mouse -device usb-wacom-tablet,bus=ehci.0,port=3
    """,
}


@pytest.mark.parametrize("name", LINES)
def test_every_device_is_where_qemu_puts_it(name: str, host_uri: str) -> None:
    argv = shlex.split(f"{QEMU} {LINES[name]}")
    verdict = verify_command_line(argv, uri=host_uri, base=Path("/"), for_libvirt=connected_version(host_uri))
    places = [found for found in verdict.comparison.differences if found.subject in {"device", "PCI"}]
    assert places == []
