"""-device vhost-user-blk becomes <disk type='vhostuser'>: another process on the host is the disk."""

from __future__ import annotations

from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.virtio_keys import read_virtio_model
from virtsnap.convert.consoles.chardevs import read_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import read_keys, virtio
from virtsnap.convert.storage.disk_keys import VHOST_USER_BLK_KEYS
from virtsnap.convert.storage.storage_parts import Disk, StorageParts
from virtsnap.convert.values import own_alias


def build_vhost_user_disk(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join the device with its socket; leaves it untouched where its -chardev is no socket with a path."""
    driver = word.peek("driver") or ""
    chardev = draft.find(word.peek("chardev"), "chardev")
    if chardev is None or not (chardev.peek("path") or chardev.peek("backend.data.addr.data.path")):
        return
    source = read_chardev(draft, chardev)
    if source is None or source.type != "unix":
        return
    socket = source.children[0]
    reconnect = socket.find("reconnect")
    model = read_virtio_model(word)
    holes: dict[str, str | None] = dict(row.holes)
    holes |= {"model": None if model == "virtio" else model, "target_dev": "", "driver_name": "qemu"}
    holes |= read_keys(word, row.keys, draft.target)
    for key in ("driver", "chardev"):
        word.claim(key, Outcome.MAPPED)
    id_ = word.take("id", Outcome.IMPLIED) or ""
    holes["alias"] = own_alias(id_)
    element = draft.fill(row.template, holes)
    target = element.find("target")
    assert target is not None, "every disk has a target"
    target.addprevious(
        draft.fill(
            "disk_source",
            {
                "kind": "unix", "socket": socket.get("path"),
                "reconnect_enabled": None if reconnect is None else reconnect.get("enabled"),
                "reconnect_timeout": None if reconnect is None else reconnect.get("timeout"),
            },
        )
    )
    draft.add(element, word, chardev)
    place(draft, word, element, bus_of(row, driver, draft))
    draft.part(StorageParts).disks.append(
        Disk(element=element, bus="virtio", place=None, index=None, qemu_id=id_)
    )


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=virtio("vhost-user-blk"), template="disk", bus=Bus.PCI, build=build_vhost_user_disk,
        keys=VHOST_USER_BLK_KEYS, since=(7, 1),
        holes={
            "source_type": "vhostuser", "snapshot": "no", "device": "disk", "target_bus": "virtio",
            "format": "raw",
        },
    ),
)
