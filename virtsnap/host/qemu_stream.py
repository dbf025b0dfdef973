"""The beginning of QEMU's migration stream becomes a table of its RAM blocks, from a file or as it arrives.

Magic, version, the configuration of the machine, then the RAM's section, whose
first part names the blocks (QEMU's migration/savevm.c and ram.c). What comes
then are parts of that section with pages, each with its address in its block,
and the sections of the devices.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

PAGE = 4096
# Kinds of sections, and what ends one
SECTION_START, PART, LAST_PART = 0x01, 0x02, 0x03
SUBSECTION, CONFIGURATION, COMMAND, FOOTER = 0x05, 0x07, 0x08, 0x7E
# Flags of a page, in the low bits of its address
ZERO_PAGE, WHOLE_PAGE, END_OF_PART, SAME_BLOCK = 0x02, 0x08, 0x10, 0x20
NUMBER = struct.Struct(">Q")


class Source(Protocol):
    """Where a stream is read from, a few bytes at a time."""

    def take(self, count: int) -> bytes:
        """Read exactly so many bytes; on failure: IndexError where the stream ends before."""
        ...

    def peek(self) -> int:
        """Give the next byte and leave it there; on failure: IndexError at the end of the stream."""
        ...


class Bytes:
    """A stream that is there whole. `at` is where it is read from."""

    def __init__(self, data: bytes | mmap.mmap, at: int = 0) -> None:
        self._data, self.at = data, at

    def take(self, count: int) -> bytes:
        """See Source."""
        found = self._data[self.at : self.at + count]
        if len(found) < count:
            raise IndexError("the stream is cut short")
        self.at += count
        return found

    def peek(self) -> int:
        """See Source."""
        return self._data[self.at]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The beginning of a stream: the number of the RAM's section and its blocks (name → bytes).

    `without_marks` is that beginning as a stream has it whose QEMU did not leave shared RAM out, which
    `is_marked` one did, and told its peer nothing. `has_footers` says whether each section ends with one.
    """

    section: int
    names: Mapping[str, int]
    is_marked: bool
    has_footers: bool
    without_marks: bytes

    def end_of_part(self) -> bytes:
        """Give what ends a part of the RAM's section."""
        footer = struct.pack(">BI", FOOTER, self.section) if self.has_footers else b""
        return NUMBER.pack(END_OF_PART) + footer

    def last_part(self) -> bytes:
        """Give a last part of the RAM's section, without a page."""
        return struct.pack(">BI", LAST_PART, self.section) + self.end_of_part()


def read_setup(source: Source) -> Setup:
    """Read the beginning of a stream, up to the first part with pages.

    The configuration has subsections, among them the capabilities that both sides must have; commands to the
    peer, such as to open a way back, may come next; then the RAM's setup, which gives each block its name, its
    length and, only with that capability, its address; then, since QEMU 2.5, a footer.
    On failure: ValueError, struct.error or IndexError for what is not understood.
    """
    kept = bytearray(source.take(8))
    marked = False
    if source.peek() != CONFIGURATION:
        raise ValueError("its stream has no configuration")
    head = source.take(5)
    kept += head + source.take(struct.unpack_from(">I", head, 1)[0])
    while source.peek() in (SUBSECTION, COMMAND):
        if source.take(1)[0] == COMMAND:
            source.take(struct.unpack_from(">H", source.take(4), 2)[0])
            continue
        name = source.take(source.take(1)[0])
        version = source.take(4)
        if name == b"configuration/capabilities":
            count = struct.unpack(">I", source.take(4))[0]
            capabilities = [source.take(source.take(1)[0]) for _ in range(count)]
            if capabilities != [b"x-ignore-shared"]:
                raise ValueError(f"its stream needs {capabilities}")
            marked = True
        elif name == b"configuration/target-page-bits":
            kept += bytes([SUBSECTION, len(name)]) + name + version + source.take(4)
        else:
            raise ValueError(f"its stream has {name!r}")
    begin = source.take(9)
    if begin[0] != SECTION_START or begin[5:] != b"\x03ram":
        raise ValueError("its stream does not begin with the RAM")
    versions, total = source.take(8), source.take(8)
    kept += begin + versions + total
    left = NUMBER.unpack(total)[0] & -PAGE
    names = {}
    while left > 0:
        length = source.take(1)
        name, size = source.take(length[0]), source.take(8)
        names[name.decode()] = NUMBER.unpack(size)[0]
        left -= names[name.decode()]
        kept += length + name + size
        if marked:
            source.take(8)
    if left or NUMBER.unpack(source.take(8))[0] != END_OF_PART:
        raise ValueError("the setup of the RAM in its stream is not understood")
    setup = Setup(section=struct.unpack_from(">I", begin, 1)[0], names=names, is_marked=marked,
                  has_footers=source.peek() == FOOTER, without_marks=b"")
    end = setup.end_of_part()
    source.take(len(end) - NUMBER.size)
    return replace(setup, without_marks=bytes(kept) + end)
