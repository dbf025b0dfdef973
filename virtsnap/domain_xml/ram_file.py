"""A guest's RAM in a file: put into a definition, found in one, moved to another file.

libvirt's own way (`<memoryBacking><source type='file'/>`) lets nobody say
which file, and its restore refuses to change the source. So the RAM is an
object of ours in `<qemu:commandline>`, which libvirt does not compare:

    -object {"qom-type": "memory-backend-file", "id": "virtsnap-ram", "size": …, "mem-path": …, "share": …}
    -machine memory-backend=virtsnap-ram

With a folder as its path QEMU makes a file without a name in it, new for each
start. libvirt's own RAM object stays beside it, unused and without pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

from virtsnap.domain_xml.live import QEMU_NS, parse_xml
from virtsnap.domain_xml.templates import Templates
from virtsnap.errors import UnsupportedError

RAM_ID = "virtsnap-ram"
# Memory without writeback, for all users
DEFAULT_FOLDER = "/dev/shm"  # noqa: S108 - QEMU's files there have no name
_ARG = f"{{{QEMU_NS}}}arg"
_UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1 << 10, "KiB": 1 << 10, "MB": 10**6, "M": 1 << 20, "MiB": 1 << 20,
          "GB": 10**9, "G": 1 << 30, "GiB": 1 << 30, "TB": 10**12, "T": 1 << 40, "TiB": 1 << 40}

# Where it is in a definition, what it is, and why RAM in a file of ours cannot be beside it
_EXCLUDED = (
    ("memoryBacking", "<memoryBacking>", "it has a <memoryBacking> of its own"),
    ("cpu/numa", "NUMA nodes", "it has NUMA nodes, each with memory of its own"),
    ("numatune", "NUMA nodes", "its memory is bound to nodes of the host"),
    ("maxMemory", "memory that is plugged in", "memory can be plugged into it"),
    ("devices/memory", "memory devices", "it has memory devices"),
    ("launchSecurity", "memory encryption", "its memory is encrypted"),
    ("devices/filesystem/driver[@type='virtiofs']", "virtiofs", "virtiofs shares its memory with another process"),
    ("devices/interface[@type='vhostuser']", "vhost-user", "vhost-user shares its memory with another process"),
    ("devices/disk[@type='vhostuser']", "vhost-user", "vhost-user shares its memory with another process"),
    ("devices/hostdev", "devices of the host", "a device of the host reads its memory"),
)
WHAT_EXCLUDES = tuple(dict.fromkeys(what for _, what, _ in _EXCLUDED))


@dataclass(frozen=True, kw_only=True)
class RamFile:
    """Where a guest's RAM is: a file, or for `is_shared` the folder of one without a name.

    What is not shared is a private copy of the file, page by page as the guest writes.
    """

    path: str
    is_shared: bool
    size_bytes: int


def read_ram_file(domain: etree._Element) -> RamFile | None:
    """Find where a definition puts the RAM; None where it is memory that belongs to QEMU alone."""
    for _, keys in _objects(domain):
        return RamFile(path=str(keys.get("mem-path", "")), is_shared=keys.get("share") is True,
                       size_bytes=int(keys.get("size", 0)))
    return None


def move_ram(domain: etree._Element, path: str, *, is_shared: bool, is_read_only: bool = False) -> bool:
    """Change a definition so that its RAM is at `path`; say whether it has RAM in a file.

    `is_read_only` has QEMU (8.2 and later) open the file so that not even a balloon can change it.
    """
    for arg, keys in _objects(domain):
        kept = {key: value for key, value in keys.items() if key not in ("readonly", "rom")}
        changed = {**kept, "mem-path": path, "share": is_shared}
        if is_read_only:
            changed |= {"readonly": True, "rom": "off"}
        arg.set("value", json.dumps(changed))
        return True
    return False


def with_ram_in_file(xml: str, *, folder: str = DEFAULT_FOLDER) -> str:
    """Give a `<domain>` whose RAM is in a file in `folder`, which QEMU makes at each start.

    On failure: UnsupportedError that names everything that excludes it.
    """
    domain = parse_xml(xml)
    found = obstacles(domain)
    if found:
        raise UnsupportedError("its RAM cannot be put into a file: " + "; ".join(found),
                               hint="leave --ram-file out; save and load work without it, more slowly")
    memory = domain.find("memory")
    assert memory is not None
    ram = {"qom-type": "memory-backend-file", "id": RAM_ID, "size": _bytes(memory), "mem-path": folder,
           "share": True}
    words = Templates().fill("ram_file", {"object": json.dumps(ram), "machine": f"memory-backend={RAM_ID}"})
    line = domain.find(f"{{{QEMU_NS}}}commandline")
    if line is None:
        domain.append(words)
    else:
        line.extend(list(words))
    return etree.tostring(domain, encoding="unicode")


def obstacles(domain: etree._Element) -> list[str]:
    """Name what excludes RAM in a file of ours."""
    found = [reason for path, _, reason in _EXCLUDED if domain.find(path) is not None]
    words = [arg.get("value", "") for arg in domain.iter(_ARG)]
    if any("memory-backend" in word or word.lstrip("-") in ("mem-path", "mem-prealloc", "numa") for word in words):
        found.append("<qemu:commandline> says what its memory is made of")
    if domain.find("memory") is None:
        found.append("it does not say how much memory it has")
    return found


def can_leave_pages_out(domain: etree._Element) -> bool:
    """Say whether RAM is the only thing that this architecture's QEMU sends while its guest runs on.

    pseries sends its hash table so (`spapr/htab`), s390x the attributes of its storage (`s390-stattr`).
    """
    kind = domain.find("os/type")
    return kind is not None and not kind.get("arch", "").startswith(("ppc64", "s390"))


def gives_memory_back(domain: etree._Element) -> bool:
    """Say whether the guest may give pages back: QEMU then punches holes into the file behind its RAM."""
    memory, current = domain.find("memory"), domain.find("currentMemory")
    ballooned = memory is not None and current is not None and _bytes(current) < _bytes(memory)
    reports = domain.find("devices/memballoon[@freePageReporting='on']") is not None
    return ballooned or reports


def _objects(domain: etree._Element) -> Iterator[tuple[etree._Element, dict[str, Any]]]:
    line = domain.find(f"{{{QEMU_NS}}}commandline")
    for arg in () if line is None else line.findall(_ARG):
        text = arg.get("value", "")
        if not text.startswith("{") or RAM_ID not in text:
            continue
        try:
            keys = json.loads(text)
        except ValueError:
            continue
        if isinstance(keys, dict) and keys.get("id") == RAM_ID and keys.get("qom-type") == "memory-backend-file":
            yield arg, keys


def _bytes(element: etree._Element) -> int:
    return int(element.text or 0) * _UNITS.get(element.get("unit", "KiB"), 1 << 10)
