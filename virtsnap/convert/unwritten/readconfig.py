"""-readconfig: the options in the file are converted like all others, and -readconfig stands for them.

The file is read by whoever calls the conversion; where it is not there, a vendor's may be known.
Where it is neither, QEMU is told to read it, and what it defines is unknown here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from virtsnap.command_line.config_file import Section, options_of, parse_config
from virtsnap.command_line.keyval import SyntaxFault
from virtsnap.command_line.options import CommandLine, Option
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word, refuse
from virtsnap.convert.unwritten.vendor_configs import vendor_config
from virtsnap.domain_xml.templates import writable

ReadFile = Callable[[Path], str | None]


def expand_configs(command_line: CommandLine, base: Path, read_file: ReadFile | None) -> CommandLine:
    """Put the options of every file that can be read behind its -readconfig, where QEMU reads them.

    Raises CommandLineError for a file that QEMU could not read either.
    """
    options: list[Option] = []
    for option in command_line.options:
        options.append(option)
        if option.group == "readconfig":
            options += _options_in(option, Path(os.path.normpath(base / (option.argument or ""))), read_file)
    return replace(command_line, options=tuple(options))


def _options_in(option: Option, path: Path, read_file: ReadFile | None) -> list[Option]:
    try:
        sections = sections_of(path, read_file)
        return [] if sections is None else options_of(sections, option, str(path)) or []
    except SyntaxFault as exc:
        raise refuse(option, str(exc), "mend the file, or take -readconfig out") from exc


def sections_of(path: Path, read_file: ReadFile | None) -> list[Section] | tuple[Section, ...] | None:
    """Give what stands in a file, or what a vendor's of that name is known to hold."""
    text = read_file(path) if read_file is not None else None
    if text is not None and not writable(text):
        raise SyntaxFault("it holds a character that no XML can carry")
    return vendor_config(str(path)) if text is None else parse_config(text)


def unread_configs(command_line: CommandLine) -> bool:
    """Tell whether some -readconfig brings options that nobody here knows."""
    read = {option.first for option in command_line.options if option.config is not None}
    return any(option.first not in read for option in command_line.group("readconfig"))


def claim_configs(draft: Draft) -> None:
    """Keep a -readconfig whose options are known from being passed on."""
    for word in draft.group("readconfig"):
        if options_inside(draft, word):
            word.claim_rest(Outcome.MAPPED)


def settle_configs(draft: Draft) -> None:
    """Say of each -readconfig what became of its options: the worst of it, and where they stand."""
    for word in draft.group("readconfig"):
        inside = options_inside(draft, word)
        if inside:
            word.claim_all(max(each.outcome for each in inside), f"its {len(inside)} options stand in the domain")
        for each in inside:
            word.land(*each.elements)
            if each.outcome >= Outcome.PASSTHROUGH or each.notes:
                word.note(f"{each.option.text}: {'; '.join([each.outcome.word, *each.notes])}")


def options_inside(draft: Draft, word: Word) -> list[Word]:
    """Give the options that stand in the file of a -readconfig; none for any other option."""
    if word.group != "readconfig":
        return []
    return [
        each for each in draft.words if each.option.config is not None and each.option.first == word.option.first
    ]
