"""A memory image that holds all RAM becomes a small one, and a file that is the RAM of one block.

QEMU's stream (migration/ram.c) carries RAM as pages, each with its address in
its block, in sections of their own before those of the devices. The pages of
one block are put into a file where they belong; all else is copied as it is,
and stays a stream that QEMU loads, which then leaves that block alone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.file_copies import copy_data
from virtsnap.host.files import unfinished
from virtsnap.host.memory_image import stream_start
from virtsnap.host.qemu_stream import (
    COMMAND,
    END_OF_PART,
    FOOTER,
    LAST_PART,
    NUMBER,
    PAGE,
    PART,
    SAME_BLOCK,
    WHOLE_PAGE,
    ZERO_PAGE,
    Bytes,
    Setup,
    read_setup,
)

_MOST_AT_ONCE = 512  # pages in one writev; Linux takes 1024


def split_image(
    path: str, *, block: str, size_bytes: int, to: str, owner: tuple[int, int] | None, base: str | None = None
) -> int:
    """Move the RAM `block` out of a memory image into the new private file `to`; give the bytes that it holds.

    Pages that the image lacks come from the file `base`, of the same size, and are zeros where there is none.
    Doing it again where it was cut off, or was done, is no error: `to` is there only when it is whole, and
    the image is replaced after that.
    On failure: HypervisorError, and the image is as it was.
    """
    made = Path(unfinished(to))
    try:
        with Path(path).open("rb") as image:
            # Not closed: it could not be while a traceback holds a view of it
            data = mmap.mmap(image.fileno(), 0, prot=mmap.PROT_READ)
            source = Bytes(data, stream_start(data))
            setup = read_setup(source)
            if setup.names.get(block) != size_bytes:
                raise ValueError(f"it has no RAM {block} of {size_bytes} bytes")
            made.unlink(missing_ok=True)
            made.touch(mode=0o600)
            with made.open("rb+", buffering=0) as ram:
                os.ftruncate(ram.fileno(), size_bytes)
                if owner is not None and os.geteuid() == 0:
                    os.fchown(ram.fileno(), *owner)
                if base is not None:
                    _copy(base, ram.fileno())
                mover = _Mover(memoryview(data), block=block, ram=ram.fileno(), pages=size_bytes // PAGE,
                               is_empty=base is None)
                moved = mover.move(setup, source.at)
                held = os.fstat(ram.fileno()).st_blocks * 512
            if moved.pages == 0:
                made.unlink()
                if Path(to).exists():
                    return Path(to).stat().st_blocks * 512
                raise ValueError(f"no page of {block} is in it")
            made.replace(to)
            small = Path(unfinished(path))
            small.unlink(missing_ok=True)
            small.touch(mode=0o600)
            with small.open("wb") as written:
                written.write(data[: source.at])
                written.write(moved.kept)
                written.write(data[moved.rest :])
                if os.geteuid() == 0:
                    like = os.fstat(image.fileno())
                    os.fchown(written.fileno(), like.st_uid, like.st_gid)
            small.replace(path)
            return held
    except (OSError, struct.error, ValueError, IndexError) as exc:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
        raise HypervisorError(f"{path}: the RAM cannot be taken out of the memory image: {exc}",
                              hint="`virtsnap save --engine libvirt` leaves it in") from exc


def _copy(base: str, ram: int) -> None:
    with Path(base).open("rb") as given:
        if os.fstat(given.fileno()).st_size != os.fstat(ram).st_size:
            raise ValueError(f"{base} has another size")
        copy_data(given.fileno(), ram)


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """What is left of the RAM's sections, where the devices' begin, and how many pages were moved."""

    kept: bytes
    rest: int
    pages: int


class _Mover:
    """Goes through the sections of the RAM, page by page."""

    def __init__(self, data: memoryview, *, block: str, ram: int, pages: int, is_empty: bool) -> None:
        self._data, self._block, self._ram = data, block.encode(), ram
        # Where something may be that a page of zeros has to replace
        self._there = bytearray(pages) if is_empty else bytearray(b"\1") * pages
        self._kept = bytearray()
        self._pages = 0

    def move(self, setup: Setup, begin: int) -> _Moved:
        """Go through all sections; on failure: ValueError for what is not understood."""
        data, at, name = self._data, begin, b""
        while True:
            kind = data[at]
            if kind == COMMAND:  # a word from source to target, since QEMU 10: number, length, contents
                end = at + 5 + struct.unpack_from(">H", data, at + 3)[0]
                self._kept += data[at:end]
                at = end
                continue
            if kind not in (PART, LAST_PART) or struct.unpack_from(">I", data, at + 1)[0] != setup.section:
                raise ValueError(f"a section of kind {kind} among those of the RAM")
            self._kept += data[at : at + 5]
            at, name = self._move_pages(at + 5, name)
            if data[at] == FOOTER:
                self._kept += data[at : at + 5]
                at += 5
            if kind == LAST_PART:
                return _Moved(kept=bytes(self._kept), rest=at, pages=self._pages)

    def _move_pages(self, at: int, name: bytes) -> tuple[int, bytes]:
        data, block, unpack = self._data, self._block, NUMBER.unpack_from
        there, start = self._there, 0
        pieces: list[memoryview] = []
        write: Callable[[list[memoryview], int], None] = self._write
        while True:
            word = unpack(data, at)[0]
            flags, address = word & (PAGE - 1), word & -PAGE
            begun = at
            at += 8
            if flags == END_OF_PART:
                break
            if not flags & SAME_BLOCK:
                length = data[at]
                name = bytes(data[at + 1 : at + 1 + length])
                at += 1 + length
            kind = flags & ~SAME_BLOCK
            if kind == WHOLE_PAGE:
                size = PAGE
            elif kind == ZERO_PAGE:
                size = 1
            else:
                raise ValueError(f"a page with the flags {flags:#x}")
            page, at = at, at + size
            if name != block:
                self._kept += data[begun:at]
                continue
            self._pages += 1
            number = address // PAGE
            if kind == ZERO_PAGE:
                if there[number]:
                    write(pieces, start)
                    pieces = []
                    write([memoryview(bytes(PAGE))], address)
                continue
            there[number] = 1
            if not pieces or address != start + len(pieces) * PAGE or len(pieces) == _MOST_AT_ONCE:
                write(pieces, start)
                pieces, start = [], address
            pieces.append(data[page:at])
        write(pieces, start)
        self._kept += data[begun:at]
        return at, name

    def _write(self, pieces: list[memoryview], start: int) -> None:
        if pieces:
            count = os.pwritev(self._ram, pieces, start)
            if count != sum(map(len, pieces)):
                raise OSError(0, "the RAM file could not be written whole")
