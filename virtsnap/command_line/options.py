"""Words become options: each with its argument read, and the indices in argv that it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from virtsnap.command_line.chardev_text import parse_chardev_text
from virtsnap.command_line.keyval import (
    Properties,
    Property,
    SyntaxFault,
    parse_json,
    parse_keyval,
    split_commas,
)
from virtsnap.command_line.option_table import OPTIONS, OptionRow, Syntax
from virtsnap.errors import CommandLineError

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a command line.

    `group` is the canonical name without dashes (`machine` for -M, `drive`
    for -hda), or `unknown` where no QEMU is known to have it. `argument` is the second word as it stands, None
    for a flag. `first` and `last` are the indices in argv, counted from the emulator at 0. `config` is the
    file in which the option stands instead; its indices are then those of the -readconfig.
    """

    group: str
    spelling: str
    argument: str | None
    first: int
    last: int
    properties: Properties
    config: str | None = None

    @property
    def text(self) -> str:
        """The option as it stands in argv, the words joined by a blank."""
        return self.spelling if self.argument is None else f"{self.spelling} {self.argument}"

    @property
    def words(self) -> list[str]:
        """The words in argv."""
        return [self.spelling] if self.argument is None else [self.spelling, self.argument]


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A whole command line, read."""

    emulator: str
    options: tuple[Option, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def group(self, name: str) -> list[Option]:
        """Give the options of one group, in order."""
        return [option for option in self.options if option.group == name]


def parse_options(argv: Sequence[str], environment: Sequence[tuple[str, str]] = ()) -> CommandLine:
    """Read argv, argv[0] being the emulator.

    Raises CommandLineError, naming the argument, for a missing value and for
    an argument that QEMU's own parser would refuse. An option that is not in
    the table becomes one of the group `unknown`; a following word that does
    not start with a dash is taken as its value.
    """
    if not argv:
        raise CommandLineError("the command line is empty", hint="the first word is the emulator")
    if any("\0" in word for word in argv):
        raise CommandLineError("a word holds a NUL byte, which no program can be given")
    options: list[Option] = []
    at = 1
    while at < len(argv):
        option = _read(argv, at)
        options.append(option)
        at = option.last + 1
    return CommandLine(emulator=argv[0], options=tuple(options), environment=tuple(environment))


def _read(argv: Sequence[str], at: int) -> Option:
    word = argv[at]
    if not word.startswith("-") or word == "-":
        # A word without a dash is an image file: QEMU reads it as -hda.
        properties = Properties(items=(Property(key="file", value=word), *_extra(OPTIONS["hda"])))
        return Option(group="drive", spelling=word, argument=None, first=at, last=at, properties=properties)
    name = word[2:] if word.startswith("--") else word[1:]
    row = OPTIONS.get(name)
    if row is None:
        if at + 1 < len(argv) and not argv[at + 1].startswith("-"):
            value = Properties(items=(Property(key=name, value=argv[at + 1]),))
            return Option(
                group=UNKNOWN, spelling=word, argument=argv[at + 1], first=at, last=at + 1, properties=value
            )
        flag = Properties(items=(Property(key=name, value="on"),))
        return Option(group=UNKNOWN, spelling=word, argument=None, first=at, last=at, properties=flag)
    if row.syntax is Syntax.FLAG:
        flag = Properties(items=(Property(key=name, value="on"),))
        return Option(group=row.group, spelling=word, argument=None, first=at, last=at, properties=flag)
    if at + 1 >= len(argv):
        raise CommandLineError(
            f"{word}: its value is missing", argument=at, hint=f"give {word} a value, or take it out"
        )
    argument = argv[at + 1]
    try:
        properties = parse_argument(row, argument)
    except SyntaxFault as exc:
        raise CommandLineError(f"{word} {argument}: {exc}", argument=at + 1) from exc
    return Option(
        group=row.group, spelling=word, argument=argument, first=at, last=at + 1, properties=properties
    )


def parse_argument(row: OptionRow, argument: str) -> Properties:
    """Read the argument of one option; raises SyntaxFault."""
    match row.syntax:
        case Syntax.KEYVAL:
            json = argument.startswith("{")
            read = parse_json(argument) if json else parse_keyval(argument, row.implied_key)
        case Syntax.CPU:
            read = _parse_cpu(argument)
        case Syntax.CHARDEV:
            read = parse_chardev_text(argument)
        case Syntax.GLOBAL:
            read = _parse_global(argument)
        case Syntax.SET:
            read = _parse_set(argument)
        case _:
            read = Properties(items=(Property(key=row.implied_key or row.name, value=argument),))
    return Properties(items=(*read.items, *_extra(row)), json=read.json)


def _extra(row: OptionRow) -> list[Property]:
    return [Property(key=key, value=value, given=False) for key, value in row.extra]


def _parse_cpu(text: str) -> Properties:
    """Read -cpu: the model, then +feature, -feature, feature, key=value."""
    model, *features = split_commas(text)
    if not model:
        raise SyntaxFault("the model is missing")
    items = [Property(key="model", value=model)]
    for feature in features:
        if feature.startswith("+"):
            items.append(Property(key=feature[1:], value="on"))
        elif feature.startswith("-"):
            items.append(Property(key=feature[1:], value="off"))
        elif "=" in feature:
            key, _, value = feature.partition("=")
            items.append(Property(key=key, value=value))
        elif feature:
            items.append(Property(key=feature, value="on"))
    return Properties(items=tuple(items))


def _parse_global(text: str) -> Properties:
    """Read -global: DRIVER.PROPERTY=VALUE becomes the three keys of the long form."""
    head, equals, value = text.partition("=")
    driver, dot, name = head.partition(".")
    if equals and dot and "," not in head:
        items = [("driver", driver), ("property", name), ("value", value)]
        return Properties(items=tuple(Property(key=k, value=v) for k, v in items))
    read = parse_keyval(text)
    if not all(key in read for key in ("driver", "property", "value")):
        raise SyntaxFault("it is neither DRIVER.PROPERTY=VALUE nor driver=…,property=…,value=…")
    return read


def _parse_set(text: str) -> Properties:
    """Read -set: GROUP.ID.ARG=VALUE."""
    head, equals, value = text.partition("=")
    parts = head.split(".", 2)
    if not equals or len(parts) != 3 or not all(parts):
        raise SyntaxFault("it is not GROUP.ID.ARG=VALUE")
    items = zip(("group", "id", "arg", "value"), (*parts, value), strict=True)
    return Properties(items=tuple(Property(key=k, value=v) for k, v in items))
