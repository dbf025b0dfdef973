"""The keys of the guest's side of a disk: which of QEMU's properties is which part of <disk>."""

from __future__ import annotations

import re

from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.head.boot_order import boot_order
from virtsnap.convert.ledger import NotSayable, Outcome
from virtsnap.convert.rows import Key
from virtsnap.convert.values import number, on_off, only_if, parse_number, present_if_on, size_in

_SERIAL = re.compile(r"[A-Za-z0-9_.+ -]+")


def serial(value: str) -> str | None:
    """Read a serial number. libvirt puts a backslash before each blank (qemuBuildDiskDeviceProps())."""
    plain = value.replace("\\ ", " ")
    if not value:
        return None
    if plain.replace(" ", "\\ ") != value or not _SERIAL.fullmatch(plain):
        raise NotSayable(f"libvirt would write the serial number {value!r} otherwise")
    return plain


def printable(longest: int) -> Key:
    """Make a row for `vendor` (8) or `product` (16), of which libvirt wants printable ASCII of a length."""

    def read(value: str) -> str:
        if len(value) > longest or not re.fullmatch(r"[ -~]*", value):
            raise NotSayable(f"libvirt takes at most {longest} printable characters")
        return value

    return Key(key={8: "vendor", 16: "product"}[longest], hole={8: "vendor", 16: "product"}[longest], read=read)


def wwn(value: str) -> str | None:
    """Write a world wide name as libvirt does, in 16 hexadecimal digits; 0 is none."""
    try:
        found = parse_number(value)
    except ValueError as exc:
        raise NotSayable(f"{value!r} is no number") from exc
    if not 0 <= found < 1 << 64:
        raise NotSayable(f"{value!r} is no world wide name")
    return f"{found:016x}" if found else None


def not_zero(value: str) -> str | None:
    """Read a number of which 0 means the default."""
    found = number(value)
    return None if found == "0" else found


def granularity(value: str) -> str | None:
    """Read discard_granularity: -1 is the default, 0 switches discarding off, which libvirt cannot say."""
    if value == "-1":
        return None
    if block_size(value) is None:
        raise NotSayable("libvirt takes 0 for the default")
    return block_size(value)


def block_size(value: str) -> str | None:
    """Read a size in bytes of which 0 means the default."""
    found = size_in(1)(value)
    return None if found == "0" else found


def _removable(value: str) -> str | None:
    """Read `removable`, which QEMU has off for a disk that says nothing."""
    return "on" if on_off(value) == "on" else None


SHARE = Key(key="share-rw", hole="shareable", read=present_if_on)
ROTATION = Key(key="rotation_rate", hole="rotation_rate", read=not_zero, since=(7, 3))
REMOVABLE = Key(key="removable", hole="removable", read=_removable)
WWN = Key(key="wwn", hole="wwn", read=wwn)

# What all disks have. Source: qemuBuildDiskDeviceProps() in libvirt's qemu_command.c.
BLOCK_KEYS: tuple[Key, ...] = (
    Key(key="serial", hole="serial", read=serial),
    Key(key="bootindex", hole="boot_order", read=boot_order),
    SHARE,
    Key(key="logical_block_size", hole="logical_block_size", read=block_size),
    Key(key="physical_block_size", hole="physical_block_size", read=block_size),
    Key(key="discard_granularity", hole="discard_granularity", read=granularity, since=(9, 8)),
)
VIRTIO_BLK_KEYS: tuple[Key, ...] = (
    *BLOCK_KEYS, *VIRTIO_KEYS,
    Key(key="num-queues", hole="queues", read=not_zero),
    Key(key="queue-size", hole="queue_size", read=not_zero, since=(7, 8)),
    Key(key="ioeventfd", hole="ioeventfd", read=on_off),
    Key(key="event_idx", hole="event_idx", read=on_off),
    Key(key="acpi-index", hole="acpi_index", read=not_zero, since=(7, 3)),
)
IDE_KEYS: tuple[Key, ...] = (*BLOCK_KEYS, WWN, ROTATION)
SCSI_KEYS: tuple[Key, ...] = (*BLOCK_KEYS, WWN, ROTATION, REMOVABLE, printable(8), printable(16))
SCSI_CD_KEYS: tuple[Key, ...] = (*BLOCK_KEYS, WWN, printable(8), printable(16))
SCSI_BLOCK_KEYS: tuple[Key, ...] = tuple(key for key in BLOCK_KEYS if key.key in {"bootindex", "share-rw"})
USB_KEYS: tuple[Key, ...] = (*BLOCK_KEYS, REMOVABLE)
FLOPPY_KEYS: tuple[Key, ...] = (SHARE,)
VHOST_USER_BLK_KEYS: tuple[Key, ...] = (
    Key(key="bootindex", hole="boot_order", read=boot_order), *VIRTIO_KEYS,
    Key(key="num-queues", hole="queues", read=not_zero),
    Key(key="queue-size", hole="queue_size", read=not_zero, since=(7, 8)),
    Key(key="acpi-index", hole="acpi_index", read=not_zero, since=(7, 3)),
    Key(key="config-wce", hole=None, read=only_if("on"), outcome=Outcome.IMPLIED),
)
