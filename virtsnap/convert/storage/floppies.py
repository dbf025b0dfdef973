"""The floppy controller's own words: -device isa-fdc and -global isa-fdc.…, which name drives and boot order."""

from __future__ import annotations

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import boot_order
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.storage.storage_parts import Disk, StorageParts

UNITS = {"A": 0, "B": 1}


def convert_floppy_controller(draft: Draft) -> None:
    """Claim what the floppies of the domain hold of isa-fdc's properties."""
    floppies = {
        disk.place.unit: disk
        for disk in draft.part(StorageParts).disks
        if disk.bus == "fdc" and disk.place is not None
    }
    for word in draft.group("global"):
        if word.peek("driver") == "isa-fdc" and _claim(
            floppies, word, word.peek("property") or "", word.peek("value") or ""
        ):
            ordered = (word.peek("property") or "").startswith("bootindex")
            word.claim_rest(Outcome.MAPPED if ordered else Outcome.IMPLIED)
    for word in draft.devices_of(["isa-fdc"]):
        if not floppies:
            continue
        word.claim("driver", Outcome.IMPLIED)
        word.claim("id", Outcome.IMPLIED)
        for item in word.properties:
            if _claim(floppies, word, item.key, item.value):
                word.claim(item.key, Outcome.MAPPED)
        word.land(*(disk.element for disk in floppies.values()))


def _claim(floppies: dict[int, Disk], word: Word, key: str, value: str) -> bool:
    """Read one property of isa-fdc; tell whether the domain has it."""
    unit = UNITS.get(key[-1:])
    if unit is None:
        return False
    floppy = floppies.get(unit)
    match key[:-1]:
        case "bootindex" if floppy is not None:
            try:
                order = boot_order(value)
            except NotSayable:
                return False
            if order is not None:
                etree.SubElement(floppy.element, "boot", order=order)
            word.land(floppy.element)
            return True
        case "fdtype":
            # A drive that is not there has no type (fdctrl_connect_drives() in QEMU's hw/block/fdc.c).
            return value == "auto" or (value == "none" and floppy is None)
    return False
