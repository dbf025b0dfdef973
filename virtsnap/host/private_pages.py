"""Which pages of a file of RAM a guest has written to since QEMU mapped it privately.

What the guest writes there becomes memory of QEMU's own, page by page; all
else still is the file's. The kernel tells the two apart in /proc/PID/pagemap
(Documentation/admin-guide/mm/pagemap.rst): of a page that is there or swapped
out, bit 61 says that it is a file's. To be told takes the right to trace QEMU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.file_copies import Piece
from virtsnap.host.qemu_process import find_qemu

_ENTRY_BYTES = 8
_THERE, _OF_A_FILE = 0xC0, 0x20  # in the highest byte of an entry: bits 63 or 62, and 61
_IS_OWN = bytes(byte & _THERE != 0 and byte & _OF_A_FILE == 0 for byte in range(256))
_OWN = re.compile(b"\1+")


def private_pages(uuid: str, *, path: str, size_bytes: int) -> list[Piece]:
    """Give what of the RAM file `path` a domain's QEMU has of its own, as (first byte, byte after the last).

    Of a running guest it is a guess: it writes on. On failure: HypervisorError, also where it is not mapped whole.
    """
    pid = find_qemu(uuid)
    if pid is None:
        raise HypervisorError("its QEMU process is not in sight")
    page = os.sysconf("SC_PAGE_SIZE")
    found: list[Piece] = []
    try:
        mapped = sorted(_mappings(pid, path))
        if not _is_whole(mapped, size_bytes):
            raise HypervisorError(f"its QEMU process has not mapped {path} whole")
        with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
            for offset, address, length in mapped:
                count = length // page * _ENTRY_BYTES
                entries = os.pread(pagemap.fileno(), count, address // page * _ENTRY_BYTES)
                if len(entries) != count:
                    raise HypervisorError("the kernel does not say which pages of its RAM are its own")
                highest = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_IS_OWN)
                runs = (run.span() for run in _OWN.finditer(highest))
                found += [(offset + first * page, offset + end * page) for first, end in runs]
    except OSError as exc:
        raise HypervisorError(f"its QEMU process may not be looked into ({exc.strerror})",
                              hint="be root, or the user that QEMU runs as") from exc
    return found


def _mappings(pid: int, path: str) -> Iterator[tuple[int, int, int]]:
    """Give each mapping of a file: where in the file it begins, its address and its length, in bytes."""
    name = Path(path).name
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
        # first-last rights offset device inode path; by the last part alone, as another mount namespace names it
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].removesuffix(" (deleted)").rpartition("/")[2] == name:
            first, last = (int(address, 16) for address in fields[0].split("-"))
            yield int(fields[2], 16), first, last - first


def _is_whole(mapped: list[tuple[int, int, int]], size_bytes: int) -> bool:
    end = 0
    for offset, _, length in mapped:
        if offset != end:
            return False
        end += length
    return end == size_bytes
