"""A domain's XML, as libvirt gives it, becomes the facts that a snapshot depends on.

Its disks and what stands in the way of saving them. Reading only: what a load
changes in a definition is in `virtsnap.snapshots.definition`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"

# No entity of a document is ever resolved: snapshot XML may come from other people's hands.
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=False, huge_tree=True)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One `<disk>`. `path` is None for an empty drive and for a disk that is neither a file nor a block device."""

    target: str
    device: str
    source_type: str
    path: str | None
    format: str | None
    is_read_only: bool
    is_shareable: bool
    is_transient: bool
    has_block_job: bool
    is_encrypted_or_sliced: bool

    @property
    def is_writable(self) -> bool:
        """Say whether the guest can change what is on it: only such disks go into a snapshot."""
        return self.device in ("disk", "lun") and not self.is_read_only


def parse_xml(text: str) -> etree._Element:
    """Parse a document of libvirt's."""
    return etree.fromstring(text.encode(), _PARSER)


def has_metadata(text: str, uri: str) -> bool:
    """Say whether a `<domain>` has metadata of this namespace; the text of others may hold its name too."""
    return uri in text and parse_xml(text).find(f"metadata/{{{uri}}}*") is not None


def read_disks(domain: etree._Element) -> tuple[Disk, ...]:
    """Read all disks of a `<domain>`, CD-ROMs and floppies too, in document order."""
    return tuple(_read_disk(disk) for disk in domain.iterfind("devices/disk"))


# The attribute of <source> that names what is on this machine, by the disk's type
_PATH_IN = {"file": "file", "block": "dev"}


def _read_disk(disk: etree._Element) -> Disk:
    target, source, driver = disk.find("target"), disk.find("source"), disk.find("driver")
    named_in = _PATH_IN.get(disk.get("type", "file"))
    return Disk(
        target=_attribute(target, "dev") or "",
        device=disk.get("device", "disk"),
        source_type=disk.get("type", "file"),
        path=None if named_in is None else _attribute(source, named_in),
        format=_attribute(driver, "type"),
        is_read_only=disk.find("readonly") is not None,
        is_shareable=disk.find("shareable") is not None,
        is_transient=disk.find("transient") is not None,
        has_block_job=disk.find("mirror") is not None,
        is_encrypted_or_sliced=any(disk.find(f".//{tag}") is not None for tag in ("encryption", "slices")),
    )


def _attribute(element: etree._Element | None, name: str) -> str | None:
    return None if element is None else element.get(name)


def referenced_files(domain: etree._Element) -> tuple[str, ...]:
    """Name the files that a start of this domain opens beside its writable disks.

    Kernel, initrd, dtb, firmware, and the media of read-only drives that have no `startupPolicy`.
    """
    found = [
        element.text.strip()
        for tag in ("kernel", "initrd", "dtb", "loader")
        for element in domain.iterfind(f"os/{tag}")
        if element.text and element.text.strip()
    ]
    for disk in domain.iterfind("devices/disk"):
        source = disk.find("source")
        facts = _read_disk(disk)
        if not facts.is_writable and facts.path and source is not None and source.get("startupPolicy") is None:
            found.append(facts.path)
    return tuple(found)


# A disk that only <qemu:commandline> knows

_HARMLESS_DRIVERS = frozenset({"null-co", "null-aio"})
_DISK_OPTIONS = frozenset({"hda", "hdb", "hdc", "hdd", "fda", "fdb", "mtdblock", "sd", "pflash"})
_CHILDREN = ("file", "backing", "data-file")


def writable_passthrough_drives(domain: etree._Element) -> tuple[str, ...]:
    """Give the words of `<qemu:commandline>` that bring a writable disk, each as QEMU reads it.

    libvirt does not know such a disk, so no snapshot of libvirt's holds it: a
    load would give the guest its old memory over a disk that has moved on.
    """
    words = [arg.get("value", "") for arg in domain.iterfind(f"{{{QEMU_NS}}}commandline/{{{QEMU_NS}}}arg")]
    found: list[str] = []
    nodes: list[tuple[str, Mapping[str, Any]]] = []
    for option, value in _options(words):
        if option in _DISK_OPTIONS:
            found.append(f"-{option} {value}")
        elif option == "drive":
            keys = _key_values(value)
            has_file = any(keys.get(key) for key in ("file", "filename")) or "file.filename" in keys
            # media=cdrom is read-only by itself; snapshot=on writes to a file that a load would lose
            if has_file and not _is_on(_read_only(keys)) and keys.get("media") != "cdrom":
                found.append(f"-drive {value}")
        elif option == "blockdev":
            nodes.append((f"-blockdev {value}", _blockdev(value)))
    # A protocol node under a format node is as writable as the node above it: judge the tops alone.
    below = {str(node[key]) for _, node in nodes for key in _CHILDREN if isinstance(node.get(key), str)}
    found += [
        text for text, node in nodes
        if node.get("node-name") not in below
        and not _is_on(_read_only(node))
        and node.get("driver") not in _HARMLESS_DRIVERS
    ]
    return tuple(found)


def nvme_controllers(domain: etree._Element) -> tuple[str, ...]:
    """Name the emulated NVMe controllers of a domain: libvirt's own (11.5 and later), and passed-through ones."""
    own = domain.iterfind("devices/controller[@type='nvme']")
    found = [f"controller nvme {each.get('index')}" for each in own]
    words = [arg.get("value", "") for arg in domain.iterfind(f"{{{QEMU_NS}}}commandline/{{{QEMU_NS}}}arg")]
    for option, value in _options(words):
        if option == "device" and (value.partition(",")[0] == "nvme" or _blockdev(value).get("driver") == "nvme"):
            found.append(f"-device {value}")
    return tuple(found)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for at, word in enumerate(words):
        if word.startswith("-") and len(word) > 1:
            # QEMU takes one dash or two
            yield word.lstrip("-"), words[at + 1] if at + 1 < len(words) else ""


def _key_values(text: str) -> dict[str, str]:
    """Read QEMU's key=value,... where `,,` is a comma; a key alone is on."""
    pairs: dict[str, str] = {}
    for part in text.replace(",,", "\0").split(","):
        key, equals, value = part.replace("\0", ",").partition("=")
        pairs[key] = value if equals else "on"
    return pairs


def _blockdev(text: str) -> Mapping[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}
    return _key_values(text)


def _read_only(keys: Mapping[str, Any]) -> object:
    return keys.get("read-only", keys.get("readonly"))


def _is_on(value: object) -> bool:
    return value is True or value in ("on", "yes", "true", "y")


def writable_paths(xml: str) -> set[str | None]:
    """Give the files of the disks that a domain may write to."""
    return {disk.path for disk in read_disks(parse_xml(xml)) if disk.is_writable}
