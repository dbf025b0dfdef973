"""A domain's XML becomes the places of what it keeps beside its disks: UEFI variables and the state of its TPM.

Both travel with the memory, inside QEMU's stream. Disks alone do not have
them, so whoever keeps disks alone has to copy these files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from lxml import etree

Kind = Literal["nvram", "tpm"]

WHAT: Mapping[Kind, str] = {"nvram": "UEFI variables (NVRAM)", "tpm": "the state of its TPM"}

# libvirt's src/qemu/qemu_tpm.c, by the version in <backend>
_TPM_FOLDERS: Mapping[str, str] = {"1.2": "tpm1.2", "2.0": "tpm2"}


@dataclass(frozen=True, kw_only=True)
class StatePlace:
    """Something beside the disks: NVRAM is a file, a TPM's state a folder; `path` None where nobody says where."""

    kind: Kind
    path: str | None

    @property
    def what(self) -> str:
        """Name it for people."""
        return WHAT[self.kind]


def places_beside_disks(domain: etree._Element, *, tpm_root: str) -> tuple[StatePlace, ...]:
    """Say what a domain keeps beside its disks, and where.

    `tpm_root` is the folder in which this hypervisor has the domain's TPM: the definition does not name it.
    """
    found = []
    if domain.find("os/nvram") is not None or domain.find("os[@firmware='efi']") is not None:
        found.append(StatePlace(kind="nvram", path=_nvram(domain)))
    backend = domain.find("devices/tpm/backend")
    if backend is not None and backend.get("type") in ("emulator", "external"):
        found.append(StatePlace(kind="tpm", path=_tpm(backend, tpm_root)))
    return tuple(found)


def _nvram(domain: etree._Element) -> str | None:
    element = domain.find("os/nvram")
    if element is None:
        return None
    source = element.find("source")
    if source is not None:
        return source.get("file")
    return (element.text or "").strip() or None


def _tpm(backend: etree._Element, root: str) -> str | None:
    if backend.get("type") != "emulator":
        return None
    source = backend.find("source")  # libvirt 10.10 and later
    if source is not None:
        return source.get("path") if source.get("type") == "dir" else None
    folder = _TPM_FOLDERS.get(backend.get("version", "2.0"))
    return None if folder is None else str(PurePosixPath(root) / folder)
