"""The first bytes of libvirt's memory image become a verdict: whole, or what is wrong with it.

The file of an external snapshot's memory has the format of `virsh save`
(libvirt's src/qemu/qemu_saveimage.h): magic, five 32-bit words, padding to 92
bytes, the definition with a cookie, then QEMU's migration stream.
"""

from __future__ import annotations

import struct

from virtsnap.host.files import HypervisorFiles

_MAGIC = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"  # libvirt writes this first and the other magic when all is on disk
_HEADER_BYTES = 92
_QEMU_MAGIC = b"QEVM"
_RAW = 0


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
