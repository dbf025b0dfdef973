"""A configuration file of QEMU's (-readconfig) becomes options, as if they stood on the command line.

    [device "rp1"]
      driver = "pcie-root-port"

is `-device id=rp1,driver=pcie-root-port`. Rules: qemu_config_foreach() in QEMU's util/qemu-config.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from virtsnap.command_line.keyval import SyntaxFault, join_commas
from virtsnap.command_line.option_table import OPTIONS, Syntax
from virtsnap.command_line.options import Option, parse_argument

_SECTION = re.compile(r'\[\s*([^\s"\]]+)(?:\s+"([^"]+)")?\s*\]')
_SETTING = re.compile(r'([^\s=]+)\s*=\s*"([^"]*)"')
# Groups that have another name in a file than on the command line.
_NAMES: Mapping[str, str] = {"memory": "m", "smp-opts": "smp", "boot-opts": "boot", "acpi": "acpitable"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section: the group's name, and its settings in order, the id first."""

    group: str
    settings: tuple[tuple[str, str], ...]


def parse_config(text: str) -> list[Section]:
    """Read the text of a file; raises SyntaxFault, which names the line, where QEMU would refuse it."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        head, setting = _SECTION.fullmatch(line), _SETTING.fullmatch(line)
        if head is not None:
            found.append((head[1], [("id", head[2])] if head[2] else []))
        elif setting is not None and found:
            found[-1][1].append((setting[1], setting[2]))
        else:
            raise SyntaxFault(f'line {number} is neither [group "id"] nor key = "value" in a group')
    return [Section(group=group, settings=tuple(settings)) for group, settings in found]


def options_of(sections: Iterable[Section], parent: Option, file: str) -> list[Option] | None:
    """Make the options that the sections of a -readconfig stand for; None where one has no option of its name.

    Raises SyntaxFault for a section that QEMU would refuse.
    """
    options: list[Option] = []
    for section in sections:
        name = _NAMES.get(section.group, section.group)
        row = OPTIONS.get(name)
        if row is None or row.syntax not in (Syntax.KEYVAL, Syntax.GLOBAL) or not section.settings:
            return None
        argument = join_commas(list(section.settings))
        options.append(Option(
            group=row.group, spelling=f"-{name}", argument=argument, first=parent.first, last=parent.last,
            properties=parse_argument(row, argument), config=file,
        ))
    return options
