"""The conversion report, and what is supported for an option, as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtsnap.convert.explain import Explanation

STYLES = {
    "mapped": "green", "implied": "green", "managed": "cyan", "substituted": "yellow", "passthrough": "magenta",
    "dropped": "bold red",
}


def print_report(report: dict[str, Any], *, title: str | None = None) -> None:
    """Print a row for each argument on stderr: index, text, outcome, where it went or why it did not."""
    console = Console(stderr=True)
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("argv", justify="right", no_wrap=True)
    table.add_column("argument", overflow="fold", ratio=5)
    table.add_column("outcome", no_wrap=True)
    table.add_column("where, or why not", overflow="fold", ratio=4)
    for entry in report["arguments"]:
        first, last = entry["argv"]
        where = ", ".join(path.removeprefix("/domain/") for path in entry["xpath"])
        table.add_row(
            str(first) if first == last else f"{first}-{last}",
            Text(entry["text"]),
            Text(entry["outcome"], style=STYLES[entry["outcome"]]),
            Text("; ".join(piece for piece in (where, entry["note"], entry.get("host")) if piece)),
        )
    console.print(table)


def print_explanation(found: Explanation) -> None:
    """Print a row for each supported key on stdout."""
    console = Console(soft_wrap=True)
    since = f", from libvirt {found.since[0]}.{found.since[1]} on" if found.since > (0, 0) else ""
    title = found.title + since
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading in ("key", "in the domain", "since", "outcome", "note"):
        table.add_column(heading)
    for line in found.keys:
        version = f"{line.since[0]}.{line.since[1]}" if line.since > (0, 0) else ""
        outcome = "implied" if line.place is None and line.outcome.word == "mapped" else line.outcome.word
        table.add_row(line.key, line.place or "", version, Text(outcome, style=STYLES[outcome]), line.note or "")
    console.print(table)
    console.print(f"any other key: {found.other_keys}")
