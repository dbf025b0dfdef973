"""-drive that plugs itself (if=ide, virtio, scsi, floppy, sd) becomes a disk, as QEMU makes the device for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lxml import etree

from virtsnap.convert.buses.ccw import CcwDevices
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.claims import Options
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable
from virtsnap.convert.storage.disk_places import at_ide, at_scsi
from virtsnap.convert.storage.disks import drive_address, plan_backend, write_disk
from virtsnap.convert.storage.drives import Drive
from virtsnap.convert.storage.storage_controllers import register_builtin
from virtsnap.convert.storage.storage_parts import Disk, Place, StorageParts


@dataclass(frozen=True, kw_only=True)
class Plug:
    """How QEMU plugs a -drive of one interface: libvirt's bus, and the place (None: no drive address)."""

    bus: str
    place: Callable[[Draft, Drive], Place] | None = None


def _at_ide(draft: Draft, drive: Drive) -> Place:
    for controller in draft.controllers.all:
        if controller.qemu_id == "ide":
            return at_ide(controller, drive.bus, drive.unit)
    raise NotSayable("libvirt knows no built-in IDE or SATA controller of this machine")


def _at_scsi(draft: Draft, drive: Drive) -> Place:
    """Place a SCSI disk on the machine's own controller: one that libvirt knows to be there."""
    model = "ncr53c90" if draft.machine.arch == "sparc" else None
    if draft.machine.family.name == "pseries":
        model = "ibmvscsi"  # made by the machine for each bus that a -drive names
    own = [controller for controller in draft.controllers.of("scsi") if controller.qemu_id == "scsi"]
    if model is None or (model == "ncr53c90" and drive.bus):
        raise NotSayable("libvirt knows no built-in SCSI controller of this machine")
    while len(own) <= drive.bus:
        element = draft.add(draft.fill("controller_scsi", {"model": model}))
        own.append(draft.controllers.add("scsi", "scsi", element))
    return at_scsi(own[drive.bus], 0, drive.unit, 0)


def _at_floppy(draft: Draft, drive: Drive) -> Place:
    for controller in draft.controllers.of("fdc"):
        return Place(controller=controller, bus=0, target=0, unit=drive.unit)
    raise NotSayable("libvirt knows no built-in floppy controller of this machine")


PLUGS: Mapping[str, Plug] = {
    "ide": Plug(bus="ide", place=_at_ide),
    "scsi": Plug(bus="scsi", place=_at_scsi),
    "floppy": Plug(bus="fdc", place=_at_floppy),
    "virtio": Plug(bus="virtio"),
    "sd": Plug(bus="sd"),
}


def convert_plugged_drives(draft: Draft) -> None:
    """Register the machine's controllers, and convert every -drive that no -device uses."""
    register_builtin(draft)
    parts = draft.part(StorageParts)
    parts.start(draft)
    for drive in parts.drives:
        plug = PLUGS.get(drive.interface)
        if plug is None or parts.users[drive.id]:
            continue
        try:
            _convert(draft, drive, plug)
        except NotSayable as exc:
            drive.word.note(str(exc))
    convert_usb_disks(draft)


def _convert(draft: Draft, drive: Drive, plug: Plug) -> None:
    parts = draft.part(StorageParts)
    backend = parts.start(draft).backend(drive.id)
    kind = "floppy" if plug.bus == "fdc" else "cdrom" if drive.cdrom and plug.place else "disk"
    nothing = Options((), backend.claims)
    spot = plug.place(draft, drive) if plug.place else None
    bus = plug.bus if spot is None else spot.controller.type
    if spot is not None and not parts.free(spot):
        raise NotSayable("its place is taken")
    addr = backend.top.take("addr")
    plan = plan_backend(draft, backend, nothing, kind)
    element = write_disk(draft, plan, {"device": kind, "target_bus": bus, "target_dev": ""}, [drive.word])
    if spot is not None:
        parts.take(spot)
        drive_address(element, spot)
    elif bus == "virtio":
        _virtio_address(draft, addr, element)
    parts.disks.append(
        Disk(element=element, bus=bus, place=spot, index=drive.unit if bus == "sd" else None, qemu_id="")
    )


def _virtio_address(draft: Draft, addr: str | None, element: etree._Element) -> None:
    """Place a virtio disk: the machine's own kind of virtio device, plugged after every -device in text form."""
    if draft.machine.family.name == "s390-ccw-virtio":
        draft.part(CcwDevices).add(None, element, plugged=Plugged.DRIVE)
        return
    draft.pci.add(None, element, plugged=Plugged.DRIVE, addr=addr)


def convert_usb_disks(draft: Draft) -> None:
    """Convert -usbdevice disk:[format=FORMAT:]FILE, which QEMU had before 5.1."""
    parts = draft.part(StorageParts)
    for word in draft.group("usbdevice"):
        head, _, name = (word.peek("usbdevice") or "").partition(":")
        if head != "disk" or not name:
            continue
        found = re.fullmatch(r"format=(\w+):(.+)", name)
        try:
            backend = parts.start(draft).file(word, "usbdevice", found[2] if found else name, found and found[1])
            plan = plan_backend(draft, backend, Options((), backend.claims), "disk")
        except NotSayable as exc:
            word.note(str(exc))
            continue
        element = write_disk(draft, plan, {"device": "disk", "target_bus": "usb", "target_dev": ""}, [word])
        draft.usb.add(word, element)
        parts.disks.append(Disk(element=element, bus="usb", place=None, index=None, qemu_id=""))
