"""libvirt's snapshot objects become a catalog of snapshots, with the facts that a load needs.

libvirt's own record does not say how large the files were or which layers
stood under them, so that is kept as an element of ours in the metadata of the
`<domain>` inside the snapshot object (9.0 keeps it through REDEFINE and
daemon restarts):

    <virtsnap:snapshot xmlns:virtsnap="urn:virtsnap:snapshot" format="1" id="3f9a1c2e" name="lastgood"
                       state="running" created_ns="…" folder="…">
      <virtsnap:memory file="…" bytes="…" mtime_ns="…"/>
      <virtsnap:ram file="…" bytes="…" mtime_ns="…"/>
      <virtsnap:disk target="vda" overlay="…">
        <virtsnap:layer file="…" format="qcow2" bytes="…" mtime_ns="…" virtual_bytes="…"/>
      </virtsnap:disk>
      <virtsnap:state file="…" bytes="…" mtime_ns="…"/>
    </virtsnap:snapshot>

`ram` is there where the memory image leaves the guest's RAM to a file beside it
(the engine `instant`): its own, or the one of a snapshot from which the guest was
loaded, where the image holds what it changed since. The first layer of a disk
is the file that was the disk at the save; `overlay` is the file that the save
put on top. `state` is the archive of UEFI variables
and TPM state, where there are such and no memory; a record that has it is of
format 2, any other of format 1. Once somebody has read a file whole, its
`memory`, `ram`, `layer` or `state` has a `blake2b` (16 bytes, in hex). Other elements
and attributes of the same format are ignored by a reader; a higher `format` is
refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import NoSuchSnapshotError, UnsupportedError
from virtsnap.host.files import Layer
from virtsnap.snapshots.names import decode_name, encode_name, is_temporary
from virtsnap.snapshots.places import ram_path

FORMAT = 2
_FORMAT_WITHOUT_STATE = 1
SNAPSHOT_NS = "urn:virtsnap:snapshot"
OUR_NAMESPACES = "urn:virtsnap:"
_PREFIX = {"virtsnap": SNAPSHOT_NS}


@dataclass(frozen=True, kw_only=True)
class SavedDisk:
    """A writable disk as a snapshot holds it: its chain, the disk of then first, and the overlay put on it."""

    target: str
    overlay_path: str
    layers: tuple[Layer, ...]

    @property
    def frozen(self) -> Layer:
        """Give the file that was the disk at the save."""
        return self.layers[0]


@dataclass(frozen=True, kw_only=True)
class SavedMemory:
    """The memory image of a snapshot, or the file that holds the RAM which the image leaves out."""

    path: str
    size_bytes: int
    mtime_ns: int
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The archive of what a domain keeps beside its disks (`virtsnap.host.state_archive`)."""

    path: str
    size_bytes: int
    mtime_ns: int
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What virtsnap knows of a snapshot that it made.

    `state` is the guest's at the save; `beside` holds UEFI variables and TPM state, None where there are
    none, or where they are in the memory.
    """

    id: str
    name: str
    state: str
    created_ns: int
    folder: str
    memory: SavedMemory | None
    disks: tuple[SavedDisk, ...]
    beside: SavedState | None = None
    ram: SavedMemory | None = None

    @property
    def engine(self) -> str:
        """Name what made it: `instant` where the RAM is in a file of its own, else `libvirt`."""
        return "libvirt" if self.ram is None else "instant"

    @property
    def has_own_ram(self) -> bool:
        """Say whether a RAM file was made for this snapshot, and not for one before it."""
        return self.ram is not None and self.ram.path == ram_path(self.folder, self.id)

    @property
    def own_files(self) -> tuple[str, ...]:
        """Name the files that were made for this snapshot beside its disks."""
        ram = self.ram if self.has_own_ram else None
        return tuple(saved.path for saved in (self.memory, ram, self.beside) if saved is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """Name every file that a load of the snapshot needs."""
        held = tuple(saved.path for saved in (self.memory, self.ram, self.beside) if saved is not None)
        return (*held, *(layer.path for disk in self.disks for layer in disk.layers))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One snapshot object.

    `name` is the runner's, `object_name` libvirt's. `facts` is None where plain
    virsh made it or `problem` says why they cannot be read.
    """

    name: str
    object_name: str
    parent: str | None
    is_current: bool
    state: str
    created_s: int
    memory_path: str | None
    overlay_paths: tuple[str, ...]
    frozen_paths: tuple[str, ...]
    is_internal: bool
    facts: Facts | None
    problem: str | None
    xml: str = field(repr=False)



@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All snapshots of one domain, oldest first."""

    snapshots: tuple[Snapshot, ...] = ()

    def find(self, name: str) -> Snapshot:
        """Find a snapshot by the runner's name.

        A save that was to replace the name and is complete counts where the replaced object is gone.
        On failure: NoSuchSnapshotError.
        """
        found = self.get(name)
        if found is None:
            known = ", ".join(repr(snapshot.name) for snapshot in self.snapshots) or "none"
            raise NoSuchSnapshotError(f"no snapshot {name!r}", hint=f"there are: {known}")
        return found

    def get(self, name: str) -> Snapshot | None:
        """Find a snapshot by the runner's name, or give None."""
        encoded = encode_name(name)
        named = [snapshot for snapshot in self.snapshots if snapshot.name == name]
        named.sort(key=lambda snapshot: (snapshot.object_name != encoded, is_temporary(snapshot.object_name)))
        return named[0] if named else None

    def descendants(self, snapshot: Snapshot) -> tuple[Snapshot, ...]:
        """Give all that were saved on the line of `snapshot` after it, children before grandchildren."""
        found: list[Snapshot] = []
        level = {snapshot.object_name}
        while level:
            children = [other for other in self.snapshots if other.parent in level and other not in found]
            found += children
            level = {child.object_name for child in children}
        return tuple(found)


def read_catalog(objects: Iterable[tuple[str, bool]]) -> Catalog:
    """Read libvirt's snapshot objects, each as (XML, is it current)."""
    snapshots = [read_snapshot(xml, is_current=is_current) for xml, is_current in objects]
    snapshots.sort(key=lambda snapshot: (
        snapshot.facts.created_ns if snapshot.facts else snapshot.created_s * 10**9, snapshot.object_name
    ))
    return Catalog(snapshots=tuple(snapshots))


def read_snapshot(xml: str, *, is_current: bool = False) -> Snapshot:
    """Read one snapshot object. Facts that cannot be read are a `problem`, not an error."""
    root = parse_xml(xml)
    object_name = root.findtext("name") or ""
    memory = root.find("memory")
    memory_path = None if memory is None else memory.get("file")
    facts, problem = None, None
    element = root.find(f"domain/metadata/{{{SNAPSHOT_NS}}}snapshot")
    if element is not None:
        try:
            facts = facts_from_element(element)
        except UnsupportedError as exc:
            problem = exc.message
        except (KeyError, ValueError):
            problem = "its record is damaged"
    external = [disk for disk in root.iterfind("disks/disk") if disk.get("snapshot") == "external"]
    overlays = tuple(
        source.get("file", "") for disk in external if (source := disk.find("source")) is not None
    )
    if facts is not None and not _is_about(facts, memory_path, overlays):
        # Metadata that was copied along with a definition: the facts of another snapshot.
        facts = None
    targets = {disk.get("name") for disk in external}
    domain = root.find("domain")
    disks = () if domain is None else read_disks(domain)
    shown = facts.name if facts is not None and is_temporary(object_name) else decode_name(object_name)
    return Snapshot(
        name=shown,
        object_name=object_name,
        parent=root.findtext("parent/name"),
        is_current=is_current,
        state=root.findtext("state") or "",
        created_s=int(root.findtext("creationTime") or 0),
        memory_path=memory_path,
        overlay_paths=overlays,
        frozen_paths=tuple(disk.path for disk in disks if disk.target in targets and disk.path),
        is_internal=(memory is not None and memory.get("snapshot") == "internal")
        or any(disk.get("snapshot") == "internal" for disk in root.iterfind("disks/disk")),
        facts=facts,
        problem=problem,
        xml=xml,
    )


def _is_about(facts: Facts, memory_path: str | None, overlays: tuple[str, ...]) -> bool:
    own = None if facts.memory is None else facts.memory.path
    return own == memory_path and {disk.overlay_path for disk in facts.disks} == set(overlays)


def facts_to_element(facts: Facts) -> etree._Element:
    """Write facts as the element of this module's docstring."""
    element = etree.Element(f"{{{SNAPSHOT_NS}}}snapshot", {
        "format": str(_FORMAT_WITHOUT_STATE if facts.beside is None else FORMAT),
        "id": facts.id, "name": encode_name(facts.name), "state": facts.state,
        "created_ns": str(facts.created_ns), "folder": facts.folder,
    }, nsmap=_PREFIX)
    for tag, saved in (("memory", facts.memory), ("ram", facts.ram), ("state", facts.beside)):
        if saved is not None:
            etree.SubElement(element, f"{{{SNAPSHOT_NS}}}{tag}", {
                "file": saved.path, "bytes": str(saved.size_bytes), "mtime_ns": str(saved.mtime_ns),
                **_digest(saved.digest),
            })
    for disk in facts.disks:
        chain = etree.SubElement(element, f"{{{SNAPSHOT_NS}}}disk", {
            "target": disk.target, "overlay": disk.overlay_path,
        })
        for layer in disk.layers:
            etree.SubElement(chain, f"{{{SNAPSHOT_NS}}}layer", {
                "file": layer.path, "format": layer.format, "bytes": str(layer.size_bytes),
                "mtime_ns": str(layer.mtime_ns), "virtual_bytes": str(layer.virtual_bytes),
                **_digest(layer.digest),
            })
    return element


def _digest(digest: str | None) -> dict[str, str]:
    return {} if digest is None else {"blake2b": digest}


def facts_from_element(element: etree._Element) -> Facts:
    """Read facts back.

    On failure: UnsupportedError for a newer format, KeyError or ValueError for a damaged record.
    """
    number = int(_text(element, "format"))
    if number > FORMAT:
        raise UnsupportedError(f"its record has format {number}, and this virtsnap knows up to {FORMAT}",
                               hint="use the newer virtsnap that made it")
    beside = element.find(f"{{{SNAPSHOT_NS}}}state")
    disks = tuple(
        SavedDisk(
            target=_text(disk, "target"),
            overlay_path=_text(disk, "overlay"),
            layers=tuple(_layer(layer) for layer in disk.iterfind(f"{{{SNAPSHOT_NS}}}layer")),
        )
        for disk in element.iterfind(f"{{{SNAPSHOT_NS}}}disk")
    )
    if any(not disk.layers for disk in disks):
        raise ValueError("a disk without a layer")
    return Facts(
        id=_text(element, "id"), name=decode_name(_text(element, "name")), state=_text(element, "state"),
        created_ns=int(_text(element, "created_ns")), folder=_text(element, "folder"),
        memory=_memory(element, "memory"), ram=_memory(element, "ram"), disks=disks,
        beside=None if beside is None else SavedState(
            path=_text(beside, "file"), size_bytes=int(_text(beside, "bytes")),
            mtime_ns=int(_text(beside, "mtime_ns")), digest=beside.get("blake2b"),
        ),
    )


def _memory(facts: etree._Element, tag: str) -> SavedMemory | None:
    element = facts.find(f"{{{SNAPSHOT_NS}}}{tag}")
    if element is None:
        return None
    return SavedMemory(
        path=_text(element, "file"), size_bytes=int(_text(element, "bytes")),
        mtime_ns=int(_text(element, "mtime_ns")), digest=element.get("blake2b"),
    )


def _layer(element: etree._Element) -> Layer:
    return Layer(
        path=_text(element, "file"), format=_text(element, "format"), size_bytes=int(_text(element, "bytes")),
        mtime_ns=int(_text(element, "mtime_ns")), virtual_bytes=int(_text(element, "virtual_bytes")),
        digest=element.get("blake2b"),
    )


def _text(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise KeyError(name)
    return value


def with_facts(xml: str, facts: Facts) -> str:
    """Give a snapshot object's XML with these facts in it and no other metadata of virtsnap's."""
    root = parse_xml(xml)
    for definition in ("domain", "inactiveDomain"):
        domain = root.find(definition)
        if domain is not None:
            strip_our_metadata(domain)
    domain = root.find("domain")
    if domain is None:
        raise UnsupportedError("libvirt kept no definition in the snapshot")
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(domain, "metadata")
    metadata.append(facts_to_element(facts))
    return to_text(root)


def renamed(xml: str, *, object_name: str) -> str:
    """Give a snapshot object's XML under another libvirt name."""
    root = parse_xml(xml)
    name = root.find("name")
    if name is None:
        name = etree.SubElement(root, "name")
    name.text = object_name
    return to_text(root)


def strip_our_metadata(domain: etree._Element) -> None:
    """Take every element of virtsnap's out of a definition's metadata."""
    metadata = domain.find("metadata")
    if metadata is None:
        return
    for child in list(metadata):
        if isinstance(child.tag, str) and (etree.QName(child).namespace or "").startswith(OUR_NAMESPACES):
            metadata.remove(child)
    if len(metadata) == 0:
        domain.remove(metadata)


def to_text(root: etree._Element) -> str:
    """Write a tree as the text that libvirt is given."""
    return etree.tostring(root, encoding="unicode")
