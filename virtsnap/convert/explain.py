"""What is supported for an option, read off the very rows that convert it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from virtsnap.command_line.options import Option, parse_options
from virtsnap.convert.conversion import convert_command_line
from virtsnap.convert.device_row import Bus
from virtsnap.convert.devices import device_rows, tables
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Version
from virtsnap.domain_xml.templates import Templates
from virtsnap.errors import CommandLineError, UsageError

# Where an option is tried out.
EMULATOR = "qemu-system-x86_64"


@dataclass(frozen=True, kw_only=True)
class KeyLine:
    """One supported key: where in the domain it goes (None: the domain has it anyway), and since which libvirt."""

    key: str
    place: str | None
    since: Version
    outcome: Outcome
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is supported for one option."""

    title: str
    since: Version
    keys: tuple[KeyLine, ...]
    other_keys: str


def explain(words: Sequence[str], templates: Templates | None = None) -> Explanation:
    """Explain the first option in `words`, such as `-device virtio-blk`; UsageError for one without a row."""
    if not words:
        raise UsageError("--explain wants an option", hint="for example: --explain -device virtio-rng-pci")
    try:
        option = parse_options([EMULATOR, *words]).options[0]
    except CommandLineError as exc:
        if len(words) > 1:
            raise
        option = _without_value(words[0], exc)
    word = Word(option)
    templates = templates or Templates()
    if option.group == "device":
        return _explain_device(word, templates)
    found = [table for table in tables() if table.holds_for(word)]
    if not found:
        found = [table for table in tables() if table.group == option.group]
    if not found:
        return _tried_out(words, templates)
    return Explanation(
        title=option.text, since=(0, 0), keys=tuple(_line(key, {}) for table in found for key in table.keys),
        other_keys="dropped or kept by <qemu:commandline>, as the report says",
    )


def _without_value(word: str, error: CommandLineError) -> Option:
    """Stand in some value for the one that a table of keys does not ask for."""
    try:
        option = parse_options([EMULATOR, word, "x"]).options[0]
    except CommandLineError:
        raise error from None
    if not any(table.group == option.group for table in tables()) and option.group != "device":
        raise error
    return option


def _tried_out(words: Sequence[str], templates: Templates) -> Explanation:
    """Say what becomes of an option by converting it; several tables, or none, have a say in its keys."""
    option = parse_options([EMULATOR, *words]).options[0]
    found = convert_command_line([EMULATOR, *option.words, "-nodefaults"], templates=templates)
    entry = found.report["arguments"][1]
    place = ", ".join(path.removeprefix("/domain/") for path in entry["xpath"]) or None
    keys = [
        KeyLine(key=part["key"], place=place, since=(0, 0), outcome=Outcome[part["outcome"].upper()],
                note=entry["note"])
        for part in entry["parts"]
    ]
    return Explanation(
        title=f"{option.text} (tried out)", since=(0, 0), keys=tuple(keys),
        other_keys="try it out, with what refers to it: `convert` tells what becomes of it in its report",
    )


def _explain_device(word: Word, templates: Templates) -> Explanation:
    driver = word.peek("driver") or ""
    row = device_rows().get(driver)
    if row is None:
        near = sorted(name for name in device_rows() if driver and name.startswith(driver))
        raise UsageError(
            f"-device {driver} is in no row: it is passed through to QEMU as it stands",
            hint=f"did you mean {', '.join(near)}?" if near else None,
        )
    places = templates.places(f"devices/{row.template}")
    keys = [_line(key, places) for key in row.keys]
    if row.bus is Bus.PCI:
        keys += [
            KeyLine(key=key, place="address", since=(0, 0), outcome=Outcome.MAPPED, note=None)
            for key in ("bus", "addr", "multifunction")
        ]
    return Explanation(
        title=f"-device {driver}", since=row.since, keys=tuple(keys),
        other_keys="kept by <qemu:override>, the device stays libvirt's",
    )


def _line(key: Key, places: dict[str, str]) -> KeyLine:
    place = None if key.hole is None else places.get(key.hole, key.hole)
    return KeyLine(key=key.key, place=place, since=key.since, outcome=key.outcome, note=key.note)
