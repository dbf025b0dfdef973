"""The conversion report as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
            Text("; ".join(piece for piece in (where, entry["note"]) if piece)),
        )
    console.print(table)
