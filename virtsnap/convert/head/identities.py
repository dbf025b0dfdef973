"""Devices that libvirt has as a property of the whole domain: -device vmgenid, vmcoreinfo and sga."""

from __future__ import annotations

import uuid

from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, read_keys

KEPT = "libvirt makes a GUID when the domain is defined and keeps it; QEMU makes one at each start"


def _guid(value: str) -> str:
    """Give a GUID as libvirt writes it; for `auto` the empty text, on which libvirt makes one itself."""
    if value == "auto":
        return ""
    try:
        return str(uuid.UUID(value))
    except ValueError as exc:
        raise NotSayable(f"{value!r} is not a GUID") from exc


def _build_genid(draft: Draft, word: Word, row: DeviceRow) -> None:
    holes = read_keys(word, row.keys, draft.target)
    if "guid" not in holes:
        return
    if word.peek("guid") == "auto":
        word.claim("guid", Outcome.SUBSTITUTED, KEPT)
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    element = draft.fill("genid", holes)
    before = next(each for tag in ("uuid", "name") if (each := draft.root.find(tag)) is not None)
    before.addnext(element)
    word.land(element)


def _build_vmcoreinfo(draft: Draft, word: Word, row: DeviceRow) -> None:
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.head.put("features", {"vmcoreinfo": "on"}, word)


def _build_sga(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Let the firmware speak on the serial port, which libvirt wants to be there."""
    if draft.devices.find("serial") is None:
        return
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.head.put("os", {"useserial": "yes"}, word)


ROWS = (
    DeviceRow(
        drivers=("vmgenid",), template="genid", bus=Bus.NONE, build=_build_genid, since=(4, 4), once=True,
        keys=(Key(key="guid", hole="guid", read=_guid),),
    ),
    DeviceRow(drivers=("sga",), template="none", bus=Bus.NONE, build=_build_sga, once=True),
    DeviceRow(drivers=("vmcoreinfo",), template="none", bus=Bus.NONE, build=_build_vmcoreinfo, once=True),
)
