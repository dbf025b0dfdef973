"""Streams as QEMU writes them: the beginning, and parts with pages."""

from __future__ import annotations

import struct

from virtsnap.host.qemu_stream import END_OF_PART, PAGE, SAME_BLOCK, WHOLE_PAGE, ZERO_PAGE

SECTION = struct.pack(">I", 3)
RAM_PAGES = 16
SIZES = {"virtsnap-ram": RAM_PAGES * PAGE, "vga.vram": 4 * PAGE}
# A word from source to target: that there is a way back, to be opened
COMMAND = b"\x08" + struct.pack(">HH", 1, 0)
# QEMU 10 says so between the sections that it now switches over.
SWITCHOVER = b"\x08" + struct.pack(">HH", 10, 3) + b"\x03\x02\x01"


def text(value: str) -> bytes:
    """Write a word with its length."""
    return bytes([len(value)]) + value.encode()


def content(number: int) -> bytes:
    """Give a page that no other number has."""
    return bytes([number]) * PAGE


def page(number: int, *, block: str | None, data: bytes | None) -> bytes:
    """Write a page as QEMU does: `block` None is the block of the page before, `data` None a page of zeros."""
    flags = (ZERO_PAGE if data is None else WHOLE_PAGE) | (SAME_BLOCK if block is None else 0)
    return struct.pack(">Q", number * PAGE | flags) + (text(block) if block else b"") + (data or b"\0")


def end_of_part() -> bytes:
    """Write what ends a part."""
    return struct.pack(">Q", END_OF_PART) + b"\x7e" + SECTION


def part(kind: int, *pages: bytes) -> bytes:
    """Write a part of the RAM's section: 2 is one of many, 3 the last."""
    return bytes([kind]) + SECTION + b"".join(pages) + end_of_part()


def beginning(*between: bytes) -> bytes:
    """Write magic, version, configuration, what is `between`, and the setup of the RAM."""
    blocks = b"".join(text(block) + struct.pack(">Q", size) for block, size in SIZES.items())
    setup = b"\x01" + SECTION + text("ram") + struct.pack(">IIQ", 0, 4, sum(SIZES.values()) | 4)
    return b"QEVM" + struct.pack(">IBI", 3, 7, 2) + b"pc" + b"".join(between) + setup + blocks + end_of_part()
