"""/proc/PID/maps becomes values: what a process has mapped, where, and of which file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A piece of a process's memory: address and length in bytes, rights as in `r-xp`, and the file that it is of.

    `offset` is where in the file it begins; `name` is the last part of the file's path, or empty.
    """

    address: int
    length: int
    rights: str
    offset: int
    name: str


def mappings(pid: int) -> Iterator[Mapping]:
    """Give what a process has mapped, in the order of the addresses; on failure: OSError."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
        # first-last rights offset device inode path
        addresses, rights, offset, _, _, *path = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in addresses.split("-"))
        yield Mapping(address=first, length=last - first, rights=rights, offset=int(offset, 16),
                      name=file_name(path[0] if path else ""))


def file_name(path: str) -> str:
    """Give the last part of a file's path as the kernel tells it.

    By that part alone a file is known here: a process in another mount namespace may have its folder under
    another name.
    """
    return path.rpartition("/")[2].removesuffix(" (deleted)")
