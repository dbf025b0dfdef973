"""bootindex becomes <boot order>; QEMU counts from 0, libvirt from 1."""

from __future__ import annotations

import re

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable
from virtsnap.convert.rows import Key
from virtsnap.convert.values import number


def boot_order(value: str) -> str | None:
    """Give the order as it stands; `settle_boot_order` moves all up where one of them is 0."""
    return None if value == "-1" else number(value)


def loadparm(value: str) -> str:
    """Give the menu entry that s390's boot loader chooses, of up to eight characters."""
    if not re.fullmatch(r"[a-zA-Z0-9. ]{1,8}", value):
        raise NotSayable(f"{value!r} is no loadparm")
    return value


LOADPARM = Key(key="loadparm", hole="loadparm", read=loadparm, needs="boot_order")


def settle_boot_order(draft: Draft) -> None:
    """Count from 1, as libvirt does, where the command line counts from 0. Only the order matters to a guest."""
    boots = [boot for boot in draft.devices.iterfind("*/boot") if boot.get("order")]
    if any(boot.get("order") == "0" for boot in boots):
        for boot in boots:
            boot.set("order", str(int(boot.get("order") or 0) + 1))
