"""-rtc, -localtime and -startdate become <clock>; the timers come from here, -global, -machine and -cpu."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word, refuse
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.unwritten.environment import value_of

# timeZone in libvirt's domaincommon.rng.
TIME_ZONE = re.compile(r"[a-zA-Z0-9_.+\-/]+")
# <clock offset='absolute'> came with libvirt 8.4.
ABSOLUTE_SINCE = (8, 4)


def _track(value: str) -> str | None:
    if value == "host":
        return None  # QEMU's default
    if value == "vm":
        return "guest"
    raise NotSayable(f"libvirt has no word for {value!r}")


def _drift(value: str) -> str | None:
    if value == "slew":
        return "catchup"
    if value == "none":
        return None  # QEMU's default
    raise NotSayable(f"libvirt has no word for {value!r}")


RTC: tuple[Key, ...] = (
    Key(key="clock", hole="rtc_track", read=_track),
    Key(key="driftfix", hole="rtc_tickpolicy", read=_drift),
)
TABLES = (
    Table(group="rtc", keys=(Key(key="base", hole="offset"), *RTC)),
)


def convert_clock(draft: Draft) -> None:
    """Say where the guest's clock starts; without a word, at UTC as QEMU does."""
    draft.head.put("clock", {"offset": "utc"})
    draft.head.put_keys("clock", RTC, draft.group("rtc"), draft.target)
    for word in draft.group("rtc", "startdate", "localtime"):
        _convert_base(draft, word)
    zone = value_of(draft, "TZ")
    if draft.head.get("clock", "offset") == "localtime" and zone and TIME_ZONE.fullmatch(zone):
        # localtime is of the time zone that QEMU's environment names (qemuBuildRTCCommandLine…() sets TZ).
        draft.head.put("clock", {"offset": "timezone", "timezone": zone})


def _convert_base(draft: Draft, word: Word) -> None:
    if word.group == "localtime":
        word.claim_rest(Outcome.MAPPED)
        draft.head.put("clock", {"offset": "localtime", "start": None}, word)
        return
    key = "base" if word.group == "rtc" else word.group
    base = word.peek(key)
    if base is None:
        return
    if base in ("now", "utc"):
        word.claim(key, Outcome.MAPPED)
        draft.head.put("clock", {"offset": "utc", "start": None}, word)
    elif base == "localtime":
        word.claim(key, Outcome.MAPPED)
        draft.head.put("clock", {"offset": "localtime", "start": None}, word)
    else:
        start = _epoch(word, base)
        if draft.knows(ABSOLUTE_SINCE):
            word.claim(key, Outcome.MAPPED)
            draft.head.put("clock", {"offset": "absolute", "start": str(start)}, word)


def _epoch(word: Word, text: str) -> int:
    for pattern in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"):
        try:
            return int(datetime.strptime(text, pattern).replace(tzinfo=UTC).timestamp())
        except ValueError:
            continue
    hint = "give utc, localtime or a time such as 2024-02-15T09:49:06"
    raise refuse(word.option, f"{text!r} is not a time", hint)
