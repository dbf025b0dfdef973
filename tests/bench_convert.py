"""How long conversions take: 500 in one process, one by the command, and the bare start.

`make bench-convert` runs this. Inputs are the golden cases' command lines, or the
*.args of folders that are named as arguments. Each figure is the median of
several runs, with the fastest and the slowest; the last column is the ratio to
starting an empty Python.
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

import virtsnap
from tests.case_files import all_cases
from virtsnap.command_line.shell_words import CommandWords, parse_shell_text
from virtsnap.convert import convert_command_line

CONVERSIONS = 500
RUNS = 5
VIRTSNAP = Path(sys.executable).with_name("virtsnap")


def command_lines(folders: list[str]) -> list[CommandWords]:
    """Give the command lines to convert: those of the folders, else the golden cases'."""
    if not folders:
        return [case.command for case in all_cases()]
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.args"))]
    return [parse_shell_text(file.read_text()) for file in files]


def seconds(run: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main(folders: list[str]) -> int:
    """Print the table."""
    lines = list(islice(cycle(command_lines(folders)), CONVERSIONS))

    def convert_all() -> None:
        for line in lines:
            convert_command_line(line.argv, environment=line.environment)

    def program(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run(words, check=True, capture_output=True)

    one = ["-q", "convert", "--", *lines[0].argv]
    rows: dict[str, Callable[[], object]] = {
        "an empty Python": program(sys.executable, "-c", ""),
        "virtsnap --version": program(str(VIRTSNAP), "--version"),
        "virtsnap convert, one command line": program(str(VIRTSNAP), *one),
        f"{CONVERSIONS} conversions in one process": convert_all,
    }
    # Bytecode as an installed package has it, whether or not Python may write its own here.
    compileall.compile_dir(str(Path(virtsnap.__path__[0])), quiet=1)
    for run in rows.values():
        run()  # files into the page cache, tables and templates into memory
    table = Table("what", "median", "fastest", "slowest", "of an empty Python", box=None)
    base = 0.0
    for name, run in rows.items():
        samples = [seconds(run) for _ in range(RUNS)]
        median = statistics.median(samples)
        base = base or median
        table.add_row(
            name, f"{median:.3f} s", f"{min(samples):.3f} s", f"{max(samples):.3f} s", f"{median / base:.1f}"
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
