"""Controllers of disks: -device virtio-scsi, lsi, ahci …, and those that a machine has built in."""

from __future__ import annotations

from lxml import etree

from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.controllers import Controller
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS, read_virtio_model
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.iothreads import iothread_number
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, read_keys, virtio
from virtsnap.convert.storage.storage_parts import StorageParts
from virtsnap.convert.values import hexadecimal, number_up_to, on_off, own_alias

# Source: qemuBuildControllerSCSIDevProps() in libvirt's qemu_command.c.
VIRTIO_SCSI_KEYS: tuple[Key, ...] = (
    *VIRTIO_KEYS,
    Key(key="num_queues", hole="queues", read=number_up_to(65535)),
    Key(key="cmd_per_lun", hole="cmd_per_lun", read=number_up_to(2**32 - 1)),
    Key(key="max_sectors", hole="max_sectors", read=number_up_to(2**32 - 1)),
    Key(key="ioeventfd", hole="ioeventfd", read=on_off),
)

# Boards whose built-in IDE controller libvirt knows: qemuDomainHasBuiltinIDE() in its qemu_domain.c.
IDE_BOARDS = frozenset({"malta", "sun4u", "g3beige"})


def build_controller(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert one -device that is a controller of disks."""
    driver = word.peek("driver") or ""
    holes: dict[str, str | None] = dict(row.holes)
    type_ = holes.pop("controller") or ""
    if "model" in holes:
        kind = read_virtio_model(word)
        if kind != "virtio":
            holes["model"] = kind
    try:
        if word.has("iothread"):
            holes["iothread"] = iothread_number(draft, word.peek("iothread") or "")
            word.claim("iothread", Outcome.MAPPED)
    except NotSayable as exc:
        word.note(str(exc))
    word.take("driver")
    holes |= read_keys(word, row.keys, draft.target)
    id_ = word.take("id", Outcome.IMPLIED)
    holes["alias"] = own_alias(id_)
    element = draft.fill(row.template, holes)
    draft.add(element, word)
    draft.controllers.add(type_, id_, element)
    if row.bus is Bus.SPAPR_VIO:
        reg = word.take_read("reg", hexadecimal(8))
        if reg is not None:
            etree.SubElement(element, "address", type="spapr-vio", reg=reg)
    else:
        place(draft, word, element, bus_of(row, driver, draft))


def register_builtin(draft: Draft) -> None:
    """Note the controllers that the machine has built in; those that libvirt shows always are written."""
    match draft.machine.family.name:
        case "pc":
            draft.controllers.add("ide", "ide", None)
            draft.controllers.add("fdc", "floppy-bus", None)
        case "q35":
            element = draft.fill("controller_storage", {"type": "sata"})
            _builtin_address(element, 0x1F, 2)
            draft.add(element)
            draft.controllers.add("sata", "ide", element)
            draft.controllers.add("fdc", "floppy-bus", None)
        case "isapc":
            draft.controllers.add("ide", "ide", None)
            draft.controllers.add("fdc", "floppy-bus", None)
        case _ if draft.machine.type in IDE_BOARDS:
            draft.controllers.add("ide", "ide", None)
        case _:
            pass


def write_builtin(draft: Draft) -> None:
    """Write the built-in IDE and floppy controllers where a disk sits on them."""
    used = {disk.place.controller.type for disk in draft.part(StorageParts).disks if disk.place is not None}
    for controller in draft.controllers.all:
        if controller.element is None and controller.type in {"ide", "fdc"} & used:
            _write(draft, controller)


def _write(draft: Draft, controller: Controller) -> None:
    element = draft.fill("controller_storage", {"type": controller.type})
    if controller.type == "ide" and draft.machine.family.name == "pc":
        _builtin_address(element, 1, 1)
    draft.add(element)
    controller.element = element


def _builtin_address(element: etree._Element, slot: int, function: int) -> None:
    etree.SubElement(
        element, "address", type="pci", domain="0x0000", bus="0x00", slot=f"0x{slot:02x}",
        function=f"0x{function:x}",
    )


def _scsi(model: str, *drivers: str, bus: Bus = Bus.PCI, since: tuple[int, int] = (0, 0)) -> DeviceRow:
    return DeviceRow(
        drivers=drivers, template="controller_scsi", bus=bus, build=build_controller,
        holes={"controller": "scsi", "model": model}, since=since,
    )


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=virtio("virtio-scsi"), template="controller_scsi", bus=Bus.PCI, build=build_controller,
        holes={"controller": "scsi", "model": "virtio-scsi"}, keys=VIRTIO_SCSI_KEYS,
    ),
    _scsi("lsilogic", "lsi", "lsi53c895a"),
    _scsi("lsisas1078", "megasas"),
    _scsi("lsisas1068", "mptsas1068"),
    _scsi("vmpvscsi", "pvscsi"),
    _scsi("am53c974", "am53c974"),
    # Not dc390: libvirt's QEMU driver gives it a name that no QEMU knows, `dc-390`.
    _scsi("ibmvscsi", "spapr-vscsi", bus=Bus.SPAPR_VIO),
    DeviceRow(
        drivers=("ahci", "ich9-ahci"), template="controller_storage", bus=Bus.PCI, build=build_controller,
        holes={"controller": "sata", "type": "sata"},
    ),
)
