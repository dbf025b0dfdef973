"""The files of a hypervisor anywhere, by libvirt's storage calls alone: folders are pools, files are volumes.

What these calls cannot do: tell links from what they lead to, see who has a
file open, change the mode of a file. The work of qemu-img is done by
`image_jobs`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import libvirt
from lxml import etree

from virtsnap.domain_xml.beside_disks import StatePlace
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.files import FileFacts, new_digest
from virtsnap.host.image_jobs import merge_by_commit, rebase_by_pull
from virtsnap.host.pools import NoFolderError, Pools, system_errno
from virtsnap.host.translate import translate, translated

_CHUNK_BYTES = 256 * 1024
_HINT = "choose another place with --dir"
# Entries here cannot be looked at one by one; a pool over /dev would probe every disk.
_DEVICES = PurePosixPath("/dev")


class VolumeFiles:
    """See `HypervisorFiles` and the module.

    On failure to construct: UnsupportedError where the hypervisor has no storage driver.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._pools = Pools(handle)
        try:
            handle.numOfStoragePools()
        except libvirt.libvirtError as exc:
            raise UnsupportedError(
                f"{handle.getURI()}: its files can only be reached by libvirt's storage driver, and it has none "
                f"({exc.get_error_message()})",
                hint="install libvirt-daemon-driver-storage there and start libvirtd or virtstoraged; "
                     "where the files are on this machine after all, set VIRTSNAP_FILES=local",
            ) from exc

    # Looking

    def facts_of(self, path: str) -> FileFacts | None:
        """See HypervisorFiles."""
        if _DEVICES in PurePosixPath(path).parents:
            raise UnsupportedError(f"{path}: devices can only be looked at on the hypervisor's own machine")
        found = self._described(path)
        if found is None:
            return None
        if found.get("type") != "file":
            raise UnsupportedError(f"{path}: is not a regular file")
        return FileFacts(
            size_bytes=int(found.findtext("physical") or found.findtext("capacity") or 0),
            held_bytes=int(found.findtext("allocation") or 0),
            mtime_ns=_nanoseconds(found.findtext("target/timestamps/mtime") or "0"),
            uid=int(found.findtext("target/permissions/owner") or 0),
            gid=int(found.findtext("target/permissions/group") or 0),
        )

    def exists(self, path: str) -> bool:
        """See HypervisorFiles. What is in /dev is taken to be there."""
        return _DEVICES in PurePosixPath(path).parents or self._described(path) is not None

    def is_taken(self, path: str) -> bool:
        """See HypervisorFiles. A broken link is not seen."""
        return self._described(path) is not None

    def is_in_use(self, path: str) -> bool:
        """See HypervisorFiles. Never known: what libvirt's own domains use, their definitions say."""
        del path
        return False

    def files_in(self, folder: str) -> tuple[str, ...]:
        """See HypervisorFiles."""
        return self._listed(folder, libvirt.VIR_STORAGE_VOL_FILE)

    def folders_in(self, folder: str) -> tuple[str, ...]:
        """See HypervisorFiles. Links to folders cannot be told from folders."""
        return self._listed(folder, libvirt.VIR_STORAGE_VOL_DIR)

    def same_files(self, paths: tuple[str, ...], others: frozenset[str]) -> frozenset[str]:
        """See HypervisorFiles. Where links lead cannot be seen: files of the same name count as the same."""
        names = {PurePosixPath(other).name for other in others}
        return frozenset(path for path in paths if PurePosixPath(path).name in names)

    # Reading

    def read(self, path: str, *, offset: int, count: int) -> bytes:
        """See HypervisorFiles."""
        return b"".join(self._download(path, offset=offset, count=count))

    def digest_of(self, path: str) -> str:
        """See HypervisorFiles. The whole file comes over the connection."""
        digest: hashlib.blake2b = new_digest()
        for chunk in self._download(path, offset=0, count=0):
            digest.update(chunk)
        return digest.hexdigest()

    # What a domain keeps beside its disks

    def unreachable_state(self, places: Sequence[StatePlace]) -> tuple[str, ...]:
        """See HypervisorFiles. libvirt has no call for any of it."""
        return tuple(f"{place.what} can only be kept on the hypervisor's own machine" for place in places)

    def pack_state(self, places: Sequence[StatePlace], archive: str) -> None:
        """See HypervisorFiles. Refused."""
        raise UnsupportedError(f"{archive}: " + "; ".join(self.unreachable_state(places)))

    def unpack_state(self, archive: str, places: Sequence[StatePlace]) -> None:
        """See HypervisorFiles. Refused."""
        raise UnsupportedError(f"{archive}: " + "; ".join(self.unreachable_state(places)))

    def remove_state(self, archive: str) -> None:
        """See HypervisorFiles."""
        self.remove(archive)

    # Changing

    def require_writable(self, folder: str) -> None:
        """See HypervisorFiles. That a file system is read-only, or full, only a write shows."""
        parent = str(PurePosixPath(folder).parent)
        if not any(self._pools.has_folder(place) for place in (folder, parent)):
            raise HypervisorError(f"{parent}: no such folder", hint=_HINT)

    def make_folder(self, path: str) -> bool:
        """See HypervisorFiles."""
        if self._pools.has_folder(path):
            return False
        try:
            self._pools.make_folder(path)
        except (libvirt.libvirtError, NoFolderError) as exc:
            raise _told(exc, f"{path}: cannot make the folder") from exc
        return True

    def make_overlay(self, path: str, *, backing_path: str, backing_format: str, virtual_bytes: int,
                     owner: tuple[int, int] | None) -> None:
        """See HypervisorFiles."""
        if self.is_taken(path):
            raise HypervisorError(f"{path}: exists already")
        place = PurePosixPath(path)
        xml = _overlay_xml(place.name, backing_path, backing_format, virtual_bytes, owner)
        try:
            self._pools.within(str(place.parent), lambda pool: pool.createXML(xml, 0))
        except (libvirt.libvirtError, NoFolderError) as exc:
            with contextlib.suppress(HypervisorError):
                self.remove(path)
            raise _told(exc, f"{path}: cannot make the overlay") from exc

    def make_private(self, path: str) -> None:
        """See HypervisorFiles. No call of libvirt's changes a mode: it stays as libvirt made the file."""

    def sync(self, paths: Iterable[str]) -> None:
        """See HypervisorFiles. No call of libvirt's does it."""
        del paths
        raise UnsupportedError("no call of libvirt's writes a snapshot's files out to that machine's disks",
                               hint="leave --durable out, or save on that machine itself")

    def merge_layers(self, top: str, *, into: str) -> None:
        """See HypervisorFiles."""
        merge_by_commit(self._handle, top, into=into)

    def rebase(self, path: str, *, base: str, base_format: str) -> None:
        """See HypervisorFiles."""
        del base_format  # the chain says it
        rebase_by_pull(self._handle, path, base=base)

    def remove(self, path: str) -> bool:
        """See HypervisorFiles."""
        try:
            return self._pools.with_volume(path, _delete) is not None
        except libvirt.libvirtError as exc:
            if system_errno(exc) == errno.ENOENT:
                return False
            raise _told(exc, f"{path}: cannot be removed") from exc

    def remove_folder_if_empty(self, path: str) -> None:
        """See HypervisorFiles."""
        self._pools.release(path)
        # A volume that is a folder is removed by rmdir(2), which spares a full one.
        with contextlib.suppress(libvirt.libvirtError):
            self._pools.with_volume(path, _delete, only=libvirt.VIR_STORAGE_VOL_DIR)

    def release(self) -> None:
        """See HypervisorFiles."""
        self._pools.release()

    # Volumes

    def _described(self, path: str) -> etree._Element | None:
        """Have libvirt look at what has that name."""
        with translated(path):
            xml = self._pools.with_volume(path, lambda volume: str(volume.XMLDesc(0)))
        return None if xml is None else etree.fromstring(xml.encode())

    def _download(self, path: str, *, offset: int, count: int) -> Iterator[bytes]:
        """Read a range; a `count` of 0 reads to the end."""

        def begin(volume: Any) -> Any:
            stream = self._handle.newStream(0)
            volume.download(stream, offset, count, 0)
            return stream

        with translated(f"{path}: cannot be read"):
            stream = self._pools.with_volume(path, begin)
            if stream is None:
                raise HypervisorError(f"{path}: no such file")
            try:
                while chunk := stream.recv(_CHUNK_BYTES):
                    yield chunk
            except BaseException:
                with contextlib.suppress(libvirt.libvirtError):
                    stream.abort()
                raise
            stream.finish()

    def _listed(self, folder: str, kind: int) -> tuple[str, ...]:
        def names(pool: Any) -> list[str]:
            pool.refresh(0)
            return [volume.name() for volume in pool.listAllVolumes(0) if volume.info()[0] == kind]

        try:
            return tuple(sorted(str(PurePosixPath(folder) / name) for name in self._pools.within(folder, names)))
        except (libvirt.libvirtError, NoFolderError):
            return ()


def _delete(volume: Any) -> bool:
    volume.delete(0)
    return True


def _overlay_xml(
    name: str, backing_path: str, backing_format: str, virtual_bytes: int, owner: tuple[int, int] | None
) -> str:
    root = etree.Element("volume")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "capacity", {"unit": "bytes"}).text = str(virtual_bytes)
    target = etree.SubElement(root, "target")
    etree.SubElement(target, "format", {"type": "qcow2"})
    permissions = etree.SubElement(target, "permissions")
    etree.SubElement(permissions, "mode").text = "0600"
    if owner is not None:
        etree.SubElement(permissions, "owner").text = str(owner[0])
        etree.SubElement(permissions, "group").text = str(owner[1])
    etree.SubElement(target, "compat").text = "1.1"
    backing = etree.SubElement(root, "backingStore")
    etree.SubElement(backing, "path").text = backing_path
    etree.SubElement(backing, "format", {"type": backing_format})
    return etree.tostring(root, encoding="unicode")


def _nanoseconds(text: str) -> int:
    """Read libvirt's seconds with a fraction: "1795647474.877356447", or whole ones."""
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0"))


def _told(exc: libvirt.libvirtError | NoFolderError, what: str) -> Exception:
    if isinstance(exc, NoFolderError):
        return HypervisorError(f"{what}: no such folder", hint=_HINT)
    return translate(exc, what)
