"""usb-ccid and the cards in it become a <controller type='ccid'> and <smartcard>."""

from __future__ import annotations

from lxml import etree

from virtsnap.convert.build import build_device
from virtsnap.convert.consoles.chardevs import can_have, find_chardev, put_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.values import absolute_path


def _build_smartcard(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert a card in a usb-ccid reader: the host's own, one made of certificates, or one behind a chardev."""
    driver = word.peek("driver")
    holes: dict[str, str | None] = {}
    if driver == "ccid-card-passthru":
        if not can_have(draft, find_chardev(draft, word)):
            return
        holes["mode"] = "passthrough"
    elif word.peek("backend") == "nss-emulated":
        holes["mode"] = "host"
    elif word.peek("backend") == "certificates" and all(word.has(f"cert{n}") for n in (1, 2, 3)):
        database = word.peek("db")
        holes |= {"mode": "host-certificates", "database": None if database is None else absolute_path(database)}
        word.claim("db", Outcome.MAPPED)
        holes |= {f"cert{n}": word.take(f"cert{n}") for n in (1, 2, 3)}
    else:
        return
    reader = draft.controllers.find(word.peek("bus"), "ccid")
    if reader is None:
        return
    element = draft.fill("smartcard", holes)
    for key in ("driver", "backend", "bus"):
        word.claim(key, Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.add(element, word)
    if driver == "ccid-card-passthru":
        put_chardev(draft, element, word)
    etree.SubElement(element, "address", type="ccid", controller=str(reader[0].index), slot="0")


def _build_ccid(draft: Draft, word: Word, row: DeviceRow) -> None:
    id_ = word.peek("id")
    element = build_device(draft, word, row)
    draft.controllers.add("ccid", id_, element)


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(drivers=("usb-ccid",), template="controller_ccid", bus=Bus.USB, build=_build_ccid),
    DeviceRow(
        drivers=("ccid-card-emulated", "ccid-card-passthru"), template="smartcard", bus=Bus.CCID,
        build=_build_smartcard,
    ),
)
