"""SCSI devices of the host: -device scsi-generic and vhost-scsi become <hostdev>.

libvirt names a generic SCSI device by its address on the host, QEMU by
/dev/sgN. The kernel says which is which; where it cannot be asked, the
device is left to QEMU, because a guess could hand a wrong disk to the guest.
"""

from __future__ import annotations

import re
from pathlib import Path

from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.virtio_keys import read_virtio_model
from virtsnap.convert.claims import Options
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import boot_order
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, read_keys, virtio
from virtsnap.convert.storage.block_graph import Backend
from virtsnap.convert.storage.disk_keys import SHARE
from virtsnap.convert.storage.disk_places import place_scsi
from virtsnap.convert.storage.disk_sources import describe_source
from virtsnap.convert.storage.disks import drive_address
from virtsnap.convert.storage.storage_parts import StorageParts
from virtsnap.convert.values import is_digits, own_alias
from virtsnap.domain_xml.templates import Element

SYSTEM = Path("/sys/class/scsi_generic")
BOOT = Key(key="bootindex", hole="boot_order", read=boot_order)


def host_address(path: str, system: Path = SYSTEM) -> tuple[str, ...]:
    """Give (host, bus, target, unit) of /dev/sgN on this host; raises NotSayable where the kernel has none."""
    found = re.fullmatch(r"/dev/(sg[0-9]+)", path)
    if found is None:
        raise NotSayable(f"{path} is no generic SCSI device")
    try:
        name = (system / found[1] / "device").resolve(strict=True).name
    except OSError as exc:
        raise NotSayable(f"{path} is not on this host, so its SCSI address is unknown") from exc
    numbers = tuple(name.split(":"))
    if len(numbers) != 4 or not all(is_digits(number) for number in numbers):
        raise NotSayable(f"{path} has no SCSI address")
    return numbers


def build_generic(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert -device scsi-generic; leaves it untouched where the host's device cannot be named."""
    try:
        _build(draft, word, row)
    except NotSayable as exc:
        word.note(str(exc))


def _build(draft: Draft, word: Word, row: DeviceRow) -> None:
    parts = draft.part(StorageParts)
    backend = parts.start(draft).backend(word.peek("drive") or "")
    if backend.empty:
        raise NotSayable("there is no device behind it")
    spot = place_scsi(draft, word)
    source = _source(draft, backend)
    read_only = backend.take("read-only", "readonly")
    for key in ("node-name", "driver", "format", "auto-read-only", "discard", "id", "if"):
        backend.take(key, outcome=Outcome.IMPLIED)
    left = [entry.key for layer in backend.layers for entry in layer.left() if not entry.key.startswith("file.")]
    if left:
        raise NotSayable(f"libvirt has no word for {', '.join(left)}")
    device = Options.of_word(word, backend.claims)
    for key in ("driver", "drive", "bus", "channel", "scsi-id", "lun"):
        device.take(key)
    id_ = device.take("id", Outcome.IMPLIED) or ""
    holes: dict[str, str | None] = dict(read_keys(word, row.keys, draft.target))
    holes["readonly"] = "" if read_only in {"on", "true", "yes"} else None
    holes["alias"] = own_alias(id_)
    element = draft.fill(row.template, holes)
    element.insert(0, source)
    draft.add(element, word)
    drive_address(element, spot)
    parts.take(spot)
    backend.claims.commit(element)
    for warning in backend.claims.warnings:
        draft.warn(warning)


def _source(draft: Draft, backend: Backend) -> Element:
    storage = backend.storage
    if backend.format != "raw":
        raise NotSayable(f"a generic SCSI device is no image in {backend.format}")
    if storage.get("driver") == "iscsi":
        return describe_source(draft, backend).element
    host, bus, target, unit = host_address(storage.take("filename") or "")
    return draft.fill(
        "hostdev_scsi_adapter", {"adapter": f"scsi_host{host}", "bus": bus, "target": target, "unit": unit}
    )


def build_vhost_scsi(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert -device vhost-scsi: a target of the host's kernel, named by its wwpn."""
    driver = word.peek("driver") or ""
    wwpn = word.peek("wwpn") or ""
    if not re.fullmatch(r"naa\.[0-9a-fA-F]{16}", wwpn):
        return
    model = read_virtio_model(word)
    holes: dict[str, str | None] = {"model": None if model == "virtio" else model}
    holes |= read_keys(word, row.keys, draft.target)
    word.claim("driver", Outcome.MAPPED)
    id_ = word.take("id", Outcome.IMPLIED) or ""
    holes["alias"] = own_alias(id_)
    element = draft.add(draft.fill(row.template, holes), word)
    place(draft, word, element, bus_of(row, driver, draft))


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=("scsi-generic",), template="hostdev_scsi", bus=Bus.DRIVE, build=build_generic, keys=(SHARE, BOOT),
    ),
    DeviceRow(
        drivers=virtio("vhost-scsi"), template="hostdev_vhost_scsi", bus=Bus.PCI, build=build_vhost_scsi,
        keys=(
            Key(key="wwpn", hole="wwpn"),
            Key(key="vhostfd", hole=None, outcome=Outcome.MANAGED, note="libvirt opens /dev/vhost-scsi itself"),
        ),
    ),
)
