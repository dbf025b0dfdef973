"""Where a disk sits: QEMU's bus, unit, scsi-id and lun become libvirt's controller, bus, target and unit.

What the command line leaves open is filled in as QEMU does: a device without
a bus goes to the bus that was made last and still has room, one without
an id to the first free one. Source: qbus_find() in QEMU's softmmu/qdev-monitor.c,
ide_dev_initfn(), scsi_qdev_realize(); libvirt's side is qemuBuildDeviceAddressProps().
"""

from __future__ import annotations

from collections.abc import Iterator

from virtsnap.convert.buses.controllers import Controller
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Word
from virtsnap.convert.storage.storage_parts import Place, StorageParts
from virtsnap.convert.values import parse_number

SATA_PORTS = 6
IDE_BUSES = 2
IDE_UNITS = 2
SCSI_IDS = 256
# Controllers whose disks libvirt places by unit alone, which is QEMU's scsi-id.
NARROW_MODELS = frozenset({"lsilogic"})


def place_ide(draft: Draft, word: Word) -> Place:
    """Place an IDE or SATA disk; raises NotSayable where its bus is none of libvirt's, or is full."""
    bus, unit = word.peek("bus"), _number(word, "unit")
    parts = draft.part(StorageParts)
    if bus is not None:
        found = draft.controllers.find(bus, "ide", "sata")
        if found is None:
            raise NotSayable(f"no controller that libvirt could start has the bus {bus}")
        candidates: Iterator[tuple[Controller, int]] = iter([found])
    else:
        candidates = _last_first(draft)
    for controller, number in candidates:
        units = IDE_UNITS if controller.type == "ide" else 1
        for one in range(units) if unit is None else [unit]:
            place = at_ide(controller, number, one)
            if parts.free(place) and (one < units or controller.type == "ide"):
                return place
    raise NotSayable("there is no free place on an IDE or SATA bus")


def at_ide(controller: Controller, bus: int, unit: int) -> Place:
    """Give the place of QEMU's (bus, unit): a SATA port is a bus for QEMU and a unit for libvirt."""
    if controller.type == "sata":
        return Place(controller=controller, bus=0, target=0, unit=bus)
    return Place(controller=controller, bus=bus, target=0, unit=unit)


def _last_first(draft: Draft) -> Iterator[tuple[Controller, int]]:
    for controller in reversed([one for one in draft.controllers.all if one.type in {"ide", "sata"}]):
        buses = IDE_BUSES if controller.type == "ide" else SATA_PORTS
        for bus in reversed(range(buses)):
            yield controller, bus


def place_scsi(draft: Draft, word: Word) -> Place:
    """Place a SCSI disk; raises NotSayable where libvirt has no such controller or address."""
    parts = draft.part(StorageParts)
    controllers = draft.controllers.of("scsi")
    if word.has("bus"):
        found = draft.controllers.find(word.peek("bus"), "scsi")
        controller = found[0] if found else None
    else:
        controller = controllers[-1] if controllers else None
    if controller is None:
        raise NotSayable("its SCSI controller is none that libvirt could start")
    channel, id_, lun = _number(word, "channel") or 0, _number(word, "scsi-id"), _number(word, "lun")
    ids = range(SCSI_IDS) if id_ is None else [id_]
    luns = [lun or 0] if id_ is None or lun is not None else range(SCSI_IDS)
    for one in ids:
        for other in luns:
            place = at_scsi(controller, channel, one, other)
            if parts.free(place):
                return place
    raise NotSayable("its place on the SCSI bus is taken")


def keep_scsi_place(draft: Draft, word: Word) -> None:
    """Let a SCSI device that stays QEMU's take its place, so that those behind it keep theirs."""
    parts = draft.part(StorageParts)
    try:
        place = place_scsi(draft, word)
    except NotSayable:
        return
    parts.take(place)
    parts.kept[id(word)] = place


def kept_scsi_place(draft: Draft, word: Word) -> dict[str, str]:
    """Give the keys that say the place of a SCSI device that stays QEMU's."""
    place = draft.part(StorageParts).kept.get(id(word))
    if place is None:
        return {}
    narrow = place.controller.element is not None and place.controller.element.get("model") in NARROW_MODELS
    id_, lun = (place.unit, 0) if narrow else (place.target, place.unit)
    bus = {"bus": f"{place.controller.alias}.0", "scsi-id": str(id_)}
    return bus | ({"channel": str(place.bus), "lun": str(lun)} if lun or place.bus else {})


def at_scsi(controller: Controller, channel: int, id_: int, lun: int) -> Place:
    """Give the place of QEMU's (channel, scsi-id, lun)."""
    model = controller.element.get("model") if controller.element is not None else None
    if model in NARROW_MODELS:
        if lun:
            raise NotSayable(f"libvirt has one unit for each id of a {model} controller")
        return Place(controller=controller, bus=channel, target=0, unit=id_)
    return Place(controller=controller, bus=channel, target=id_, unit=lun)


def alias_at(bus: str, place: Place) -> str:
    """Give the id that libvirt will give a disk at a place."""
    narrow = place.controller.element is not None and place.controller.element.get("model") in NARROW_MODELS
    numbers = [place.controller.index, place.bus]
    if bus == "scsi" and not narrow:
        numbers.append(place.target)
    return bus + "-".join(map(str, [*numbers, place.unit]))


def _number(word: Word, key: str) -> int | None:
    value = word.peek(key)
    if value is None:
        return None
    try:
        number = parse_number(value)
    except ValueError as exc:
        raise NotSayable(f"{key}={value} is no number") from exc
    return number if 0 <= number < 1 << 31 else None
