"""A saved definition and the files of a new line become the XML that libvirt is given.

Every document is built or changed as a tree; no outside text is ever pasted
into XML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

from lxml import etree

from virtsnap.domain_xml.live import parse_xml
from virtsnap.errors import UnsupportedError
from virtsnap.snapshots.catalog import OUR_NAMESPACES, strip_our_metadata, to_text


def on_new_overlays(xml: str, overlays: Mapping[str, str]) -> str:
    """Give a `<domain>` whose disks are these files (target → path of a qcow2) and nothing else changed.

    A block device becomes a file, its overlay.

    The definition inside a memory image names the disks of *before* the
    snapshot: restored unchanged, the guest would write into them.
    `<backingStore>` goes: libvirt takes it as the whole truth about a chain,
    and the saved `<backingStore/>` would open the new overlay without its
    base. RAM comes back right then, and the disk reads zeros (seen on 9.0).
    """
    root = parse_xml(xml)
    strip_our_metadata(root)
    missing = dict(overlays)
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target")
        path = missing.pop(target.get("dev", ""), None) if target is not None else None
        if path is None:
            continue
        source, driver = disk.find("source"), disk.find("driver")
        if source is None:
            source = etree.SubElement(disk, "source")
        disk.set("type", "file")
        source.set("file", path)
        for name in ("index", "dev"):
            if name in source.attrib:
                del source.attrib[name]
        if driver is None:
            driver = etree.SubElement(disk, "driver", {"name": "qemu"})
        driver.set("type", "qcow2")
        for tag in ("backingStore", "mirror"):
            for element in disk.findall(tag):
                disk.remove(element)
    if missing:
        raise UnsupportedError(f"the saved definition has no disk {', '.join(sorted(missing))}")
    return to_text(root)


def disks_alone(request: str) -> str:
    """Give a request for a snapshot of the disks and no memory."""
    root = parse_xml(request)
    for memory in root.findall("memory"):
        memory.attrib.clear()
        memory.set("snapshot", "no")
    return to_text(root)


def snapshot_record(
    request: str, *, state: str, created_s: int, parent: str | None, domain: str, inactive_domain: str | None,
    cookie: str | None,
) -> str:
    """Write the `<domainsnapshot>` that libvirt would have, had it done itself what `request` says."""
    root = parse_xml(request)
    etree.SubElement(root, "state").text = state
    etree.SubElement(root, "creationTime").text = str(created_s)
    if parent is not None:
        etree.SubElement(etree.SubElement(root, "parent"), "name").text = parent
    root.append(parse_xml(domain))
    if inactive_domain is not None:
        inactive = parse_xml(inactive_domain)
        inactive.tag = "inactiveDomain"
        root.append(inactive)
    if cookie is not None:
        root.append(parse_xml(cookie))
    return to_text(root)


def with_our_metadata(xml: str, elements: Iterable[etree._Element]) -> str:
    """Give a `<domain>` whose metadata holds these elements of virtsnap's and no others of virtsnap's."""
    root = parse_xml(xml)
    _set_our_metadata(root, elements)
    return to_text(root)


def _set_our_metadata(domain: etree._Element, elements: Iterable[etree._Element]) -> None:
    strip_our_metadata(domain)
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(domain, "metadata")
    metadata.extend(deepcopy(element) for element in elements)  # lxml moves an element that has a parent


def with_metadata_in_snapshot(xml: str, elements: Sequence[etree._Element]) -> str:
    """Give a snapshot object's XML whose definitions carry these elements of virtsnap's and no others.

    Both do: libvirt's revert takes the persistent definition from `<inactiveDomain>`, and from
    `<domain>` where there is none.
    """
    root = parse_xml(xml)
    for definition in ("domain", "inactiveDomain"):
        domain = root.find(definition)
        if domain is not None:
            _set_our_metadata(domain, elements)
    return to_text(root)


def with_revert_disks(xml: str, targets: Sequence[str], *, path: str) -> str:
    """Give a snapshot object's XML that names `path` as the file to remove at the next revert, for each disk."""
    root = parse_xml(xml)
    for element in root.findall("revertDisks"):
        root.remove(element)
    disks = etree.Element("revertDisks")
    for target in targets:
        disk = etree.SubElement(disks, "disk", {"name": target, "snapshot": "external", "type": "file"})
        etree.SubElement(disk, "driver", {"type": "qcow2"})
        etree.SubElement(disk, "source", {"file": path})
    after = root.find("disks")
    if after is None:
        root.append(disks)
    else:
        after.addnext(disks)
    return to_text(root)


def our_metadata(xml: str) -> tuple[tuple[str, str], ...]:
    """Name the elements of virtsnap's in a `<domain>`, each as prefix and namespace."""
    found = []
    for child in parse_xml(xml).iterfind("metadata/*"):
        namespace = etree.QName(child).namespace if isinstance(child.tag, str) else None
        if namespace is not None and namespace.startswith(OUR_NAMESPACES):
            found.append((child.prefix or "", namespace))
    return tuple(found)


def as_metadata(element: etree._Element) -> tuple[str, str, str]:
    """Give an element of ours as libvirt takes metadata: text without a namespace, prefix, namespace."""
    name = etree.QName(element)
    bare = etree.Element(name.localname, {str(key): str(value) for key, value in element.attrib.items()})
    bare.text = element.text
    return to_text(bare), element.prefix or "", name.namespace or ""


def definitions_in_snapshot(xml: str) -> tuple[str, str | None]:
    """Give the `<domain>` of a snapshot object, and its `<inactiveDomain>` as a `<domain>` where there is one.

    libvirt keeps the second for a running persistent domain: its definition for the next boot.
    """
    root = parse_xml(xml)
    live = root.find("domain")
    if live is None:
        raise UnsupportedError("libvirt kept no definition in the snapshot")
    inactive = root.find("inactiveDomain")
    if inactive is not None:
        inactive.tag = "domain"
    return to_text(live), None if inactive is None else to_text(inactive)


def snapshot_request(
    *, object_name: str, description: str | None, memory_path: str | None,
    overlays: Mapping[str, str], left_out: Sequence[str],
) -> str:
    """Write the `<domainsnapshot>` that asks libvirt for an external snapshot.

    Every disk is named: one left out would get libvirt's default, an overlay beside the disk.
    """
    root = etree.Element("domainsnapshot")
    etree.SubElement(root, "name").text = object_name
    if description:
        etree.SubElement(root, "description").text = description
    if memory_path is None:
        etree.SubElement(root, "memory", {"snapshot": "no"})
    else:
        etree.SubElement(root, "memory", {"snapshot": "external", "file": memory_path})
    disks = etree.SubElement(root, "disks")
    for target, path in overlays.items():
        disk = etree.SubElement(disks, "disk", {"name": target, "snapshot": "external", "type": "file"})
        etree.SubElement(disk, "driver", {"type": "qcow2"})
        etree.SubElement(disk, "source", {"file": path})
    for target in left_out:
        etree.SubElement(disks, "disk", {"name": target, "snapshot": "no"})
    return to_text(root)
