"""Devices that QEMU has and libvirt does not: the bus on which each takes a place.

They go to QEMU as they stand, and the devices behind them must not move into
their places. Source: `qemu-system-* -device help` of QEMU 7.2, its hw/ for what came later.
"""

from __future__ import annotations

from virtsnap.convert.device_row import Bus
from virtsnap.convert.rows import virtio

PCI_DRIVERS = frozenset({
    # storage
    "nvme", "ufs", "megasas-gen2", "lsi53c810", "sdhci-pci", "piix3-ide", "piix4-ide", "sii3112", "cmd646-ide",
    "via-ide", *virtio("vhost-user-scsi"), "cxl-type3", "dc390",
    # bridges and ports of which libvirt makes no controller
    "cxl-rp", "cxl-upstream", "cxl-downstream", "pxb-cxl", "pci-bridge-seat", "remote-pcihost",
    # display, sound, input
    "secondary-vga", "ati-vga", "sm501", *virtio("virtio-gpu-rutabaga"), "virtio-vga-rutabaga",
    *virtio("vhost-user-snd"), *virtio("vhost-user-input"), *virtio("virtio-multitouch"),
    # serial lines, buses, sensors
    "pci-serial-2x", "pci-serial-4x", "tpci200", "ctucan_pci", "kvaser_pci", "mioe3680_pci", "pcm3680_pci",
    "pci-ipmi-bt", "pci-ipmi-kcs", *virtio("vhost-user-gpio"), *virtio("vhost-user-i2c"),
    *virtio("vhost-user-scmi"),
    # the rest
    "edu", "pci-testdev", "pvrdma", "acpi-erst", "igbvf", "xen-platform", "xen-pci-passthrough",
    "vfio-pci-igd-lpc-bridge", "x-pci-proxy-dev", "x-vfio-user-pci", "pci-vmcoreinfo", "virtio-crypto",
    *virtio("virtio-crypto"), *virtio("vhost-user-rng"), *virtio("vhost-user-vsock"), *virtio("vhost-user-fs"),
    *virtio("vhost-vsock"), *virtio("virtio-9p"), "pvpanic-pci", "i6300esb",
    *virtio("vhost-vdpa-device"), *virtio("vhost-user-device"),
})
USB_DRIVERS = frozenset({
    "usb-bot", "usb-uas", "usb-braille", "usb-mtp", "usb-wacom-tablet", "u2f-passthru", "u2f-emulated", "canokey",
    "usb-bt-dongle",
})
# A device of the board that brings a PCI function with it, of which nothing can be said on the command line:
# amdvi_sysbus_realize() in QEMU's hw/i386/amd_iommu.c.
WITH_PCI_FUNCTION = frozenset({"amd-iommu"})


def bus_of_unknown(driver: str) -> Bus:
    """Give the bus of a device that has no row; NONE for one that takes no place."""
    if driver.endswith(("-ccw", "-device")):
        return Bus.NONE
    if driver in PCI_DRIVERS:
        return Bus.PCI
    return Bus.USB if driver in USB_DRIVERS else Bus.NONE
