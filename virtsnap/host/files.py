"""What is asked of a hypervisor's files, wherever they are: one interface, held by a `Host`.

`local_files` answers it for files on this machine, `volume_files` by libvirt's
calls for files that may be anywhere. Paths are the hypervisor's own, as its
definitions name them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from virtsnap.domain_xml.beside_disks import StatePlace


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a look at a file tells without reading it. `held_bytes` is what it takes on disk.

    A block device has neither: its times say nothing about what was written to it, so they are 0.
    """

    size_bytes: int
    held_bytes: int
    mtime_ns: int
    uid: int
    gid: int
    is_device: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file of a disk's chain. `digest` is of its contents (`digest_of`), None where nobody read them."""

    path: str
    format: str
    size_bytes: int
    mtime_ns: int
    virtual_bytes: int
    digest: str | None = None


def new_digest() -> hashlib.blake2b:
    """Begin a digest of contents.

    BLAKE2b, because it is the fastest of hashlib's on processors without SHA instructions (0.9 GB/s).
    """
    return hashlib.blake2b(digest_size=16)


class HypervisorFiles(Protocol):
    """The files of a hypervisor: looked at, made, removed.

    Every method raises HypervisorError where the file or folder cannot be
    reached, and says so by its path.
    """

    # Looking

    def facts_of(self, path: str) -> FileFacts | None:
        """Look at a regular file or a block device; None where there is none.

        On failure: UnsupportedError for something else of that name, HypervisorError for a folder that
        cannot be searched.
        """
        ...

    def exists(self, path: str) -> bool:
        """Say whether there is something that QEMU could open, a device too."""
        ...

    def is_taken(self, path: str) -> bool:
        """Say whether anything has that name, a broken link too."""
        ...

    def is_in_use(self, path: str) -> bool:
        """Say whether QEMU is known to have an image open."""
        ...

    def files_in(self, folder: str) -> tuple[str, ...]:
        """Name the files in a folder; none where there is no such folder, or it cannot be listed."""
        ...

    def folders_in(self, folder: str) -> tuple[str, ...]:
        """Name the folders in a folder, links to folders left out; none where it cannot be listed."""
        ...

    def same_files(self, paths: tuple[str, ...], others: frozenset[str]) -> frozenset[str]:
        """Give those of `paths` that are the same file as one of `others`, by whatever name."""
        ...

    # Reading

    def read(self, path: str, *, offset: int, count: int) -> bytes:
        """Read up to `count` bytes, fewer where the file ends."""
        ...

    def digest_of(self, path: str) -> str:
        """Read a whole file and give the digest of its contents: 32 hex digits of BLAKE2b."""
        ...

    def release(self) -> None:
        """Let go of what looking at files took; the next look takes it again."""
        ...

    # What a domain keeps beside its disks

    def unreachable_state(self, places: Sequence[StatePlace]) -> tuple[str, ...]:
        """Say of each place why it cannot be read and written to; nothing where it can."""
        ...

    def pack_state(self, places: Sequence[StatePlace], archive: str) -> None:
        """Copy what is at the places into a new archive, private and on disk when this returns.

        Needs: nothing changes them meanwhile. On failure there is no archive.
        """
        ...

    def unpack_state(self, archive: str, places: Sequence[StatePlace]) -> None:
        """Put back what an archive holds, and remove what it does not hold. Doing it again does no harm."""
        ...

    def remove_state(self, archive: str) -> None:
        """Remove an archive, and one that was not finished; it is no error when there is none."""
        ...

    # Changing

    def require_writable(self, folder: str) -> None:
        """Raise unless files can be made in `folder`, or in its parent where it is yet to be made."""
        ...

    def make_folder(self, path: str) -> bool:
        """Make a folder for private files, through which QEMU's user can pass; say whether it was made now."""
        ...

    def make_overlay(self, path: str, *, backing_path: str, backing_format: str, virtual_bytes: int,
                     owner: tuple[int, int] | None) -> None:
        """Make an empty qcow2 over a backing file, private, owned by `owner` (uid, gid).

        On success the file is new. On failure there is no file.
        """
        ...

    def make_private(self, path: str) -> None:
        """Take the rights of group and others away, where that can be done."""
        ...

    def sync(self, paths: Iterable[str]) -> None:
        """Have files and the folders that name them written to the disks.

        On failure: UnsupportedError where they cannot be reached; HypervisorError, and nobody knows what a
        crash of the machine would leave.
        """
        ...

    def merge_layers(self, top: str, *, into: str) -> None:
        """Write what is in `top` and every layer between into the file `into`, which is below it in its chain.

        Needs: no guest has any of them open. On success `into` holds what `top` showed; the layers above are
        of no use any more and still there. On failure: HypervisorError; a second try can finish the work.
        """
        ...

    def rebase(self, path: str, *, base: str, base_format: str) -> None:
        """Copy what the layers between a qcow2 and `base` hold into it, and let it stand on `base`.

        Needs: nobody has it open. On failure: HypervisorError, and it shows what it showed.
        """
        ...

    def remove(self, path: str) -> bool:
        """Remove a file; say whether there was one.

        On failure: HypervisorError, and the file is still there.
        """
        ...

    def remove_folder_if_empty(self, path: str) -> None:
        """Remove a folder that nothing is in; anything else is left as it is."""
        ...


def unfinished(path: str) -> str:
    """Name a file that gets its name, or another's, once it is whole."""
    return f"{path}.new"
