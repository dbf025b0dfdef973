"""Which pages of a file of RAM a guest has written to since QEMU mapped it privately.

What the guest writes there becomes memory of QEMU's own, page by page; all
else still is the file's. The kernel tells the two apart in /proc/PID/pagemap
(Documentation/admin-guide/mm/pagemap.rst): of a page that is there or swapped
out, bit 61 says that it is a file's. To be told takes the right to trace QEMU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.file_copies import Piece
from virtsnap.host.process_maps import Mapping, mappings
from virtsnap.host.qemu_process import looked_into

_ENTRY_BYTES = 8
_THERE, _OF_A_FILE = 0xC0, 0x20  # in the highest byte of an entry: bits 63 or 62, and 61
_IS_OWN = bytes(byte & _THERE != 0 and byte & _OF_A_FILE == 0 for byte in range(256))
_OWN = re.compile(b"\1+")


def private_pages(uuid: str, *, path: str, size_bytes: int) -> list[Piece]:
    """Give what of the RAM file `path` a domain's QEMU has of its own, as (first byte, byte after the last).

    Of a running guest it is a guess: it writes on. On failure: HypervisorError, also where it is not mapped whole.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    found: list[Piece] = []
    with looked_into(uuid) as pid:
        of_it = (each for each in mappings(pid) if each.name == Path(path).name)
        mapped = sorted(of_it, key=lambda each: each.offset)
        if not _is_whole(mapped, size_bytes):
            raise HypervisorError(f"its QEMU process has not mapped {path} whole")
        with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
            for each in mapped:
                count = each.length // page * _ENTRY_BYTES
                entries = os.pread(pagemap.fileno(), count, each.address // page * _ENTRY_BYTES)
                if len(entries) != count:
                    raise HypervisorError("the kernel does not say which pages of its RAM are its own")
                highest = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_IS_OWN)
                runs = (run.span() for run in _OWN.finditer(highest))
                found += [(each.offset + first * page, each.offset + end * page) for first, end in runs]
    return found


def _is_whole(mapped: Sequence[Mapping], size_bytes: int) -> bool:
    end = 0
    for each in mapped:
        if each.offset != end:
            return False
        end += each.length
    return end == size_bytes
