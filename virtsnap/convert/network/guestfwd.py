"""A user network of one forwarded address and no card becomes <channel> with a guestfwd target.

So libvirt writes such a channel: `-netdev user,guestfwd=tcp:ADDRESS:PORT-chardev:ID`.
A forward on a network that has a card stays with the card.
"""

from __future__ import annotations

import re

from virtsnap.convert.consoles.chardevs import read_chardev
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Table

FORWARD = re.compile(r"tcp:(?P<address>[^:]*):(?P<port>[0-9]+)-chardev:(?P<chardev>.+)")
OWN_KEYS = frozenset({"type", "id", "guestfwd", "guestfwd.0.str"})

TABLES = (
    Table(
        group="netdev", selector=("type", "user"),
        keys=(Key(key="guestfwd", hole="address"), Key(key="guestfwd.0.str", hole="address")),
    ),
)


def convert_guestfwd(draft: Draft) -> None:
    """Convert the channels; asked before the networks."""
    cards = {word.peek("netdev") for word in draft.group("device", "nic", "net")}
    for word in draft.group("netdev"):
        found = FORWARD.fullmatch(word.peek("guestfwd") or word.peek("guestfwd.0.str") or "")
        others = {item.key for item in word.properties} - OWN_KEYS
        if found is None or others or word.peek("id") in cards:
            continue
        backend: Word | None = draft.find(found["chardev"], "chardev")
        source = read_chardev(draft, backend, path_of_libvirt=True)
        if source is None:
            continue
        holes = {"target_type": "guestfwd", "address": found["address"], "port": found["port"]}
        element = draft.fill("guestfwd", holes)
        source.put_into(element)
        word.claim_rest(Outcome.MAPPED)
        draft.add(element, word, source.word)
