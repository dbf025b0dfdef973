"""Domains, snapshots and views, written by hand for tests without a host."""

from __future__ import annotations

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.host.files import Layer
from virtsnap.snapshots.catalog import (
    Catalog,
    Facts,
    SavedDisk,
    SavedMemory,
    SavedState,
    Snapshot,
    read_catalog,
    with_facts,
)
from virtsnap.snapshots.view import View

UUID = "db0ddbf8-0a19-4a49-a2f6-440b1f8eb27e"
BASE = "/images/disk.qcow2"
FOLDER = f"/images/virtsnap-{UUID}"


def overlay(number: int) -> str:
    return f"{FOLDER}/{number:08x}-vda.qcow2"


def memory(number: int) -> str:
    return f"{FOLDER}/{number:08x}.mem"


def domain_xml(
    disk: str = BASE, *, extra: str = "", disk_extra: str = "", os: str = "", devices: str = ""
) -> str:
    return (
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
        f"<name>sut</name><uuid>{UUID}</uuid><os>{os}</os><devices>"
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe'/>"
        f"<source file='{disk}' index='3'/><backingStore/><target dev='vda' bus='virtio'/>{disk_extra}</disk>"
        "<disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>"
        f"{devices}</devices>{extra}</domain>"
    )


def layer(path: str) -> Layer:
    return Layer(path=path, format="qcow2", size_bytes=1000, mtime_ns=5, virtual_bytes=2**30)


def facts(
    number: int, name: str, chain: list[str], *, state: str = "running", has_beside: bool = False
) -> Facts:
    return Facts(
        id=f"{number:08x}", name=name, state=state, created_ns=number * 10**9, folder=FOLDER,
        memory=None if state == "shutoff" else SavedMemory(path=memory(number), size_bytes=77, mtime_ns=8),
        disks=(SavedDisk(target="vda", overlay_path=overlay(number), layers=tuple(map(layer, chain))),),
        beside=SavedState(path=f"{FOLDER}/{number:08x}.state", size_bytes=9, mtime_ns=7)
        if has_beside and state == "shutoff" else None,
    )


def snapshot_xml(
    number: int, name: str, *, parent: str | None, chain: list[str], state: str = "running",
    domain: str | None = None,
) -> str:
    domain = domain or domain_xml(chain[0])
    kept = f"<parent><name>{parent}</name></parent>" if parent else ""
    held = (
        "<memory snapshot='no'/>" if state == "shutoff"
        else f"<memory snapshot='external' file='{memory(number)}'/>"
    )
    return (
        f"<domainsnapshot><name>{name}</name><state>{state}</state>{kept}<creationTime>{number}</creationTime>{held}"
        f"<disks><disk name='vda' snapshot='external' type='file'><source file='{overlay(number)}'/></disk>"
        f"<disk name='hda' snapshot='no'/></disks>{domain}"
        f"<inactiveDomain type='qemu'>{domain.partition('>')[2].removesuffix('</domain>')}"
        "</inactiveDomain></domainsnapshot>"
    )


def ours(
    number: int, name: str, *, parent: str | None, chain: list[str], state: str = "running",
    domain: str | None = None,
) -> str:
    return with_facts(
        snapshot_xml(number, name, parent=parent, chain=chain, state=state, domain=domain),
        facts(number, name, chain, state=state, has_beside=domain is not None),
    )


def line_of_three() -> Catalog:
    """a → b → c (current), each on the overlay that the one before it left."""
    return read_catalog([
        (ours(1, "a", parent=None, chain=[BASE]), False),
        (ours(2, "b", parent="a", chain=[overlay(1), BASE]), False),
        (ours(3, "c", parent="b", chain=[overlay(2), overlay(1), BASE]), True),
    ])


def view(
    catalog: Catalog | None = None, *, chain: list[str] | None = None, active: bool = True,
    persistent: bool = True, xml: str | None = None, state: str | None = None,
) -> View:
    chain = chain or [BASE]
    xml = xml or domain_xml(chain[0])
    disks = read_disks(parse_xml(xml))
    return View(
        name="sut", uuid=UUID, state=state or ("running" if active else "shutoff"), is_active=active,
        is_persistent=persistent, live_xml=xml, persistent_xml=xml, disks=disks, persistent_disks=disks,
        catalog=catalog or Catalog(), chains={chain[0]: tuple(chain)},
    )


def named(catalog: Catalog, name: str) -> Snapshot:
    return catalog.find(name)
