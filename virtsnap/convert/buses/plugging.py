"""The order in which QEMU plugs devices: what has no address takes the first free place when its turn comes.

Source: qemu_create_machine() and qemu_create_cli_devices() in QEMU's softmmu/vl.c,
drive_new() in its blockdev.c (if=virtio becomes a -device at the end of those in text form).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from virtsnap.convert.ledger import Word


class Plugged(IntEnum):
    """When QEMU plugs a device, earliest first."""

    BUILTIN = 0
    VGA = 1
    NIC = 2
    MACHINE_USB = 3
    USBDEVICE = 4
    DEVICE = 5
    DRIVE = 6
    DEVICE_JSON = 7


# (when, where in argv, a number for what neither tells apart)
Order = tuple[int, int, int]

BY_GROUP: Mapping[str, Plugged] = {
    "vga": Plugged.VGA, "nic": Plugged.NIC, "net": Plugged.NIC, "usbdevice": Plugged.USBDEVICE,
    "drive": Plugged.DRIVE,
}
# Only these follow the command line; the others are made by the machine, in an order of its own.
IN_ARGV_ORDER = frozenset({Plugged.USBDEVICE, Plugged.DEVICE, Plugged.DRIVE, Plugged.DEVICE_JSON})
# A pseries makes its network cards before its display: spapr_machine_init() in QEMU's hw/ppc/spapr.c.
NICS_FIRST = frozenset({"pseries"})
# What QEMU adds by itself comes behind what was asked for.
LAST = 1 << 30


def when_plugged(word: Word) -> Plugged:
    """Tell when the device of an option is plugged: -device in JSON comes after everything in text form."""
    if word.group in BY_GROUP:
        return BY_GROUP[word.group]
    return Plugged.DEVICE_JSON if word.group == "device" and word.properties.json else Plugged.DEVICE


def plug_order(word: Word | None, plugged: Plugged, sequence: int, family: str = "") -> Order:
    """Give the turn of a device; `sequence` tells apart those of one option."""
    rank = int(plugged)
    if family in NICS_FIRST and plugged in {Plugged.VGA, Plugged.NIC}:
        rank = Plugged.VGA + Plugged.NIC - plugged
    position = 0
    if word is not None and plugged in IN_ARGV_ORDER:
        position = LAST if word.implied else word.option.first
    return rank, position, sequence
