"""The MAC addresses that QEMU gives to cards without one: 52:54:00:12:34:56, 57, …, leaving out those in use.

Source: qemu_macaddr_default_if_unset() in QEMU's net/net.c. It is asked once
for each card, in the order in which QEMU makes them: -nic, -net nic, -device
in text form, -device in JSON form.
"""

from __future__ import annotations

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Word
from virtsnap.convert.network.nics import row_of

_FIRST = 0x56
_BASE = "52:54:00:12:34:"
_ORDER = {"nic": 0, "net": 1}


class MacAddresses:
    """The addresses that are taken so far; a card counts once QEMU has come to it."""

    def __init__(self) -> None:
        self._used: set[int] = set()

    def given(self, mac: str) -> None:
        """Note an address that a card says itself."""
        if mac.lower().startswith(_BASE):
            self._used.add(int(mac[-2:], 16))

    def next(self) -> str | None:
        """Give the next free address; None when all are used, where QEMU does not start."""
        number = next((each for each in range(_FIRST, 0xFF) if each not in self._used), None)
        if number is None:
            return None
        self._used.add(number)
        return f"{_BASE}{number:02x}"


def settle_macs(draft: Draft) -> None:
    """Write out the MAC of every card that says none; call when all cards are there."""
    addresses = MacAddresses()
    seen: set[int] = set()
    for word in sorted(draft.words, key=_order):
        if word.untouched and _is_card(word):
            _settle_passed_on(word, addresses)
        for element in word.elements:
            if element.tag != "interface" or id(element) in seen:
                continue
            seen.add(id(element))
            said = element.find("mac")
            if said is not None:
                addresses.given(said.get("address") or "")
            elif mac := addresses.next():
                element.insert(0, etree.Element("mac", address=mac))


def _is_card(word: Word) -> bool:
    if word.group == "device":
        return row_of(word.peek("driver") or "") is not None
    return word.group == "net" and word.passed_as is not None


def _settle_passed_on(word: Word, addresses: MacAddresses) -> None:
    """Write out the MAC of a card that stays QEMU's, to which QEMU would now come at another time."""
    said = word.peek("mac") or word.peek("macaddr")
    if said is not None:
        addresses.given(said)
    elif mac := addresses.next():
        word.passed_with["mac"] = mac


def _order(word: Word) -> int:
    return _ORDER.get(word.group, 3 if word.properties.json else 2)
