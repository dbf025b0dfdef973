"""-device words that are no device to libvirt but a feature of the machine: vmcoreinfo, vmgenid."""

from __future__ import annotations

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Bus, DeviceRow, Key
from virtsnap.convert.values import same


def _build_vmcoreinfo(draft: Draft, word: Word, row: DeviceRow) -> None:
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.head.put("features", {"vmcoreinfo": "on"}, word)


def _build_vmgenid(draft: Draft, word: Word, row: DeviceRow) -> None:
    guid = word.peek("guid")
    if guid in (None, "auto"):
        return  # QEMU's own random one; libvirt would keep its own
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    element = draft.child("genid")
    element.text = word.take("guid")
    word.land(element)


ROWS = (
    DeviceRow(drivers=("vmcoreinfo",), template="none", bus=Bus.NONE, build=_build_vmcoreinfo, once=True),
    DeviceRow(
        drivers=("vmgenid",), template="none", bus=Bus.NONE, build=_build_vmgenid, once=True,
        keys=(Key(key="guid", hole="genid", read=same),),
    ),
)
