"""The header of a qcow2 file becomes what a chain check needs; a size and a file under it, an empty overlay.

Here and not by qemu-img: a process for each layer costs 7 to 20 ms, within a
load, and qemu-img wants a lock on a file that a guest has open.
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
# What `qemu-img create` makes as well: version 3, clusters of 64 KiB, reference counts of 16 bits
_CLUSTER_BITS, _REFCOUNT_ORDER = 16, 4
_CLUSTER = 1 << _CLUSTER_BITS
_HEADER_V3 = struct.Struct(">4sIQIIQIIQQIIQQQQII")


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


def empty_overlay(*, virtual_bytes: int, backing_path: str, backing_format: str) -> tuple[dict[int, bytes], int]:
    """Give what stands where in an empty qcow2 file over another, and how long that file is.

    A cluster each for the header, the table of reference counts and the only block of them; then the L1 table,
    which is all zeros, a hole: nothing is allocated. On failure: UnsupportedError for a name that is too long.
    """
    name = backing_path.encode()
    if len(name) > _MAX_BACKING_BYTES:
        raise UnsupportedError(f"{backing_path}: the name is too long for a backing file")
    virtual_bytes = -(-virtual_bytes // 512) * 512
    entries = -(-virtual_bytes // (_CLUSTER * _CLUSTER // 8))
    clusters = 3 + -(-entries * 8 // _CLUSTER)
    kind = backing_format.encode()
    extensions = struct.pack(">II", _BACKING_FORMAT, len(kind)) + kind + bytes(-len(kind) % 8) + bytes(8)
    header = _HEADER_V3.pack(
        _MAGIC, 3, _HEADER_V3.size + len(extensions), len(name), _CLUSTER_BITS, virtual_bytes, 0,
        entries, 3 * _CLUSTER, _CLUSTER, 1, 0, 0, 0, 0, 0, _REFCOUNT_ORDER, _HEADER_V3.size,
    )
    return {
        0: header + extensions + name,
        _CLUSTER: struct.pack(">Q", 2 * _CLUSTER),
        2 * _CLUSTER: struct.pack(">H", 1) * clusters,
    }, clusters * _CLUSTER


def _backing_format(head: bytes, at: int) -> str | None:
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            return None
        if kind == _BACKING_FORMAT:
            return head[at + 8 : at + 8 + length].decode(errors="replace")
        at += 8 + (length + 7) // 8 * 8
    return None
