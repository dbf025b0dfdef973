"""-bios and flash memory become <os><loader> and <nvram>.

The first flash unit holds the firmware's code, the second its variables; a
single unit that may be written holds both. The firmware stays the very file
that the command line names.
"""

from __future__ import annotations

import re

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.firmware_packages import find_build
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.storage.images import Image, drives_of, read_image

# The attribute `format` of <loader> and <nvram> came with libvirt 9.2, `templateFormat` with 10.10,
# `stateless` with 8.6, an <nvram> with a <source> with 8.5.
FORMAT_SINCE, TEMPLATE_FORMAT_SINCE, STATELESS_SINCE, SOURCE_SINCE = (9, 2), (10, 10), (8, 6), (8, 5)
FORMATS = frozenset({"raw", "qcow2"})

# Host-side keys of an image, for which libvirt has its own ways with flash memory.
HOST_KEYS = re.compile(r"(?:file\.)?(?:cache(?:\..*)?|aio|detect-zeroes|discard|auto-read-only|locking)")

PATHS = ("file", "filename", "file.filename")
HOST_NOTE = "libvirt opens images of flash memory in a way of its own"

TABLES = (Table(group="machine", keys=(Key(key="pflash0", hole="loader"), Key(key="pflash1", hole="nvram"))),)


def convert_firmware(draft: Draft) -> None:
    """Write the firmware, where libvirt can say all of it."""
    for word in draft.group("bios"):
        _convert_bios(draft, word)
    machine = next((word for word in reversed(draft.group("machine")) if word.has("pflash0")), None)
    try:
        ids = _flash_ids(draft, machine)
        if 0 not in ids:
            return
        code = read_image(draft, ids[0])
        store = read_image(draft, ids[1]) if 1 in ids else None
        _check(draft, code, store)
    except NotSayable as exc:
        for word in [machine] if machine is not None else draft.group("drive"):
            if machine is not None or word.peek("if") == "pflash":
                word.note(f"flash memory: {exc}")
        return
    _write(draft, code, store)
    code_key = next(((word, key) for word in code.plan.claims.words() for key in PATHS if word.has(key)), None)
    for image in (code, store):
        if image is not None:
            _claim(draft, image)
    if store is not None and not code.readonly and code_key is not None:
        code_key[0].claim(code_key[1], Outcome.SUBSTITUTED, "libvirt protects the firmware from being written")
    if machine is not None:
        machine.claim("pflash0", Outcome.MAPPED)
        machine.claim("pflash1", Outcome.MAPPED)
        machine.land(draft.child("os"))


def _convert_bios(draft: Draft, word: Word) -> None:
    """Read -bios: a path is the ROM's; a bare name is found in QEMU's own folders, which is left to QEMU."""
    name = word.peek("bios") or ""
    if name == "default":
        word.take("bios", Outcome.IMPLIED, "what QEMU takes without a word (riscv_default_firmware_name())")
        return
    if name in ("", "none") or ("/" not in name and not (draft.base / name).is_file()):
        return
    loader = word.take_read("bios", draft.absolute)
    if loader is None:
        return
    holes: dict[str, str | None] = {"loader": loader, "loader_type": "rom"}
    if draft.knows(FORMAT_SINCE):
        holes["loader_format"] = "raw"
    draft.head.put("os", holes, word)


def _flash_ids(draft: Draft, machine: Word | None) -> dict[int, str]:
    """Give the id of the drive or node of each flash unit."""
    ids = {drive.unit: drive.id for drive in drives_of(draft, "pflash")}
    for unit in (0, 1):
        id_ = machine.peek(f"pflash{unit}") if machine is not None else None
        if id_ is not None:
            ids[unit] = id_
    if set(ids) - {0, 1}:
        raise NotSayable("libvirt has two units only")
    return ids


def _check(draft: Draft, code: Image, store: Image | None) -> None:
    if code.path is None:
        raise NotSayable("libvirt wants the firmware in a file")
    for image in (code, store):
        if image is None:
            continue
        if image.source.find("slices") is not None:
            raise NotSayable("libvirt takes the whole of such an image, not a slice")
        if image.format not in FORMATS or "transient" in image.plan.holes:
            raise NotSayable(f"libvirt has no word for such an image ({image.format})")
        if image.format != "raw" and not draft.knows(FORMAT_SINCE):
            raise NotSayable("before 9.2 libvirt takes raw images only")
    if store is not None and store.path is None and not draft.knows(SOURCE_SINCE):
        raise NotSayable("before 8.5 libvirt wants the variables in a file")


def _write(draft: Draft, code: Image, store: Image | None) -> None:
    formats = draft.knows(FORMAT_SINCE)
    readonly = code.readonly or store is not None
    holes: dict[str, str | None] = {
        "loader": code.path, "loader_type": "pflash", "loader_readonly": "yes" if readonly else "no",
        "loader_format": code.format if formats else None,
    }  # fmt: skip
    if store is None:
        holes["loader_stateless"] = "yes" if readonly and draft.knows(STATELESS_SINCE) else None
    else:
        holes["nvram_format"] = store.format if formats else None
        holes |= _template(draft, code, store)
        if store.path is not None and store.type == "file":
            holes["nvram"] = store.path
        else:
            holes["nvram_type"] = store.type
            draft.head.append("os/nvram", store.source)
            if "nvram_format" not in holes:
                holes["nvram_format"] = "raw"
    draft.head.put("os", holes)


def _template(draft: Draft, code: Image, store: Image) -> dict[str, str | None]:
    """Name the store that libvirt copies should the variables be missing, where a distribution has one."""
    build = find_build(code.path or "")
    if store.path is None or build is None:
        return {}
    format_ = code.format if draft.knows(TEMPLATE_FORMAT_SINCE) else None
    return {"nvram_template": build[1], "nvram_template_format": format_}


def _claim(draft: Draft, image: Image) -> None:
    image.claim(draft, draft.child("os"))
    for word in image.plan.claims.words():
        for item in word.properties:
            if HOST_KEYS.fullmatch(item.key):
                word.claim(item.key, Outcome.SUBSTITUTED, HOST_NOTE)
