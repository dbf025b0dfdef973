"""libvirt's memory image: its first bytes become a verdict; its definition, and what its stream says, are changed.

The file of an external snapshot's memory has the format of `virsh save`
(libvirt's src/qemu/qemu_saveimage.h): magic, five 32-bit words, padding to 92
bytes, the definition with a cookie, then QEMU's migration stream.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from virtsnap.errors import HypervisorError
from virtsnap.host.files import HypervisorFiles, unfinished
from virtsnap.host.qemu_stream import Bytes, read_setup

_MAGIC = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"  # libvirt writes this first and the other magic when all is on disk
_HEADER_BYTES = 92
_WORDS_BYTES = 36  # of it; the rest is zeros
_VERSION = 2  # QEMU_SAVE_VERSION, the only one since libvirt 0.9
_QEMU_MAGIC = b"QEVM"
_RAW = 0
_ROOM = 1 << 16  # libvirt leaves as much for a longer definition
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
            head = _read_head(image)
            new, new_cookie_at = _data(change(head.xml), head.cookie)
            data_bytes = head.data_bytes
            stream = image.read(len(_QEMU_MAGIC) + _MOST_OF_SETUP)
            source = Bytes(stream)
            setup = read_setup(source)
            if not setup.is_marked and len(new) <= data_bytes:
                header = head.changed(data_bytes, new_cookie_at, runs=runs)
                image.seek(0)
                image.write(header + new.ljust(data_bytes, b"\0"))
                return
            new = new.ljust(len(new) + _ROOM, b"\0")
            rest = stream[source.at :] + image.read()
            owner = os.fstat(image.fileno())
        beside = Path(unfinished(path))
        beside.unlink(missing_ok=True)
        beside.touch(mode=0o600, exist_ok=False)
        with beside.open("wb") as written:
            written.write(head.changed(len(new), new_cookie_at, runs=runs) + new)
            written.write(setup.without_marks + rest)
            if os.geteuid() == 0:
                os.fchown(written.fileno(), owner.st_uid, owner.st_gid)
        beside.replace(path)
    except (OSError, struct.error, ValueError, IndexError) as exc:
        raise HypervisorError(f"{path}: the memory image cannot be changed: {exc}") from exc


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What comes before the stream: libvirt's words, the definition, and a cookie of libvirt's own, or nothing."""

    words: bytes
    xml: str
    cookie: bytes

    @property
    def data_bytes(self) -> int:
        """Give how many bytes definition, cookie and padding take."""
        return int(struct.unpack_from("<I", self.words, 20)[0])

    def changed(self, data_bytes: int, cookie_at: int, *, runs: bool) -> bytes:
        """Write the words for another definition."""
        version = struct.unpack_from("<I", self.words, 16)[0]
        return _words(data_bytes, cookie_at, runs=runs, version=version) + self.words[_WORDS_BYTES:]


def _words(data_bytes: int, cookie_at: int, *, runs: bool, version: int = _VERSION) -> bytes:
    return struct.pack("<16s5I", _MAGIC, version, data_bytes, runs, _RAW, cookie_at)


def _data(xml: str, cookie: bytes) -> tuple[bytes, int]:
    """Write definition and cookie, and give where the cookie begins, 0 where there is none."""
    text = xml.encode() + b"\0"
    return text + cookie, len(text) if cookie else 0


def _read_head(image: BinaryIO) -> _Head:
    """Read an image up to its stream; on failure: HypervisorError for what is no plain image."""
    words = image.read(_HEADER_BYTES)
    magic, _, data_bytes, _, compressed, cookie_at = struct.unpack_from("<16s5I", words)
    if magic != _MAGIC or compressed != _RAW:
        raise HypervisorError(
            f"{image.name}: is compressed, or no memory image; the RAM beside it needs a plain one",
            hint="leave snapshot_image_format in qemu.conf at raw",
        )
    data = image.read(data_bytes)
    cookie = data[cookie_at:].partition(b"\0")[0] + b"\0" if cookie_at else b""
    return _Head(words=words, xml=data.partition(b"\0")[0].decode(), cookie=cookie)


def read_definition(path: str) -> str:
    """Give the definition in a memory image on this machine; on failure: HypervisorError."""
    try:
        with Path(path).open("rb") as image:
            return _read_head(image).xml
    except (OSError, struct.error, ValueError) as exc:
        raise HypervisorError(f"{path}: the memory image cannot be read: {exc}") from exc


@contextlib.contextmanager
def new_image(path: str, *, xml: str, cookie: str | None) -> Iterator[BinaryIO]:
    """Make a private memory image with this definition and libvirt's cookie; the block writes the stream.

    Until the block is done the image says, as libvirt's own do, that it is partial; where it fails there is none.
    On failure: HypervisorError, OSError.
    """
    data, cookie_at = _data(xml, b"" if cookie is None else cookie.encode() + b"\0")
    data = data.ljust(len(data) + _ROOM, b"\0")
    words = _words(len(data), cookie_at, runs=True).ljust(_HEADER_BYTES, b"\0")
    made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(made, "wb") as image:
            image.write(_PARTIAL + words[len(_PARTIAL) :] + data)
            yield image
            image.seek(0)
            image.write(_MAGIC)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


def stream_start(data: bytes | mmap.mmap) -> int:
    """Give where QEMU's stream begins in an image; on failure: ValueError for a compressed or an alien one."""
    magic, _, data_bytes, _, compressed, _ = struct.unpack_from("<16s5I", data)
    begin: int = _HEADER_BYTES + data_bytes
    if magic != _MAGIC or compressed != _RAW or data[begin : begin + 4] != _QEMU_MAGIC:
        raise ValueError("it is compressed, or no memory image")
    return begin
