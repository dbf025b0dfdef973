"""The header of a qcow2 file becomes what a chain check needs: size, backing file, its format.

Read here and not by qemu-img: a process for each layer costs 20 ms, and
qemu-img wants a lock on a file that a guest has open.
Format: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from virtsnap.errors import UnsupportedError
from virtsnap.host.files import HypervisorFiles

_MAGIC = b"QFI\xfb"
_BACKING_FORMAT = 0xE2792ACA
_HEADER_V2 = struct.Struct(">4sIQIIQ")  # magic, version, backing offset, backing length, cluster bits, size
_INCOMPATIBLE_OFFSET = 72
_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1, 2, 4
_MAX_BACKING_BYTES = 1023
_HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Qcow2Header:
    """What a qcow2 header says. `backing_path` is as written in the file: it may be relative."""

    virtual_bytes: int
    backing_path: str | None
    backing_format: str | None
    is_corrupt: bool


def read_qcow2_header(files: HypervisorFiles, path: str) -> Qcow2Header | None:
    """Read the header; None where the file is not qcow2.

    On failure: UnsupportedError for a header that is damaged or uses what virtsnap cannot follow (an
    external data file, a `json:` backing name); HypervisorError where the file cannot be read.
    """
    head = files.read(path, offset=0, count=_HEAD_BYTES)
    if head[:4] != _MAGIC:
        return None
    if len(head) < _HEADER_V2.size:
        raise UnsupportedError(f"{path}: its qcow2 header is cut short")
    _, version, name_at, name_bytes, _, virtual_bytes = _HEADER_V2.unpack_from(head)
    if version not in (2, 3):
        raise UnsupportedError(f"{path}: qcow2 version {version} is not known")
    incompatible = 0
    header_bytes = 72
    if version == 3:
        incompatible, = struct.unpack_from(">Q", head, _INCOMPATIBLE_OFFSET)
        header_bytes, = struct.unpack_from(">I", head, 100)
    if incompatible & _EXTERNAL_DATA:
        raise UnsupportedError(f"{path}: has an external data file, which a snapshot would not keep")
    backing: str | None = None
    if name_at:
        if name_bytes > _MAX_BACKING_BYTES:
            raise UnsupportedError(f"{path}: the name of its backing file is damaged")
        end = name_at + name_bytes
        name = head[name_at:end] if end <= len(head) else files.read(path, offset=name_at, count=name_bytes)
        try:
            backing = name.decode()
        except UnicodeDecodeError as exc:
            raise UnsupportedError(f"{path}: the name of its backing file is not UTF-8") from exc
        if backing.startswith("json:"):
            raise UnsupportedError(f"{path}: its backing file is a json: description")
        backing = backing.removeprefix("file:")
    return Qcow2Header(
        virtual_bytes=virtual_bytes,
        backing_path=backing,
        backing_format=_backing_format(head, header_bytes) if backing else None,
        is_corrupt=bool(incompatible & _CORRUPT),
    )


def _backing_format(head: bytes, at: int) -> str | None:
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            return None
        if kind == _BACKING_FORMAT:
            return head[at + 8 : at + 8 + length].decode(errors="replace")
        at += 8 + (length + 7) // 8 * 8
    return None
