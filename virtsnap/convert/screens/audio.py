"""-audiodev, -audio and QEMU_AUDIO_DRV become <audio>: where the host plays and records.

libvirt numbers the backends; who names none uses the first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, Version, read_keys
from virtsnap.convert.unwritten.environment import value_of
from virtsnap.convert.values import number_up_to, one_line, one_of, same, yes_no


@dataclass(frozen=True, kw_only=True)
class AudioDriver:
    """libvirt's word for a driver of QEMU, its own keys, and the first libvirt that has it."""

    type: str
    keys: tuple[Key, ...] = ()
    since: Version = (0, 0)


def _matching(pattern: str) -> Callable[[str], str]:
    """Make a reader for texts of which libvirt's schema has a pattern."""

    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise NotSayable(f"libvirt does not take {value!r}")
        return value

    return read


# deviceName in libvirt's basictypes.rng.
_device_name = _matching(r"[a-zA-Z0-9_\.\-\\:/]+")
_number = number_up_to(2**32 - 1)
_format = one_of({name: name for name in ("s8", "u8", "s16", "u16", "s32", "u32", "f32")})


def _sides(name: str, read: Callable[[str], str | None]) -> tuple[Key, ...]:
    """Give the key of both directions: `in.voices` and `out.voices`."""
    return tuple(
        Key(key=f"{side}.{name}", hole=f"{side}_{name.replace('-', '_')}", read=read) for side in ("in", "out")
    )


# Of every driver.
KEYS: tuple[Key, ...] = (
    Key(key="id", hole=None),
    Key(key="timer-period", hole="timer_period", read=_number),
    *_sides("mixing-engine", yes_no),
    *_sides("fixed-settings", yes_no),
    *_sides("voices", _number),
    *_sides("buffer-length", _number),
    *_sides("frequency", _number),
    *_sides("channels", _number),
    *_sides("format", _format),
)
BUFFER_COUNT = _sides("buffer-count", _number)
STREAM = (*_sides("name", same), *_sides("stream-name", same), *_sides("latency", _number))

DRIVERS: Mapping[str, AudioDriver] = {
    "none": AudioDriver(type="none"),
    "alsa": AudioDriver(type="alsa", keys=_sides("dev", one_line)),
    "coreaudio": AudioDriver(type="coreaudio", keys=BUFFER_COUNT),
    "dbus": AudioDriver(type="dbus", since=(8, 4)),
    "jack": AudioDriver(
        type="jack",
        keys=(
            *_sides("server-name", same), *_sides("client-name", same), *_sides("connect-ports", same),
            *_sides("exact-name", yes_no),
        ),
    ),
    "oss": AudioDriver(
        type="oss",
        keys=(
            Key(key="try-mmap", hole="try_mmap", read=yes_no),
            Key(key="exclusive", hole="exclusive", read=yes_no),
            Key(key="dsp-policy", hole="dsp_policy", read=number_up_to(10)),
            *_sides("dev", _device_name), *BUFFER_COUNT, *_sides("try-poll", yes_no),
        ),
    ),
    "pa": AudioDriver(type="pulseaudio", keys=(Key(key="server", hole="server_name"), *STREAM)),
    "pipewire": AudioDriver(type="pipewire", keys=STREAM, since=(9, 10)),
    "sdl": AudioDriver(type="sdl", keys=BUFFER_COUNT),
    "spice": AudioDriver(type="spice"),
    "wav": AudioDriver(type="file", keys=(Key(key="path", hole="path", read=one_line),)),
}

# What SDL plays through is chosen by its environment (qemuBuildAudioCommandLineEnv() in qemu_command.c).
SDL_SOUND: Mapping[str, str] = {
    "esd": "esd", "alsa": "alsa", "arts": "arts", "pulseaudio": "pulseaudio", "pulse": "pulseaudio",
}  # fmt: skip

TABLES = (
    Table(group="audiodev", keys=(Key(key="driver", hole="type"), *KEYS)),
    *(
        Table(group="audiodev", keys=driver.keys, selector=("driver", name))
        for name, driver in DRIVERS.items()
        if driver.keys
    ),
)


def convert_audio(draft: Draft) -> None:
    """Convert all backends; asked before the devices, which refer to them."""
    ids = audio_ids(draft)
    for word in draft.group("audiodev", "audio"):
        driver = _driver(draft, word.peek("driver"))
        if driver is None:
            continue
        word.claim("driver", Outcome.MAPPED)
        holes = read_keys(word, (*KEYS, *driver.keys), draft.target)
        _say_defaults(holes)
        if driver.type == "file" and holes.get("path"):
            holes["path"] = draft.in_base(holes["path"] or "")
        if driver.type == "sdl":
            sound = value_of(draft, "SDL_AUDIODRIVER")
            holes["driver"] = SDL_SOUND.get(sound or "")
        holes |= {"id": ids[word.peek("id") or ""], "type": driver.type}
        draft.add(draft.fill("audio", holes), word)
    legacy = _driver(draft, value_of(draft, "QEMU_AUDIO_DRV"))
    if legacy is not None and legacy.type != "none" and not ids:
        draft.devices.append(draft.fill("audio", {"id": "1", "type": legacy.type}))


def _say_defaults(holes: dict[str, str | None]) -> None:
    """Write out QEMU's own defaults where libvirt refuses what needs them (virDomainAudioDef validation)."""
    for side in ("in", "out"):
        if any(holes.get(f"{side}_{name}") for name in ("frequency", "channels", "format")):
            holes.setdefault(f"{side}_fixed_settings", "yes")
        if holes.get(f"{side}_fixed_settings") == "yes":
            holes.setdefault(f"{side}_mixing_engine", "yes")


def audio_ids(draft: Draft) -> dict[str, str]:
    """Give libvirt's number for every backend that libvirt has; `audio3` keeps its 3."""
    words = [word for word in draft.group("audiodev", "audio") if _driver(draft, word.peek("driver")) is not None]
    names = [word.peek("id") or "" for word in words]
    numbers = [re.fullmatch(r"audio([1-9][0-9]?)", name) for name in names]
    if all(numbers) and len(set(names)) == len(names):
        return {found.group(0): found.group(1) for found in numbers if found}
    return {name: str(index + 1) for index, name in enumerate(names)}


def knows_audio(draft: Draft, word: Word) -> bool:
    """Tell, without claiming anything, whether libvirt has the backend that a device names."""
    name = word.peek("audiodev")
    return name is None or name in audio_ids(draft)


def audio_reference(draft: Draft, word: Word, *, always: bool = False) -> str | None:
    """Take a device's backend; None where it is the first one, which libvirt takes anyway."""
    ids = audio_ids(draft)

    def read(value: str) -> str | None:
        if value not in ids:
            raise NotSayable(f"libvirt has no audio backend {value!r}")
        return ids[value] if always or ids[value] != min(ids.values(), key=int) else None

    return word.take_read("audiodev", read)


def _driver(draft: Draft, name: str | None) -> AudioDriver | None:
    driver = DRIVERS.get(name or "")
    return driver if driver is not None and draft.knows(driver.since) else None
