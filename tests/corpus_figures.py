"""`make corpus-figures CORPUS=folder`: what becomes of the words of a folder of command lines.

Each *.args is converted for the libvirt whose schema is installed, and its domain is
validated. A word is an element of argv, the emulator among them; it counts by the outcome of
its entry in the report, which is that of its worst key. So `-device X,a,b` is two
words, and both are `passthrough` where libvirt has no word for b.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.schema import SCHEMA_VERSION, schema_problem
from virtsnap.command_line.shell_words import parse_shell_text
from virtsnap.convert import convert_command_line
from virtsnap.convert.head.machines import arch_of_emulator
from virtsnap.convert.ledger import Outcome

OUTCOMES = [outcome.word for outcome in Outcome]
LEFT = ("passthrough", "dropped")
MOST = 25


class Figures:
    """The counts over some command lines, filled file by file."""

    def __init__(self) -> None:
        self.words: dict[str, Counter[str]] = {"x86_64": Counter(), "others": Counter()}
        self.left: Counter[str] = Counter()
        self.dropped: list[str] = []
        self.faults: list[str] = []
        self.files = 0

    def add(self, file: Path) -> None:
        """Convert one file and count its words; whatever is wrong becomes a fault."""
        self.files += 1
        command = parse_shell_text(file.read_text(encoding="utf-8"))
        try:
            found = convert_command_line(
                command.argv, environment=command.environment, for_libvirt=SCHEMA_VERSION
            )
        except Exception as exc:  # whatever it is, it is what this looks for
            self.faults.append(f"{file.stem}: {type(exc).__name__}: {exc}")
            return
        problem = schema_problem(found.xml)
        if problem is not None:
            self.faults.append(f"{file.stem}: not valid: {problem}")
        entries = found.report["arguments"]
        covered = [at for entry in entries for at in range(entry["argv"][0], entry["argv"][1] + 1)]
        if covered != list(range(len(command.argv))):
            self.faults.append(f"{file.stem}: the report does not cover each argument once")
        arch = arch_of_emulator(command.argv[0])
        counts = self.words["x86_64" if arch == "x86_64" else "others"]
        for entry in entries:
            counts[entry["outcome"]] += _length(entry)
            if entry["outcome"] in LEFT:
                self.left[_kind(entry)] += _length(entry)
            if entry["outcome"] == "dropped":
                self.dropped.append(f"{file.stem}: {entry['text']}: {entry['note'] or 'NO REASON'}")


def _length(entry: dict[str, Any]) -> int:
    return int(entry["argv"][1] - entry["argv"][0] + 1)


def _kind(entry: dict[str, Any]) -> str:
    """Name what is left over: the option, the driver of a device, and the keys that caused it."""
    option, _, rest = entry["text"].partition(" ")
    keys = [part["key"] for part in entry["parts"] if part["outcome"] in LEFT]
    whole = len(keys) == len(entry["parts"])
    head = re.split(r"[,=:{]", rest)[0] if option in ("-device", "-netdev", "-object", "-global") else ""
    return " ".join(filter(None, [option, head, "" if whole else ",".join(dict.fromkeys(keys))]))


def main(folders: list[str]) -> int:
    """Print the figures of some folders together."""
    figures = Figures()
    for file in [file for folder in folders for file in sorted(Path(folder).glob("*.args"))]:
        figures.add(file)
    table = Table("words of", *OUTCOMES, "all", "left over", box=None)
    for name, counts in [*figures.words.items(), ("all", sum(figures.words.values(), Counter[str]()))]:
        total = counts.total()
        share = sum(counts[outcome] for outcome in LEFT) / total if total else 0.0
        table.add_row(name, *(str(counts[outcome]) for outcome in OUTCOMES), str(total), f"{share:.2%}")
    Console(width=110).print(table)
    print("\nleft over (passthrough or dropped), the most first:")
    for kind, number in figures.left.most_common(MOST):
        print(f"{number:5}  {kind}")
    for text in figures.dropped:
        print(f"dropped: {text}")
    for text in figures.faults:
        print(f"FAULT {text}")
    version = ".".join(map(str, SCHEMA_VERSION))
    print(f"{figures.files} command lines, {len(figures.faults)} faults (libvirt {version})")
    return 1 if figures.faults or not figures.files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
