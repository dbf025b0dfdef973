"""Each disk gets its <target dev>: vda, sda, hda, fda.

A name follows from the place where libvirt itself would have derived the
place from the name (virDomainDiskDefAssignAddress() in its domain_conf.c), or
from an id that libvirt made of the name (`virtio-disk3` is vdd). All others
take the first name that is left.
"""

from __future__ import annotations

import re

from virtsnap.convert.draft import Draft
from virtsnap.convert.storage.storage_parts import Disk, StorageParts

PREFIXES = {"ide": "hd", "sata": "sd", "scsi": "sd", "usb": "sd", "sd": "sd", "virtio": "vd", "fdc": "fd"}
# Units on one controller, as libvirt counts names: qemu has no wide SCSI bus there.
UNITS = {"ide": 4, "sata": 6, "scsi": 7, "fdc": 2}
_MADE_BY_LIBVIRT = re.compile(r"(?:virtio|usb)-disk([0-9]{1,4})")


def name_targets(draft: Draft) -> None:
    """Give every disk its name."""
    disks = draft.part(StorageParts).disks
    taken: set[str] = set()
    waiting: list[Disk] = []
    for disk in disks:
        number = _number(disk)
        name = None if number is None else PREFIXES[disk.bus] + letters(number)
        if name is None or name in taken:
            waiting.append(disk)
        else:
            taken.add(name)
            _target(disk, name)
    for disk in waiting:
        prefix = PREFIXES[disk.bus]
        name = next(name for name in (prefix + letters(n) for n in range(100_000)) if name not in taken)
        taken.add(name)
        _target(disk, name)


def letters(number: int) -> str:
    """Give the letters of a number: 0 is a, 25 z, 26 aa."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text


def _number(disk: Disk) -> int | None:
    """Give the number that the place or the id says, None where they say none."""
    if disk.index is not None:
        return disk.index
    found = _MADE_BY_LIBVIRT.fullmatch(disk.qemu_id)
    if found:
        return int(found[1])
    place, units = disk.place, UNITS.get(disk.bus)
    if place is None or units is None:
        return None
    unit = place.bus * 2 + place.unit if disk.bus == "ide" else place.unit
    if unit >= units or place.target or (disk.bus != "ide" and place.bus):
        return None
    if disk.bus == "scsi" and place.controller.index:
        return None
    return place.controller.index * units + unit


def _target(disk: Disk, name: str) -> None:
    target = disk.element.find("target")
    assert target is not None, "every disk has a target"
    target.set("dev", name)
