"""-drive gets the interface, bus, unit and id that QEMU would give it.

Short forms (-hda, -cdrom, -fda, -sd, a bare image name …) are -drive too by
the time they get here. Source: drive_new() in QEMU's blockdev.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.machines import Machine
from virtsnap.convert.ledger import Word
from virtsnap.convert.values import parse_number

# How many units QEMU counts per bus, which decides what index= means; 0: one bus without end.
UNITS_PER_BUS = {"ide": 2, "scsi": 7}

# The interface of a -drive that names none, where it is not the machine family's: MachineClass.block_default_type
# in QEMU's hw/, by libvirt's arch (empty: any) and machine type. "none" means that nothing is plugged.
BOARD_INTERFACES: Sequence[tuple[str, str, str]] = (
    ("x86_64|i686", r"microvm.*", "none"),
    ("", r"versatile(?:pb|ab)|realview-.*|SS-[0-9]+\w*|LX|SPARC\w+|Voyager|q800|next-cube|B160L|C3700|hppa",
     "scsi"),
    ("", r"40p|magnum|pica61|sgi-.*", "scsi"),
    ("", r"raspi.*|orangepi-pc|bpim2u|xlnx-versal-virt|microchip-icicle-kit", "sd"),
    ("", r"malta|fuloong2e|g3beige|mac99|r2d|pegasos2|amigaone|clipper|sun4u|sun4v|sbsa-ref|cubieboard", "ide"),
    ("", r"spitz|akita|borzoi|terrier|tosa|highbank|midway", "ide"),
)


@dataclass(frozen=True, kw_only=True)
class Drive:
    """One -drive as QEMU numbers it; `id` is its own or the one that QEMU makes up."""

    word: Word
    interface: str
    bus: int
    unit: int
    id: str
    cdrom: bool


def default_interface(machine: Machine) -> str:
    """Give the interface of a -drive that names none."""
    for arches, types, interface in BOARD_INTERFACES:
        if (not arches or re.fullmatch(arches, machine.arch)) and re.fullmatch(types, machine.type):
            return interface
    return "none" if machine.family.name == "board" else machine.family.default_drive_if


def number_drives(draft: Draft) -> list[Drive]:
    """Number every -drive, in order; a bad number counts as not said (QEMU refuses it)."""
    drives: list[Drive] = []
    own = default_interface(draft.machine)
    for word in draft.group("drive"):
        interface = word.peek("if") or own
        units = draft.machine.family.drive_units if interface == "ide" else UNITS_PER_BUS.get(interface, 0)
        index = _number(word, "index")
        if index is not None:
            bus, unit = divmod(index, units) if units else (0, index)
        else:
            bus, unit = _free(drives, interface, _number(word, "bus") or 0, _number(word, "unit"), units)
        cdrom = word.peek("media") == "cdrom"
        drives.append(
            Drive(
                word=word, interface=interface, bus=bus, unit=unit, cdrom=cdrom,
                id=word.peek("id") or automatic_id(interface, bus, unit, cdrom=cdrom, units=units),
            )
        )
    return drives


def automatic_id(interface: str, bus: int, unit: int, *, cdrom: bool, units: int) -> str:
    """Give the id that QEMU makes up: `ide0-hd0`, `ide1-cd0`, `none0`, `virtio1`."""
    medium = ("-cd" if cdrom else "-hd") if interface in {"ide", "scsi"} else ""
    return f"{interface}{bus}{medium}{unit}" if units else f"{interface}{medium}{unit}"


def _free(drives: list[Drive], interface: str, bus: int, unit: int | None, units: int) -> tuple[int, int]:
    if unit is not None:
        return bus, unit
    taken = {(drive.bus, drive.unit) for drive in drives if drive.interface == interface}
    unit = 0
    while (bus, unit) in taken:
        unit += 1
        if units and unit >= units:
            bus, unit = bus + 1, unit - units
    return bus, unit


# Beyond all that any machine has; a larger number is QEMU's to refuse.
MOST = 999


def _number(word: Word, key: str) -> int | None:
    try:
        return min(max(parse_number(word.peek(key) or ""), 0), MOST)
    except ValueError:
        return None
