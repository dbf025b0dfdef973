"""-object iothread becomes <iothreads>, -object main-loop <defaultiothread>.

libvirt numbers its iothreads, and calls number N `iothreadN`.
"""

from __future__ import annotations

import re

from lxml import etree

from virtsnap.convert.claims import Claims, Options
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, read_keys
from virtsnap.convert.values import number

# Source: qemuBuildIOThreadCommandLine() in libvirt's qemu_command.c.
KEYS: tuple[Key, ...] = (
    Key(key="poll-max-ns", hole="poll_max", read=number, since=(9, 4)),
    Key(key="poll-grow", hole="poll_grow", read=number, since=(9, 4)),
    Key(key="poll-shrink", hole="poll_shrink", read=number, since=(9, 4)),
    Key(key="thread-pool-min", hole="thread_pool_min", read=number, since=(8, 5)),
    Key(key="thread-pool-max", hole="thread_pool_max", read=number, since=(8, 5)),
)
# QEMU's own loop, which serves the devices that have no iothread; libvirt has its threads, not its batches.
MAIN_LOOP_KEYS: tuple[Key, ...] = tuple(key for key in KEYS if key.key.startswith("thread-pool-"))
MAIN_LOOP_SINCE = (8, 5)
TABLES = (
    Table(group="object", keys=KEYS, selector=("qom-type", "iothread")),
    Table(group="object", keys=MAIN_LOOP_KEYS, selector=("qom-type", "main-loop")),
)


def _numbers(draft: Draft) -> dict[str, int]:
    """Give every iothread its number: the one in an id such as iothread3, else the first that is free."""
    ids = [word.peek("id") or "" for word in _words(draft)]
    numbers: dict[str, int] = {}
    for id_ in ids:
        found = re.fullmatch(r"iothread([1-9][0-9]{0,4})", id_)
        if found:
            numbers[id_] = int(found[1])
    for id_ in ids:
        if id_ not in numbers:
            numbers[id_] = next(n for n in range(1, len(ids) + 1) if n not in numbers.values())
    return numbers


def _words(draft: Draft) -> list[Word]:
    return [word for word in draft.group("object") if word.peek("qom-type") == "iothread"]


def iothread_number(draft: Draft, id_: str) -> str:
    """Give libvirt's number of an iothread; raises NotSayable where no -object has the id."""
    numbers = _numbers(draft)
    if id_ not in numbers:
        raise NotSayable(f"no -object iothread has the id {id_}")
    return str(numbers[id_])


def convert_iothreads(draft: Draft) -> None:
    """Write <iothreads>, and <iothreadids> where the numbers or their keys want saying."""
    words, numbers = _words(draft), _numbers(draft)
    if not words:
        return
    count = etree.Element("iothreads")
    count.text = str(len(words))
    ids = etree.Element("iothreadids")
    plain = sorted(numbers.values()) == list(range(1, len(words) + 1))
    for word in words:
        word.claim("qom-type", Outcome.MAPPED)
        word.claim("id", Outcome.IMPLIED)
        holes = read_keys(word, KEYS, draft.target)
        plain = plain and not holes
        element = draft.fill("iothread", {"id": str(numbers[word.peek("id") or ""]), **holes})
        ids.append(element)
    draft.devices.addprevious(count)
    if not plain:
        draft.devices.addprevious(ids)
    for word, element in zip(words, ids, strict=True):
        word.land(count if plain else element)


def convert_main_loop(draft: Draft) -> None:
    """Write <defaultiothread> for -object main-loop; it stays QEMU's where it says more than libvirt has."""
    for word in draft.group("object"):
        if word.peek("qom-type") != "main-loop":
            continue
        claims = Claims()
        options = Options.of_word(word, claims)
        try:
            if not draft.knows(MAIN_LOOP_SINCE):
                raise NotSayable("<defaultiothread> came with libvirt 8.5")
            holes = options.read(MAIN_LOOP_KEYS, draft.target)
            options.take("qom-type")
            options.take("id", Outcome.IMPLIED)
            left = ", ".join(entry.key for entry in options.left())
            if left:
                raise NotSayable(f"libvirt has no word for {left} of the main loop")
        except NotSayable as exc:
            word.note(str(exc))
            continue
        if not holes:
            word.claim_rest(Outcome.IMPLIED, "QEMU always has its main loop")
            continue
        element = draft.fill("defaultiothread", holes)
        draft.devices.addprevious(element)
        claims.commit(element)
