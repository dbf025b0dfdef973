"""-audiodev, -audio and QEMU_AUDIO_DRV become <audio>: where the host plays and records.

libvirt numbers the backends; who names none uses the first one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, Version, read_keys
from virtsnap.convert.values import number, yes_no


@dataclass(frozen=True, kw_only=True)
class AudioDriver:
    """libvirt's word for a driver of QEMU, and the first libvirt that has it."""

    type: str
    since: Version = (0, 0)


DRIVERS: Mapping[str, AudioDriver] = {
    "none": AudioDriver(type="none"),
    "alsa": AudioDriver(type="alsa"),
    "coreaudio": AudioDriver(type="coreaudio"),
    "dbus": AudioDriver(type="dbus", since=(8, 4)),
    "jack": AudioDriver(type="jack"),
    "oss": AudioDriver(type="oss"),
    "pa": AudioDriver(type="pulseaudio"),
    "pipewire": AudioDriver(type="pipewire", since=(9, 10)),
    "sdl": AudioDriver(type="sdl"),
    "spice": AudioDriver(type="spice"),
    "wav": AudioDriver(type="file"),
}


def _direction(side: str) -> tuple[Key, ...]:
    def key(name: str, **more: object) -> Key:
        return Key(key=f"{side}.{name}", hole=f"{side}_{name.replace('-', '_')}", **more)  # type: ignore[arg-type]

    switches = ("mixing-engine", "fixed-settings", "try-poll", "exact-name")
    numbers = ("voices", "buffer-length", "buffer-count", "latency", "frequency", "channels")
    texts = ("dev", "name", "stream-name", "server-name", "client-name", "connect-ports", "format")
    return (
        *(key(name, read=yes_no) for name in switches),
        *(key(name, read=number) for name in numbers),
        *(key(name) for name in texts),
    )


KEYS: tuple[Key, ...] = (
    Key(key="id", hole=None),
    Key(key="timer-period", hole="timer_period", read=number),
    Key(key="server", hole="server_name"),
    Key(key="path", hole="path"),
    Key(key="try-mmap", hole="try_mmap", read=yes_no),
    Key(key="exclusive", hole="exclusive", read=yes_no),
    Key(key="dsp-policy", hole="dsp_policy"),
    *_direction("in"),
    *_direction("out"),
)

TABLES = (
    Table(group="audiodev", keys=(Key(key="driver", hole="type"), *KEYS)),
)


def convert_audio(draft: Draft) -> None:
    """Convert all backends; asked before the devices, which refer to them."""
    ids = audio_ids(draft)
    for word in draft.group("audiodev", "audio"):
        driver = _driver(draft, word.peek("driver"))
        if driver is None:
            continue
        word.claim("driver", Outcome.MAPPED)
        holes = {"id": ids[word.peek("id") or ""], "type": driver.type}
        draft.add(draft.fill("audio", holes | read_keys(word, KEYS, draft.target)), word)
    legacy = _driver(draft, dict(draft.command_line.environment).get("QEMU_AUDIO_DRV"))
    if legacy is not None and legacy.type != "none" and not ids:
        draft.devices.append(draft.fill("audio", {"id": "1", "type": legacy.type}))


def audio_ids(draft: Draft) -> dict[str, str]:
    """Give libvirt's number for every backend that libvirt has; `audio3` keeps its 3."""
    words = [word for word in draft.group("audiodev", "audio") if _driver(draft, word.peek("driver")) is not None]
    names = [word.peek("id") or "" for word in words]
    numbers = [re.fullmatch(r"audio([1-9]\d?)", name) for name in names]
    if all(numbers) and len(set(names)) == len(names):
        return {found.group(0): found.group(1) for found in numbers if found}
    return {name: str(index + 1) for index, name in enumerate(names)}


def knows_audio(draft: Draft, word: Word) -> bool:
    """Tell, without claiming anything, whether libvirt has the backend that a device names."""
    name = word.peek("audiodev")
    return name is None or name in audio_ids(draft)


def audio_reference(draft: Draft, word: Word, *, key: str = "audiodev", always: bool = False) -> str | None:
    """Take a device's backend; None where it is the first one, which libvirt takes anyway."""
    ids = audio_ids(draft)

    def read(value: str) -> str | None:
        if value not in ids:
            raise NotSayable(f"libvirt has no audio backend {value!r}")
        return ids[value] if always or ids[value] != min(ids.values(), key=int) else None

    return word.take_read(key, read)


def _driver(draft: Draft, name: str | None) -> AudioDriver | None:
    driver = DRIVERS.get(name or "")
    return driver if driver is not None and draft.knows(driver.since) else None
