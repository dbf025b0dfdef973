"""Folders of the hypervisor become storage pools of libvirt's, for as long as their files are looked at.

A pool over a folder makes libvirtd list it, look at its files, read ranges of
them, and make and remove files there. libvirt refuses a second pool over a
folder. So one that somebody has is used as it is (started, and stopped again,
where it was off). Else a transient one is made, and ended by `release`: ending
a pool touches none of its files. Processes of ours share theirs; one that
another process ended meanwhile is made anew, one that a killed process left is
ended with the next use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import libvirt
from lxml import etree

from virtsnap.host.translate import translated

PREFIX = "virtsnap-files-"
_TRIES, _WAIT_S = 100, 0.05
_GONE = (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_OPERATION_INVALID)
_BUSY_WORDS = "asynchronous jobs"  # a volume is being built in the pool; the code is VIR_ERR_INTERNAL_ERROR

T = TypeVar("T")


class NoFolderError(Exception):
    """There is no folder of that name."""


class Pools:
    """The pools that a connection uses, by their folders."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._pools: dict[str, Any] = {}
        self._started: set[str] = set()

    def within(self, folder: str, act: Callable[[Any], T]) -> T:
        """Do something in the pool over a folder, again where another process is at work in it or ended it.

        On failure: NoFolderError; libvirtError passes through.
        """
        for left in reversed(range(_TRIES)):
            try:
                return act(self._pool(folder))
            except libvirt.libvirtError as exc:
                is_gone = exc.get_error_code() in _GONE
                if not left or not (is_gone or _BUSY_WORDS in (exc.get_error_message() or "")):
                    raise
                if is_gone:
                    self._pools.pop(folder, None)
                time.sleep(_WAIT_S)
        raise AssertionError

    def with_volume(self, path: str, act: Callable[[Any], T], *, only: int | None = None) -> T | None:
        """Do something with a file; None where there is none (of the kind `only`).

        A pool knows what was there when it was last refreshed: what it does not know may have come since, and
        what it knows may have gone. On failure: libvirtError passes through.
        """
        place = PurePosixPath(path)

        def find(pool: Any) -> T | None:
            for is_fresh in (False, True):
                if is_fresh:
                    pool.refresh(0)
                try:
                    volume = pool.storageVolLookupByName(place.name)
                    if only is not None and volume.info()[0] != only:
                        return None
                    return act(volume)
                except libvirt.libvirtError as exc:
                    if exc.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                        raise
            return None

        try:
            return self.within(str(place.parent), find)
        except NoFolderError:
            return None

    def has_folder(self, path: str) -> bool:
        """Say whether there is a folder of that name that libvirtd can list; on failure: VirtsnapError."""
        try:
            with translated(path):
                self.within(path, lambda pool: pool.isActive())
        except NoFolderError:
            return False
        return True

    def make_folder(self, path: str) -> None:
        """Make a folder, through which QEMU's user can pass; on failure: NoFolderError, libvirtError."""
        self._pools[path] = self._new_pool(path, build=True)

    def release(self, folder: str | None = None) -> None:
        """Let go of the pool over a folder, or of all; what is in them stays."""
        for place in [*self._pools] if folder is None else [folder] if folder in self._pools else []:
            pool, was_started = self._pools.pop(place), place in self._started
            self._started.discard(place)
            # One that another process works in is left to that one.
            with contextlib.suppress(libvirt.libvirtError):
                if was_started or pool.name().startswith(PREFIX):
                    pool.destroy()

    def _pool(self, folder: str) -> Any:
        if folder not in self._pools:
            self._pools[folder] = self._running_pool(folder) or self._new_pool(folder)
        return self._pools[folder]

    def _running_pool(self, folder: str) -> Any:
        try:
            return self._handle.storagePoolLookupByTargetPath(folder)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
                raise
            return None

    def _stopped_pool(self, folder: str) -> Any:
        for pool in self._handle.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE):
            if etree.fromstring(pool.XMLDesc(0).encode()).findtext("target/path") == folder:
                return pool
        return None

    def _new_pool(self, folder: str, *, build: bool = False) -> Any:
        """Make a pool over a folder; `build` makes the folder. On failure: NoFolderError, libvirtError."""
        xml = _pool_xml(folder, is_session=urlsplit(self._handle.getURI()).path == "/session")
        flags = libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD if build else 0
        try:
            return self._handle.storagePoolCreateXML(xml, flags)
        except libvirt.libvirtError as exc:
            if system_errno(exc) in (errno.ENOENT, errno.ENOTDIR):
                raise NoFolderError from exc
            # "Storage source conflict with pool": there is one already, or another process came first.
            found = self._running_pool(folder)
            if found is None:
                found = self._stopped_pool(folder)
                if found is None:
                    raise
                found.create(flags)
                self._started.add(folder)
            return found


def system_errno(exc: libvirt.libvirtError) -> int | None:
    """Give the number of the system's error behind one of libvirt's, where there is one."""
    return int(exc.get_int1()) if exc.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR else None


def _pool_xml(folder: str, *, is_session: bool) -> str:
    root = etree.Element("pool", {"type": "dir"})
    name = hashlib.blake2b(folder.encode(), digest_size=8).hexdigest()
    etree.SubElement(root, "name").text = PREFIX + name
    target = etree.SubElement(root, "target")
    etree.SubElement(target, "path").text = folder
    permissions = etree.SubElement(target, "permissions")
    # Where QEMU runs as another user than libvirtd it must pass through.
    etree.SubElement(permissions, "mode").text = "0700" if is_session else "0711"
    return etree.tostring(root, encoding="unicode")
