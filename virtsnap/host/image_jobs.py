"""qemu-img's work is done by a QEMU that libvirt starts for it, for images that this machine cannot reach.

The machine has one disk and no guest: it is paused before its first
instruction, so nothing but the job writes. It is transient, and libvirt ends
it with our connection.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
from lxml import etree

from virtsnap.host.domain import Domain
from virtsnap.host.translate import translated

_TARGET = "vda"


def merge_by_commit(handle: Any, top: str, *, into: str) -> None:
    """Write what `top` and the layers between hold into the file `into` below them.

    Needs: nobody has any of them open. On failure: HypervisorError; a second try can finish the work.
    """
    with _idle_machine(handle, top, failed=f"{top}: cannot be merged into {into}") as machine:
        machine.commit_top(_TARGET, into=into, timeout_s=None)


def rebase_by_pull(handle: Any, path: str, *, base: str) -> None:
    """Copy what the layers between a qcow2 and `base` hold into it, and let it stand on `base`.

    Needs: nobody has it open. On failure: HypervisorError, and it shows what it showed.
    """
    with _idle_machine(handle, path, failed=f"{path}: its layers cannot be pulled") as machine:
        machine.pull_layers(_TARGET, base=base)


@contextmanager
def _idle_machine(handle: Any, path: str, *, failed: str) -> Iterator[Domain]:
    with translated(failed):
        machine = Domain(handle.createXML(
            _machine_xml(path), libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        ))
    try:
        yield machine
    finally:
        machine.destroy()


def _machine_xml(path: str) -> str:
    # TCG, because it is there on every host; emulator and machine are libvirt's choice for that host.
    root = etree.Element("domain", {"type": "qemu"})
    etree.SubElement(root, "name").text = f"virtsnap-image-job-{secrets.token_hex(4)}"
    etree.SubElement(root, "memory", {"unit": "MiB"}).text = "64"
    etree.SubElement(root, "vcpu").text = "1"
    etree.SubElement(etree.SubElement(root, "os"), "type").text = "hvm"
    devices = etree.SubElement(root, "devices")
    disk = etree.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    etree.SubElement(disk, "driver", {"name": "qemu", "type": "qcow2"})
    etree.SubElement(disk, "source", {"file": path})
    etree.SubElement(disk, "target", {"dev": _TARGET, "bus": "virtio"})
    etree.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    etree.SubElement(devices, "memballoon", {"model": "none"})
    return etree.tostring(root, encoding="unicode")
