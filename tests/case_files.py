"""Golden cases: one self-describing file is one case, found by itself.

    # what the case shows, for a reader
    # for-libvirt: 9.0            (optional; the newest without it)
    qemu-system-x86_64 -m 512 …
    --- domain
    <domain …>
    --- report
    mapped      -m 512                     size=mapped
    --- warnings
    …

`pytest --regen` writes the sections below the command line; read every
regenerated case in the diff. A case without its sections fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtsnap.command_line.shell_words import CommandWords, parse_shell_text
from virtsnap.convert import Conversion, convert_command_line

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One golden case, read."""

    file: Path
    head: str
    expected: dict[str, str]

    @property
    def name(self) -> str:
        """The case's name, `subject/name`."""
        return self.file.relative_to(FOLDER).with_suffix("").as_posix()

    @property
    def command(self) -> CommandWords:
        """The command line."""
        return parse_shell_text(self.head)

    @property
    def for_libvirt(self) -> tuple[int, int] | None:
        """The libvirt version that the case is written for; None is the newest."""
        for line in self.head.splitlines():
            if line.startswith("# for-libvirt:"):
                major, minor = line.split(":")[1].strip().split(".")
                return int(major), int(minor)
        return None

    def convert(self) -> Conversion:
        """Convert the command line as the case says."""
        command = self.command
        return convert_command_line(
            command.argv, for_libvirt=self.for_libvirt, environment=command.environment
        )

    def sections(self, conversion: Conversion) -> dict[str, str]:
        """Give the sections as they should stand in the file."""
        found = {"domain": conversion.xml, "report": _report_text(conversion.report)}
        if conversion.report["warnings"]:
            found["warnings"] = "\n".join(conversion.report["warnings"]) + "\n"
        return found

    def write(self, sections: dict[str, str]) -> None:
        """Write the case anew with these sections."""
        text = self.head + "".join(f"--- {name}\n{body}" for name, body in sections.items())
        self.file.write_text(text)


def read_case(file: Path) -> Case:
    """Read one case file."""
    head: list[str] = []
    sections: dict[str, list[str]] = {}
    current = head
    for line in file.read_text().splitlines(keepends=True):
        if line.startswith("--- "):
            current = sections.setdefault(line[4:].strip(), [])
        else:
            current.append(line)
    return Case(file=file, head="".join(head), expected={name: "".join(body) for name, body in sections.items()})


def all_cases() -> list[Case]:
    """Read every case, in the order of their names."""
    return [read_case(file) for file in sorted(FOLDER.rglob("*.case"))]


def _report_text(report: dict[str, Any]) -> str:
    lines = []
    for entry in report["arguments"][1:]:
        parts = " ".join(f"{part['key']}={part['outcome']}" for part in entry["parts"])
        lines.append(f"{entry['outcome']:<12}{entry['text']}\n    {parts}\n")
        if entry["note"]:
            lines.append(f"    note: {entry['note']}\n")
        if "host" in entry:
            lines.append(f"    host: {entry['host']}\n")
    return "".join(lines)
