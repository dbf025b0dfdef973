"""What a guest was loaded from becomes an element in its live definition, for the next save to know.

    <virtsnap:origin xmlns:virtsnap="urn:virtsnap:origin" file="…" bytes="…" mtime_ns="…">
      <cookie>…</cookie>
    </virtsnap:origin>

It names the RAM file that the guest has mapped privately, as the snapshot
recorded it, and holds the cookie in the snapshot's memory image: libvirt's
own words on the CPU that was asked for, which it tells nobody once the guest
runs. The snapshot itself may be forgotten by the time of the next save.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from lxml import etree

from virtsnap.domain_xml.live import parse_xml
from virtsnap.snapshots.catalog import SavedMemory, to_text

ORIGIN_NS = "urn:virtsnap:origin"
_TAG = f"{{{ORIGIN_NS}}}origin"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The RAM file that a guest was loaded from, and libvirt's cookie, None where it had none."""

    ram: SavedMemory
    cookie: str | None


def origin_in_snapshot(ram: SavedMemory, snapshot_xml: str) -> Origin:
    """Give the origin of a guest that is loaded from a snapshot; libvirt's record of it has the cookie too."""
    return Origin(ram=ram, cookie=_cookie_in(parse_xml(snapshot_xml)))


def set_origin(domain: etree._Element, origin: Origin) -> None:
    """Put the element into a definition that has none."""
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(domain, "metadata")
    element = etree.SubElement(metadata, _TAG, {
        "file": origin.ram.path, "bytes": str(origin.ram.size_bytes), "mtime_ns": str(origin.ram.mtime_ns),
    }, nsmap={"virtsnap": ORIGIN_NS})
    if origin.ram.digest is not None:
        element.set("blake2b", origin.ram.digest)
    if origin.cookie is not None:
        element.append(parse_xml(origin.cookie))


def read_origin(domain: etree._Element) -> Origin | None:
    """Read the element back; None where there is none, or one that is not understood."""
    element = domain.find(f"metadata/{_TAG}")
    if element is None:
        return None
    path, size, mtime = (element.get(name, "") for name in ("file", "bytes", "mtime_ns"))
    if not path or not size.isdigit() or not mtime.isdigit():
        return None
    return Origin(
        ram=SavedMemory(path=path, size_bytes=int(size), mtime_ns=int(mtime), digest=element.get("blake2b")),
        cookie=_cookie_in(element),
    )


def _cookie_in(element: etree._Element) -> str | None:
    """Give the cookie in an element as text; libvirt indents it anew each time that it is asked."""
    cookie = deepcopy(element.find("cookie"))
    if cookie is None:
        return None
    for part in cookie.iter():
        part.tail = None
        if not (part.text or "").strip():
            part.text = None
    return to_text(cookie)
