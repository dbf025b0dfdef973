"""Values of QEMU become values of libvirt: sizes, switches, numbers, addresses.

Every function here takes the text of one key and gives libvirt's text, or
raises NotSayable with a reason that ends up in the report. `parse_*` functions
raise ValueError instead: their callers decide what a bad value means.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from virtsnap.convert.ledger import NotSayable
from virtsnap.domain_xml.templates import writable

_SUFFIXES = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_SIZE = re.compile(r"(?P<number>0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)(?P<suffix>[bkmgtpeBKMGTPE]?)(?:i?[bB])?")
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What a dot of libxml2's patterns does not stand for (xmlRegexp.c); all of the schema's paths are made of dots.
_LINE_BREAK = re.compile(r"[\n\r]")
_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+)")
TRUE_WORDS = frozenset({"on", "yes", "true", "y"})
FALSE_WORDS = frozenset({"off", "no", "false", "n"})


def same(value: str) -> str:
    """Give the value as it stands."""
    return value


def parse_size_bytes(text: str, *, default_suffix: str = "") -> int:
    """Read a size as QEMU's qemu_strtosz() does, in bytes; raises ValueError.

    `default_suffix` is the unit of a bare number: "m" for `-m 512`.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size")
    number, suffix = found["number"], found["suffix"].lower() or default_suffix
    shift = _SUFFIXES[suffix]
    if number.lower().startswith("0x"):
        return int(number, 16) << shift
    if "." in number:
        try:
            return int(float(number) * (1 << shift))
        except OverflowError as exc:
            raise ValueError(f"{text!r} is beyond all sizes") from exc
    return int(number) << shift


def parse_number(text: str) -> int:
    """Read a number in QEMU's notation (decimal, or 0x…); raises ValueError."""
    text = text.lstrip()
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    return int(text, 16 if "x" in text.lower() else 10)


def is_digits(text: str) -> bool:
    """Tell whether a text is a number in plain digits; str.isdigit() takes those of every script."""
    return text.isascii() and text.isdigit()


def parse_switch(text: str) -> bool:
    """Read on/off in any of QEMU's spellings; raises ValueError."""
    if text.lower() in TRUE_WORDS:
        return True
    if text.lower() in FALSE_WORDS:
        return False
    raise ValueError(f"{text!r} is neither on nor off")


def on_off(value: str) -> str:
    """Give on or off; `auto` has no word in libvirt."""
    try:
        return "on" if parse_switch(value) else "off"
    except ValueError as exc:
        raise NotSayable(str(exc)) from exc


def yes_no(value: str) -> str:
    """Give yes or no."""
    return "yes" if on_off(value) == "on" else "no"


def only_if(expected: str) -> Callable[[str], str | None]:
    """Make a reader that takes one value as what the domain has anyway, and refuses the others."""

    def read(value: str) -> str | None:
        if value.lower() != expected:
            raise NotSayable(f"libvirt has no word for {value!r}")
        return None

    return read


def present_if_on(value: str) -> str | None:
    """Give the empty text (an element without content) for on, nothing for off."""
    return "" if on_off(value) == "on" else None


def number_between(least: int, most: int) -> Callable[[str], str]:
    """Make a reader for whole numbers between two limits, both included, given in decimal."""

    def read(value: str) -> str:
        try:
            found = parse_number(value)
        except ValueError as exc:
            raise NotSayable(f"{value!r} is not a number") from exc
        if not least <= found <= most:
            raise NotSayable(f"{value} is not between {least} and {most}")
        return str(found)

    return read


def number_up_to(limit: int) -> Callable[[str], str]:
    """Make a reader for whole numbers from 0 to a limit, given in decimal."""
    return number_between(0, limit)


# The schema's unsignedInt, which most numbers are, and its unsignedLong as libvirt parses it (virStrToLong_ullp).
number = number_up_to(2**32 - 1)
positive = number_between(1, 2**32 - 1)
long_number = number_up_to(2**63 - 1)


def hexadecimal(digits: int, limit: int | None = None) -> Callable[[str], str]:
    """Make a reader that gives a number as 0x… with so many digits at least; by default there are no more."""
    within = number_up_to(16**digits - 1 if limit is None else limit)
    return lambda value: f"0x{int(within(value)):0{digits}x}"


port = number_up_to(65535)


def host(value: str) -> str:
    """Give a host name or an address; libvirt's schema takes nothing else."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9.-]+", value):
            return value
        raise NotSayable(f"{value!r} is neither a host name nor an address") from None


def fits_one_line(value: str) -> bool:
    """Tell whether the schema's paths and names have room for a text: XML carries it, and it has no line break."""
    return writable(value) and not _LINE_BREAK.search(value)


def one_line(value: str) -> str:
    """Give a text such as a path, which libvirt's schema wants in one line."""
    if not value or not fits_one_line(value):
        raise NotSayable("it is empty or has a line break")
    return value


def absolute_path(value: str) -> str:
    """Give the absolute path of a file, which is more than the root folder."""
    if not value.startswith("/") or value == "/":
        raise NotSayable("libvirt takes the absolute path of a file only")
    return one_line(value)


def uuid(value: str) -> str:
    """Give a UUID, with the dashes that QEMU wants where libvirt would do without: qemu_uuid_parse()."""
    if not UUID.fullmatch(value):
        raise NotSayable(f"{value!r} is not a UUID")
    return value


def generic_name(value: str) -> str:
    """Give a name of the few characters that the schema has for a user or a snapshot (its genericName)."""
    if not re.fullmatch(r"[a-zA-Z0-9_+-]+", value):
        raise NotSayable(f"libvirt takes no name such as {value!r}")
    return value


def own_alias(id_: str | None) -> str | None:
    """Give an id that can be libvirt's alias as it stands: those that begin with ua- are the user's to choose."""
    return id_ if id_ is not None and re.fullmatch(r"ua-[a-zA-Z0-9_.-]+", id_) else None


def size_in(unit_bytes: int) -> Callable[[str], str]:
    """Make a reader that gives a size in whole units of so many bytes."""

    def read(value: str) -> str:
        try:
            size = parse_size_bytes(value)
        except ValueError as exc:
            raise NotSayable(str(exc)) from exc
        if size >= 1 << 63:
            raise NotSayable(f"{value} is beyond all sizes")
        if size % unit_bytes:
            raise NotSayable(f"{value} is not a whole number of {unit_bytes} bytes")
        return str(size // unit_bytes)

    return read


def one_of(words: Mapping[str, str]) -> Callable[[str], str]:
    """Make a reader from a table: QEMU's word to libvirt's."""

    def read(value: str) -> str:
        if value not in words:
            raise NotSayable(f"libvirt has no word for {value!r}")
        return words[value]

    return read
