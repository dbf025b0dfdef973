"""A connection to libvirt: domains by name, definitions and memory images brought to life."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

import libvirt

from virtsnap.errors import NoSuchDomainError, UsageError
from virtsnap.host.domain import Domain
from virtsnap.host.files import HypervisorFiles
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.translate import translated

# On this machine, or wherever they are: then reached by libvirt's own calls alone.
Whereabouts = Literal["local", "libvirt"]
FILES_VARIABLE = "VIRTSNAP_FILES"


def _swallow(_context: object, _error: object) -> None:
    """Keep libvirt from printing errors on stderr: each is raised, and told once."""


class Host:
    """An open connection; a context manager that closes it."""

    def __init__(self, handle: Any, *, files: Whereabouts | None = None) -> None:
        self._handle = handle
        self._files: HypervisorFiles | None = None
        with translated("cannot read the hypervisor's version"):
            number: int = handle.getLibVersion()
            self.uri: str = handle.getURI()
        self.libvirt_version: tuple[int, int] = (number // 1_000_000, number // 1_000 % 1_000)
        self._whereabouts: Whereabouts = files or ("local" if is_local_uri(self.uri) else "libvirt")

    @property
    def files(self) -> HypervisorFiles:
        """Give the way to the hypervisor's files.

        On failure: UnsupportedError where they are elsewhere and libvirt there has no storage driver.
        """
        if self._files is None:
            if self.is_local:
                self._files = LocalFiles()
            else:
                from virtsnap.host.volume_files import VolumeFiles  # takes lxml, which few commands need

                self._files = VolumeFiles(self._handle)
        return self._files

    @property
    def is_local(self) -> bool:
        """Say whether the hypervisor's files are this machine's: by its URI, or as `connect` was told."""
        return self._whereabouts == "local"

    def is_alive(self) -> bool:
        """Say whether the connection still stands."""
        try:
            return self._handle is not None and bool(self._handle.isAlive())
        except libvirt.libvirtError:
            return False

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; closing twice is no error."""
        if self._handle is not None:
            if self._files is not None:
                self._files.release()
            with translated("cannot close the connection"):
                self._handle.close()
            self._handle = None

    def domain(self, name: str) -> Domain:
        """Find a domain by name, or by UUID where no name fits.

        On failure: NoSuchDomainError.
        """
        try:
            with translated(f"no domain {name!r}"):
                return Domain(self._handle.lookupByName(name))
        except NoSuchDomainError:
            try:
                return Domain(self._handle.lookupByUUIDString(name))
            except libvirt.libvirtError:
                pass
            raise

    def find_domain(self, word: str) -> Domain:
        """Find a domain by number, UUID or name, in virsh's order.

        On failure: NoSuchDomainError.
        """
        with translated(f"no domain {word!r}"):
            if word.isascii() and word.isdigit():
                with contextlib.suppress(libvirt.libvirtError, OverflowError):
                    return Domain(self._handle.lookupByID(int(word)))
            if len(word) == 36:
                with contextlib.suppress(libvirt.libvirtError):
                    return Domain(self._handle.lookupByUUIDString(word))
            return Domain(self._handle.lookupByName(word))

    def has_domain(self, name: str) -> bool:
        """Say whether a domain has that name."""
        try:
            self.domain(name)
        except NoSuchDomainError:
            return False
        return True

    def domains(self) -> tuple[Domain, ...]:
        """Give all domains, running or not."""
        with translated("cannot list the domains"):
            return tuple(Domain(handle) for handle in self._handle.listAllDomains())

    def capabilities(self) -> str:
        """Give libvirt's XML about the host."""
        with translated("cannot read the host's capabilities"):
            return str(self._handle.getCapabilities())

    def hypervisor_version(self) -> int:
        """Give QEMU's version, major * 1,000,000 + minor * 1,000 + release; 0 where libvirt found none."""
        try:
            return int(self._handle.getVersion())
        except libvirt.libvirtError:
            return 0

    @property
    def qemu_version(self) -> tuple[int, int]:
        """Give QEMU's version, as in (7, 2); (0, 0) where libvirt found none."""
        number = self.hypervisor_version()
        return (number // 1_000_000, number // 1_000 % 1_000)

    def define(self, xml: str) -> Domain:
        """Make or replace a persistent definition; a running guest is not touched."""
        with translated("cannot define the domain"):
            return Domain(self._handle.defineXML(xml))

    def saved_xml(self, memory_path: str) -> str:
        """Give the definition inside a memory image, secrets included; libvirt reads and checks the header."""
        with translated(f"{memory_path}: cannot be read as a memory image"):
            return str(self._handle.saveImageGetXMLDesc(memory_path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))

    def change_saved_xml(self, memory_path: str, xml: str) -> None:
        """Put another definition into a memory image, wherever it is; libvirt takes none that is much longer."""
        with translated(f"{memory_path}: cannot be given another definition"):
            self._handle.saveImageDefineXML(memory_path, xml, 0)

    def restore(self, memory_path: str, xml: str, *, paused: bool = True) -> None:
        """Start a guest from a memory image with that definition, paused or as it was saved.

        Needs: the domain is shut off. A restore cannot be cancelled.
        """
        with translated(f"cannot restore {memory_path}"):
            self._handle.restoreFlags(memory_path, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED if paused else 0)


def is_local_uri(uri: str) -> bool:
    """Say whether a URI means a daemon on this machine: no server, and no transport but a unix socket."""
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    return not parts.hostname and transport in ("", "unix")


def whereabouts_by(environment: Mapping[str, str]) -> Whereabouts | None:
    """Read VIRTSNAP_FILES: where the hypervisor's files are, whatever its URI says; None leaves it to the URI.

    On failure: UsageError.
    """
    word = environment.get(FILES_VARIABLE, "")
    for known in get_args(Whereabouts):
        if word == known:
            return cast(Whereabouts, known)
    if word:
        raise UsageError(f"{FILES_VARIABLE}={word}: is none of {', '.join(get_args(Whereabouts))}")
    return None


def connect(uri: str | None = None, *, readonly: bool = False) -> Host:
    """Open a connection; None is libvirt's own choice.

    Whether the hypervisor's files are this machine's is decided by its URI, or by VIRTSNAP_FILES.
    On failure: HypervisorError with libvirt's words, UsageError.
    """
    files = whereabouts_by(os.environ)
    libvirt.registerErrorHandler(_swallow, None)
    with translated(f"cannot connect to {uri or 'libvirt'}"):
        return Host(libvirt.openReadOnly(uri) if readonly else libvirt.open(uri), files=files)
