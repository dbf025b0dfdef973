"""Shared folders: 9p (-fsdev with its -device, -virtfs) and virtiofs become <filesystem>.

9p has its folder in -fsdev and its name for the guest in -device; -virtfs
says both at once. virtiofs has a daemon behind a socket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from virtsnap.command_line.keyval import join_commas
from virtsnap.convert.build import build_device, bus_of
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.buses.pci_keys import ACPI_KEYS
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.consoles.chardevs import Holes, can_have, find_chardev, read_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import boot_order
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.passed.passed_paths import absolute_paths
from virtsnap.convert.rows import Key, Table, read_keys, virtio, virtio_model
from virtsnap.convert.values import number, one_of, present_if_on

# libvirt's squash is QEMU's none (qemuBuildFSStr in libvirt's qemu_command.c).
_access_mode = one_of({
    "passthrough": "passthrough", "mapped": "mapped", "mapped-xattr": "mapped", "none": "squash",
})
_write_policy = one_of({"immediate": "immediate"})
# `warn` is QEMU's default, so nothing need be said (enum virDomainFSMultidevs).
_multidevs = one_of({"remap": "remap", "forbid": "forbid", "warn": "warn"})


def _mode(value: str) -> str:
    """Give permission bits as libvirt does: octal, with a leading zero."""
    if not re.fullmatch(r"0?[0-7]{1,3}", value):
        raise NotSayable(f"{value!r} is not an octal mode")
    return f"{int(value, 8):04o}"


FOLDER_KEYS: tuple[Key, ...] = (
    Key(key="fsdriver", hole="driver_type", read=lambda value: None if value == "local" else value),
    Key(key="path", hole="dir"),
    Key(key="security_model", hole="accessmode", read=_access_mode),
    Key(key="writeout", hole="wrpolicy", read=_write_policy),
    Key(key="readonly", hole="readonly", read=present_if_on),
    Key(key="fmode", hole="fmode", read=_mode, since=(6, 10)),
    Key(key="dmode", hole="dmode", read=_mode, since=(6, 10)),
    Key(key="multidevs", hole="multidevs", read=_multidevs, since=(6, 3)),
)
TAG_KEY = Key(key="mount_tag", hole="tag")
VIRTFS_KEYS: tuple[Key, ...] = (*FOLDER_KEYS, TAG_KEY)

# What -fsdev and -virtfs say besides; everything else has no word in libvirt.
_NAMES = frozenset({"id"})


def _sayable(draft: Draft, word: Word | None, keys: Sequence[Key]) -> bool:
    """Tell, without claiming anything, whether libvirt has a word for all that a shared folder says."""
    if word is None or word.peek("fsdriver") not in {"local", "handle"}:
        return False
    rows = {row.key: row for row in keys if draft.target >= row.since}
    for item in word.properties:
        if item.key in _NAMES:
            continue
        if item.key not in rows:
            word.note(f"{item.key}: libvirt has no word for it")
            return False
        try:
            rows[item.key].read(item.value)
        except NotSayable as exc:
            word.note(f"{item.key}: {exc}")
            return False
    return bool(word.peek("path"))


def _read_folder(draft: Draft, word: Word, keys: Sequence[Key]) -> Holes:
    """Take what -fsdev or -virtfs says of the folder."""
    holes: Holes = dict(read_keys(word, keys, draft.target))
    word.claim("id", Outcome.IMPLIED)
    holes["dir"] = draft.in_base(holes["dir"] or "")
    holes.setdefault("accessmode", "passthrough")
    if holes.get("wrpolicy"):
        holes.setdefault("driver_type", "path")
    return holes


def _build_9p(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join virtio-9p with its -fsdev; both stay QEMU's where libvirt cannot say one of them."""
    folder = draft.find(word.peek("fsdev"), "fsdev")
    if folder is None or not word.peek("mount_tag") or not _sayable(draft, folder, FOLDER_KEYS):
        return
    word.claim("fsdev", Outcome.MAPPED)
    element = build_device(draft, word, row, _read_folder(draft, folder, FOLDER_KEYS) | _model(word))
    folder.land(element)


def convert_virtfs(draft: Draft) -> None:
    """Convert -virtfs, which is an -fsdev and a -device virtio-9p in one."""
    for word in draft.group("virtfs"):
        if not word.peek("mount_tag") or not _sayable(draft, word, VIRTFS_KEYS):
            _leave(draft, word)
            continue
        element = draft.fill("filesystem", _read_folder(draft, word, VIRTFS_KEYS))
        draft.add(element, word)
        if bus_of(NINE_P, "virtio-9p", draft) is Bus.PCI:
            draft.pci.add(word, element, plugged=Plugged.DEVICE)


def _leave(draft: Draft, word: Word) -> None:
    """Pass -virtfs on as the two words that it stands for, so that the device can have its slot said."""
    id_ = word.peek("id") or f"virtfs{word.option.first}"
    elsewhere = {"fsdriver", "mount_tag", "id"}
    paths = absolute_paths(draft, word)
    folder = [
        (item.key, paths.get(item.key, item.value)) for item in word.properties if item.key not in elsewhere
    ]
    tag = [("fsdev", id_), ("mount_tag", word.peek("mount_tag") or "")]
    word.passed_as = [
        "-fsdev", f"{word.peek('fsdriver') or 'local'},{join_commas([('id', id_), *folder])}",
        "-device", f"virtio-9p-pci,{join_commas(tag)}",
    ]
    draft.pci.add(word, None, plugged=Plugged.DEVICE)


def _build_virtiofs(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join vhost-user-fs with its socket: the daemon behind it is the user's, as libvirt has it from 6.2 on."""
    chardev = find_chardev(draft, word)
    if chardev is None or not can_have(draft, chardev) or not chardev.has("path"):
        return
    source = read_chardev(draft, chardev)
    assert source is not None, "can_have said so"
    word.claim("chardev", Outcome.MAPPED)
    holes: Holes = {"driver_type": "virtiofs", "accessmode": "passthrough"}
    holes["socket"] = next((child.get("path") for child in source.children if child.tag == "source"), None)
    chardev.note("the daemon must listen on the socket before the domain starts")
    element = build_device(draft, word, row, holes | _model(word))
    chardev.land(element)


def _model(word: Word) -> Holes:
    model = virtio_model(word.peek("driver") or "")
    return {"model": None if model == "virtio" else model}


NINE_P = DeviceRow(
    drivers=virtio("virtio-9p"), template="filesystem", bus=Bus.PCI, build=_build_9p,
    keys=(TAG_KEY, *VIRTIO_KEYS, *ACPI_KEYS),
)
ROWS = (
    NINE_P,
    DeviceRow(
        drivers=virtio("vhost-user-fs"), template="filesystem", bus=Bus.PCI, build=_build_virtiofs, since=(6, 2),
        keys=(
            Key(key="tag", hole="tag"),
            Key(key="queue-size", hole="queue", read=number),
            Key(key="bootindex", hole="boot_order", read=boot_order),
            *VIRTIO_KEYS,
            *ACPI_KEYS,
        ),
    ),
)
TABLES: tuple[Table, ...] = (Table(group="fsdev", keys=FOLDER_KEYS), Table(group="virtfs", keys=VIRTFS_KEYS))
