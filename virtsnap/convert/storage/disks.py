"""Disks: -device virtio-blk, ide-hd, scsi-hd … with what is behind them, and -drive that plugs itself.

A disk of QEMU's is said twice, as a device of the guest and as a graph of
nodes on the host; libvirt has one <disk>. It is written where all of both can
be said. Otherwise nothing is claimed, and QEMU gets both as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.command_line.keyval import Property
from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.virtio_keys import read_virtio_model
from virtsnap.convert.claims import Claims, Options
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import loadparm
from virtsnap.convert.head.iothreads import iothread_number
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import read_keys, virtio
from virtsnap.convert.storage.block_graph import Backend
from virtsnap.convert.storage.disk_keys import (
    FLOPPY_KEYS,
    IDE_KEYS,
    SCSI_BLOCK_KEYS,
    SCSI_CD_KEYS,
    SCSI_KEYS,
    USB_KEYS,
    VIRTIO_BLK_KEYS,
    serial,
)
from virtsnap.convert.storage.disk_modes import read_modes, read_policies
from virtsnap.convert.storage.disk_places import alias_at, place_ide, place_scsi
from virtsnap.convert.storage.disk_sources import DiskSource, describe_source
from virtsnap.convert.storage.storage_parts import Disk, Place, StorageParts
from virtsnap.convert.storage.throttling import add_filters, read_drive_limits, read_filters
from virtsnap.convert.values import is_digits, own_alias, parse_switch
from virtsnap.domain_xml.templates import Element

Holes = dict[str, str | None]

# Keys that tune the host's side and change nothing that is stored or seen. libvirt has no word for them.
TUNING = frozenset({
    "l2-cache-size", "refcount-cache-size", "cache-clean-interval", "l2-cache-entry-size", "lazy-refcounts",
    "overlap-check", "overlap-check.template", "pass-discard-request", "pass-discard-snapshot",
    "pass-discard-other", "aio-max-batch", "drop-cache", "stats-account-invalid", "stats-account-failed",
    "page-cache-size", "force-share", "header-digest", "open-timeout", "discard-no-unref",
})


@dataclass(kw_only=True)
class Plan:
    """The host's side of a disk, understood but not claimed yet."""

    claims: Claims
    holes: Holes = field(default_factory=dict)
    source: DiskSource | None = None
    groups: list[str] = field(default_factory=list)


def plan_backend(draft: Draft, backend: Backend | None, device: Options, kind: str) -> Plan:
    """Read what is behind a disk; raises NotSayable where libvirt has no word for a part of it.

    `device` are the keys of the guest's side, `kind` is libvirt's <disk device>.
    """
    plan = Plan(claims=device.claims)
    plan.holes = read_modes(backend, device, draft.target) | read_policies(backend, device)
    if kind == "cdrom":
        plan.holes["readonly"] = ""
    if backend is None or backend.empty:
        if kind not in {"cdrom", "floppy"}:
            raise NotSayable("a disk without a medium")
        if backend is not None:
            backend.top.take_all(Outcome.IMPLIED, None)
        return plan
    if backend.drive is not None:
        plan.holes |= _drive_keys(draft, backend.top, plan.holes)
    limits, plan.groups = read_filters(draft, backend)
    plan.holes |= limits
    plan.source = describe_source(draft, backend)
    if "transient" in plan.holes and plan.source.type != "file":
        raise NotSayable("libvirt has a transient disk of a file only")
    if backend.guessed:
        _note_guess(backend)
    _settle_rest(backend)
    return plan


def _note_guess(backend: Backend) -> None:
    """Say in the report that the format is ours: QEMU would look at the image, libvirt takes raw."""
    note = f"no format is given; taken as {backend.format}, as QEMU's probing would find it"
    for said in backend.claims.places():
        if said.key in {"file", "file.filename", "usbdevice"}:
            backend.claims.take(said, Outcome.SUBSTITUTED, note)
            return


def _drive_keys(draft: Draft, options: Options, so_far: Holes) -> Holes:
    """Read the keys that only -drive has. -snapshot holds for each that does not say `snapshot` itself."""
    holes: Holes = dict(read_drive_limits(options))
    for key in ("if", "index", "bus", "unit", "media", "id"):
        options.take(key)
    if options.get("media") == "cdrom":
        holes["readonly"] = ""
    snapshot = options.take("snapshot") or ("on" if draft.group("snapshot") else "off")
    if _is_on(snapshot) and "readonly" not in {**so_far, **holes}:
        holes["transient"] = ""
    if options.has("serial"):
        holes["serial"] = serial(options.take("serial") or "")
    if options.has("boot"):
        options.take("boot", Outcome.SUBSTITUTED, "a boot ROM of old qemu-kvm; the firmware boots the disk itself")
    return holes


def _is_on(value: str) -> bool:
    try:
        return parse_switch(value)
    except ValueError as exc:
        raise NotSayable(str(exc)) from exc


def _settle_rest(backend: Backend) -> None:
    """Let go of what only tunes the host; raise NotSayable for any other key that nobody understood."""
    for part in backend.whole():
        for layer in part.layers:
            for entry in list(layer.left()):
                if entry.key.rpartition(".")[2] in TUNING or entry.key in TUNING:
                    note = "libvirt has no word for it; it only tunes the host"
                    part.claims.take(entry.said, Outcome.DROPPED, note)
                elif not _inside(part, entry.key):
                    raise NotSayable(f"libvirt has no word for {entry.key}={entry.value}")


def _inside(backend: Backend, key: str) -> bool:
    """Tell whether a key belongs to a node of its own, which is looked at by itself."""
    return key.partition(".")[0] in {"file", "backing", "data-file"} and "." in key


def write_disk(draft: Draft, plan: Plan, holes: Mapping[str, str | None], words: list[Word]) -> Element:
    """Write a <disk> and claim what the plan holds."""
    filled: Holes = {"driver_name": "qemu", "source_type": "file", "format": "raw", **plan.holes, **holes}
    if plan.source is not None:
        filled |= {"source_type": plan.source.type, "format": plan.source.format}
    if filled.get("shareable") is not None and filled.get("cache") == "none":
        filled["cache"] = None  # libvirt's own choice for a shared disk
    element = draft.fill("disk", filled)
    target = element.find("target")
    assert target is not None, "every disk has a target"
    if plan.source is not None:
        target.addprevious(plan.source.element)
        if plan.source.backing is not None:
            target.addprevious(plan.source.backing)
    add_filters(draft, element, plan.groups)
    draft.add(element, *words)
    plan.claims.commit(element)
    for warning in plan.claims.warnings:
        draft.warn(warning)
    return element


def build_disk(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert one -device that is a disk; leaves it untouched where libvirt cannot say it."""
    try:
        _build(draft, word, row)
    except NotSayable as exc:
        word.note(str(exc))


def _build(draft: Draft, word: Word, row: DeviceRow) -> None:
    parts = draft.part(StorageParts)
    graph = parts.start(draft)
    id_ = word.peek("drive")
    backend = graph.backend(id_) if id_ else None
    drive = graph.drive(id_) if id_ else None
    if id_ and parts.users[id_] > 1 and (backend is None or backend.format != "raw"):
        # libvirt would open the image once for each disk, and lets only raw be shared
        # (qemuValidateDomainDeviceDefDiskFrontend()).
        raise NotSayable(f"several devices share the image {id_}")
    kind, bus = row.holes["device"], row.holes["target_bus"]
    if kind == "media":
        kind = "cdrom" if drive is not None and drive.cdrom else "disk"
    spot: Place | None = None
    if bus in PLACES:
        spot = PLACES[bus](draft, word)
        bus = spot.controller.type
    device = Options.of_word(word, backend.claims if backend is not None else Claims())
    plan = plan_backend(draft, backend, device, kind)
    holes: Holes = {"device": kind, "target_bus": bus, "target_dev": ""}
    mapping = _threads(draft, device, holes)
    if _generic_commands(word, row, plan):
        holes["device"] = "lun"
    holes["model"] = _model(word, row)
    holes |= read_keys(word, row.keys, draft.target) | _geometry(word, bus)
    holes |= _loadparm(word, holes)
    device.take("drive")
    device.take("driver")
    for key in ("bus", "unit", "channel", "scsi-id", "lun"):
        if spot is not None:
            device.take(key)
    device.take("id", Outcome.IMPLIED)
    id_of_word = word.peek("id") or ""
    holes["alias"] = own_alias(id_of_word)
    element = write_disk(draft, plan, holes, [word])
    if mapping is not None:
        _driver(element).append(mapping)
    if spot is not None:
        parts.take(spot)
        drive_address(element, spot)
        _device_id(draft, word, element, bus, spot)
    else:
        place(draft, word, element, bus_of(row, word.peek("driver") or "", draft))
    parts.disks.append(Disk(element=element, bus=bus, place=spot, index=None, qemu_id=id_of_word))


def place_floppy(draft: Draft, word: Word) -> Place:
    """Place a floppy: `unit`, or the first free one."""
    controller = next(iter(draft.controllers.of("fdc")), None)
    if controller is None:
        raise NotSayable("there is no floppy controller that libvirt could start")
    parts = draft.part(StorageParts)
    given = word.peek("unit")
    for unit in (0, 1):
        spot = Place(controller=controller, bus=0, target=0, unit=unit)
        if given in {None, str(unit)} and parts.free(spot):
            return spot
    raise NotSayable("there is no free floppy drive")


PLACES: Mapping[str, Callable[[Draft, Word], Place]] = {"ide": place_ide, "scsi": place_scsi, "fdc": place_floppy}


def _driver(element: Element) -> Element:
    driver = element.find("driver")
    assert driver is not None, "every disk has a driver"
    return driver


def drive_address(element: Element, spot: Place) -> None:
    """Write the place of a disk as its <address>."""
    etree.SubElement(
        element, "address", type="drive", controller=str(spot.controller.index), bus=str(spot.bus),
        target=str(spot.target), unit=str(spot.unit),
    )


def _generic_commands(word: Word, row: DeviceRow, plan: Plan) -> bool:
    """Read virtio-blk's `scsi`: generic SCSI commands, which is libvirt's device='lun' of a block device."""
    if row.holes["target_bus"] != "virtio" or not word.has("scsi"):
        return False
    on = (word.peek("scsi") or "").lower() in {"on", "true", "yes", "y"}
    lun = on and plan.source is not None and plan.source.type == "block"
    if lun or not on:
        word.claim("scsi", Outcome.MAPPED if lun else Outcome.IMPLIED)
    return lun


def _model(word: Word, row: DeviceRow) -> str | None:
    """Give the model of a virtio disk where it is not the usual one."""
    model = read_virtio_model(word) if row.holes["target_bus"] == "virtio" else "virtio"
    return None if model == "virtio" else model


def _threads(draft: Draft, device: Options, holes: Holes) -> Element | None:
    """Read iothread and iothread-vq-mapping; give the element of the latter."""
    if device.has("iothread"):
        holes["iothread"] = iothread_number(draft, device.take("iothread") or "")
    entries = [entry for entry in device.entries if entry.key.startswith("iothread-vq-mapping.")]
    if not entries or not draft.knows((10, 0)):
        return None
    mapping = etree.Element("iothreads")
    threads: dict[str, Element] = {}
    for entry in entries:
        _, index, what = entry.key.split(".", 2)
        if what == "iothread":
            threads[index] = draft.fill("iothread", {"id": iothread_number(draft, entry.value)})
            mapping.append(threads[index])
    for entry in entries:
        _, index, what = entry.key.split(".", 2)
        if what.startswith("vqs.") and index in threads:
            etree.SubElement(threads[index], "queue", id=entry.value)
        device.take(entry.key)
    return mapping


def _loadparm(word: Word, holes: Holes) -> Holes:
    """Read s390's loadparm, which libvirt has beside a boot order only."""
    value = word.peek("loadparm")
    if value is None or holes.get("boot_order") is None:
        return {}
    return {"loadparm": word.take_read("loadparm", loadparm)}


def _geometry(word: Word, bus: str) -> Holes:
    """Read cylinders, heads and sectors, which libvirt has together or not at all."""
    said = {key: word.peek(key) for key in ("cyls", "heads", "secs")}
    if any(value is None or not is_digits(value) for value in said.values()) or bus == "usb":
        return {}
    for key in said:
        word.claim(key, Outcome.MAPPED)
    trans = word.peek("bios-chs-trans")
    if trans in {"auto", "none", "lba"}:
        word.claim("bios-chs-trans", Outcome.MAPPED)
        said["trans"] = trans
    return said


def _device_id(draft: Draft, word: Word, element: Element, bus: str, spot: Place) -> None:
    """Keep what identifies a SCSI disk: a guest makes names of it (/dev/disk/by-id).

    libvirt gives the serial number, or `drive-` and the device's id. QEMU takes the serial
    number too, else the id of the -drive; a -blockdev has none (scsi_realize() in hw/scsi/scsi-disk.c). A disk
    that is passed through (device='lun') answers for itself, and libvirt gives it no id.
    """
    if bus != "scsi" or element.get("device") == "lun":
        return
    if element.findtext("serial") is not None and not word.has("device_id"):
        return
    alias = element.find("alias")
    name = alias_at(bus, spot) if alias is None else alias.get("name")
    theirs = element.findtext("serial") or f"drive-{name}"
    # an override would give the device another id, and so another device_id
    overridden = [item for item in word.unclaimed() if item.key not in {"device_id"}]
    if word.peek("device_id") == theirs and not (overridden and element.findtext("serial") is None):
        word.claim("device_id", Outcome.IMPLIED)
    if word.has("device_id") or not draft.knows((8, 2)):
        return
    drive = word.peek("drive")
    # A -drive without an id has one from QEMU (`none0`); only a -blockdev has none.
    ours = "" if draft.find(drive, "blockdev") is not None else drive or ""
    if ours != theirs:
        draft.override(element, Property(key="device_id", value=ours, given=False))


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=virtio("virtio-blk"), template="disk", bus=Bus.PCI, build=build_disk, keys=VIRTIO_BLK_KEYS,
        holes={"target_bus": "virtio", "device": "disk"},
    ),
    DeviceRow(
        drivers=("ide-hd",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=IDE_KEYS,
        holes={"target_bus": "ide", "device": "disk"},
    ),
    DeviceRow(
        drivers=("ide-cd",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=IDE_KEYS[:-1],
        holes={"target_bus": "ide", "device": "cdrom"},
    ),
    DeviceRow(
        drivers=("ide-drive",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=IDE_KEYS,
        holes={"target_bus": "ide", "device": "media"},
    ),
    DeviceRow(
        drivers=("scsi-hd",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=SCSI_KEYS,
        holes={"target_bus": "scsi", "device": "disk"},
    ),
    DeviceRow(
        drivers=("scsi-cd",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=SCSI_CD_KEYS,
        holes={"target_bus": "scsi", "device": "cdrom"},
    ),
    DeviceRow(
        drivers=("scsi-disk",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=SCSI_KEYS,
        holes={"target_bus": "scsi", "device": "media"},
    ),
    DeviceRow(
        drivers=("scsi-block",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=SCSI_BLOCK_KEYS,
        holes={"target_bus": "scsi", "device": "lun"},
    ),
    DeviceRow(
        drivers=("usb-storage",), template="disk", bus=Bus.USB, build=build_disk, keys=USB_KEYS,
        holes={"target_bus": "usb", "device": "disk"},
    ),
    DeviceRow(
        drivers=("floppy",), template="disk", bus=Bus.DRIVE, build=build_disk, keys=FLOPPY_KEYS,
        holes={"target_bus": "fdc", "device": "floppy"},
    ),
)
