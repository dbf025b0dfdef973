"""libvirt's memory image: its first bytes become a verdict; its definition, and what its stream says, are changed.

The file of an external snapshot's memory has the format of `virsh save`
(libvirt's src/qemu/qemu_saveimage.h): magic, five 32-bit words, padding to 92
bytes, the definition with a cookie, then QEMU's migration stream.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.files import HypervisorFiles

_MAGIC = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"  # libvirt writes this first and the other magic when all is on disk
_HEADER_BYTES = 92
_QEMU_MAGIC = b"QEVM"
_RAW = 0
_ROOM = 1 << 16  # libvirt leaves as much for a longer definition
# Of QEMU's stream
_SECTION_START, _SUBSECTION, _CONFIGURATION = 0x01, 0x05, 0x07
_END_OF_SETUP, _FOOTER = 0x10, 0x7E
_MOST_OF_SETUP = 1 << 16


def memory_image_problem(files: HypervisorFiles, path: str) -> str | None:
    """Say what is wrong with a memory image, or None; reads a few bytes only.

    On failure: HypervisorError.
    """
    head = files.read(path, offset=0, count=_HEADER_BYTES)
    if head[:16] == _PARTIAL:
        return "is partial: its save did not finish"
    if head[:16] != _MAGIC or len(head) < _HEADER_BYTES:
        return "is not a memory image of libvirt's"
    _version, data_bytes, _running, compressed, _cookie = struct.unpack_from("<5I", head, 16)
    stream_magic = files.read(path, offset=_HEADER_BYTES + data_bytes, count=4)
    if len(stream_magic) < 4:
        return "is cut short"
    if compressed == _RAW and stream_magic != _QEMU_MAGIC:
        return "has no QEMU stream where its header says"
    return None


def change_image(path: str, change: Callable[[str], str], *, runs: bool) -> None:
    """Change the definition inside a memory image on this machine, and whether the guest ran at the save.

    A stream without the guest's RAM (QEMU's x-ignore-shared) becomes one that any QEMU takes: it says so in
    two places, and such a stream would be refused by a QEMU that is not told before. What is left is an
    ordinary stream in which no page of that RAM occurs. Doing it twice changes nothing more.
    On failure: HypervisorError, and the image is as it was.
    """
    try:
        with Path(path).open("rb+") as image:
            head = image.read(_HEADER_BYTES)
            magic, version, data_bytes, _runs, compressed, cookie_at = struct.unpack_from("<16s5I", head)
            if magic != _MAGIC or compressed != _RAW:
                raise HypervisorError(
                    f"{path}: is compressed, or no memory image; the RAM beside it needs a plain one",
                    hint="leave snapshot_image_format in qemu.conf at raw",
                )
            data = image.read(data_bytes)
            text, _, _ = data.partition(b"\0")
            cookie = data[cookie_at:].partition(b"\0")[0] + b"\0" if cookie_at else b""
            new = change(text.decode()).encode() + b"\0"
            new_cookie_at = len(new) if cookie else 0
            new += cookie
            stream = image.read(len(_QEMU_MAGIC) + _MOST_OF_SETUP)
            setup = read_setup(stream)
            if not setup.is_marked and len(new) <= data_bytes:
                header = _header(version, data_bytes, runs, new_cookie_at, head)
                image.seek(0)
                image.write(header + new.ljust(data_bytes, b"\0"))
                return
            new = new.ljust(len(new) + _ROOM, b"\0")
            rest = stream[setup.end :] + image.read()
            owner = os.fstat(image.fileno())
        beside = Path(f"{path}.new")
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600, exist_ok=False)
        with beside.open("wb") as written:
            written.write(_header(version, len(new), runs, new_cookie_at, head) + new)
            written.write(setup.without_marks + rest)
            if os.geteuid() == 0:
                os.fchown(written.fileno(), owner.st_uid, owner.st_gid)
        beside.replace(path)
    except (OSError, struct.error, ValueError, IndexError) as exc:
        raise HypervisorError(f"{path}: the memory image cannot be changed: {exc}") from exc


def _header(version: int, data_bytes: int, runs: bool, cookie_at: int, head: bytes) -> bytes:
    return struct.pack("<16s5I", _MAGIC, version, data_bytes, runs, _RAW, cookie_at) + head[36:]


def stream_start(data: bytes | mmap.mmap) -> int:
    """Give where QEMU's stream begins in an image; on failure: ValueError for a compressed or an alien one."""
    magic, _, data_bytes, _, compressed, _ = struct.unpack_from("<16s5I", data)
    begin: int = _HEADER_BYTES + data_bytes
    if magic != _MAGIC or compressed != _RAW or data[begin : begin + 4] != _QEMU_MAGIC:
        raise ValueError("it is compressed, or no memory image")
    return begin


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The beginning of a stream: the RAM's section and its blocks (name → bytes); where it ends.

    `without_marks` is that beginning as a stream has it whose QEMU did not leave shared RAM out, which
    `is_marked` one did.
    """

    section: int
    names: Mapping[str, int]
    end: int
    is_marked: bool
    without_marks: bytes


def read_setup(stream: bytes | mmap.mmap, begin: int = 0) -> Setup:
    """Read the beginning of a stream.

    QEMU's migration/savevm.c and ram.c: magic, version, the configuration with its subsections, among them the
    capabilities that both sides must have; then the RAM's setup, which gives each block its name, its length
    and, only with that capability, its address; then, since QEMU 2.5, a footer.
    On failure: ValueError, struct.error or IndexError for what is not understood.
    """
    if stream[begin + 8] != _CONFIGURATION:
        raise ValueError("its stream has no configuration")
    at = begin + 13 + struct.unpack_from(">I", stream, begin + 9)[0]
    kept = bytearray(stream[begin:at])
    marked = False
    while stream[at] == _SUBSECTION:
        length = stream[at + 1]
        name, begun = stream[at + 2 : at + 2 + length], at
        at += 2 + length + 4
        if name == b"configuration/capabilities":
            count = struct.unpack_from(">I", stream, at)[0]
            capabilities = []
            at += 4
            for _ in range(count):
                capabilities.append(stream[at + 1 : at + 1 + stream[at]])
                at += 1 + stream[at]
            if capabilities != [b"x-ignore-shared"]:
                raise ValueError(f"its stream needs {capabilities}")
            marked = True
        elif name == b"configuration/target-page-bits":
            at += 4
            kept += stream[begun:at]
        else:
            raise ValueError(f"its stream has {name!r}")
    if stream[at] != _SECTION_START or stream[at + 5 : at + 9] != b"\x03ram":
        raise ValueError("its stream does not begin with the RAM")
    section = struct.unpack_from(">I", stream, at + 1)[0]
    total = struct.unpack_from(">Q", stream, at + 17)[0]
    kept += stream[at : at + 25]
    at, left = at + 25, total & ~0xFFF
    names = {}
    while left > 0:
        named = at + 1 + stream[at]
        size = struct.unpack_from(">Q", stream, named)[0]
        names[bytes(stream[at + 1 : named]).decode()] = size
        left -= size
        kept += stream[at : named + 8]
        at = named + (16 if marked else 8)
    if left or struct.unpack_from(">Q", stream, at)[0] != _END_OF_SETUP:
        raise ValueError("the setup of the RAM in its stream is not understood")
    tail = 8 + (5 if stream[at + 8] == _FOOTER else 0)
    kept += stream[at : at + tail]
    return Setup(section=section, names=names, end=at + tail, is_marked=marked, without_marks=bytes(kept))
