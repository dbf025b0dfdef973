"""Where a verb gets its QEMU command line from: FILE in shell syntax, `-`, the words after `--`, or --pid."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from virtsnap.command_line.shell_words import CommandWords, parse_shell_text, split_environment
from virtsnap.errors import UsageError

_ARGV = "virtsnap.argv"


class CommandLineCommand(click.Command):
    """A click command whose words after `--` are a QEMU command line, kept apart from FILE arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Part the words at the first `--`; click parses those before it."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_ARGV] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show both ways to give the command line."""
        return [*super().collect_usage_pieces(ctx), "| -- ARGV..."]


@dataclass(frozen=True, kw_only=True)
class CommandSource:
    """One QEMU command line and where it came from.

    `name` is the file's stem, None where there is no file. `base` is the
    folder that its relative paths start from.
    """

    words: CommandWords
    name: str | None
    base: Path


def words_after_dashes() -> list[str] | None:
    """Give the words after `--` of the running verb, None where there is no `--`."""
    found: list[str] | None = click.get_current_context().meta.get(_ARGV)
    return found


def read_one(files: Sequence[str], pid: int | None = None) -> CommandSource:
    """Read the one command line that a verb was given; raises UsageError unless there is exactly one."""
    argv = words_after_dashes()
    given = len(files) + (argv is not None) + (pid is not None)
    if given != 1:
        problem = "no QEMU command line was given" if given == 0 else "more than one QEMU command line was given"
        raise UsageError(problem, hint="give FILE, `-` for standard input, --pid N, or the words after --")
    if argv is not None:
        return CommandSource(words=split_environment(argv), name=None, base=Path.cwd())
    if pid is not None:
        return read_process(pid)
    return read_file(files[0])


def read_file(file: str) -> CommandSource:
    """Read a command line in shell syntax from a file, or from standard input for `-`."""
    if file == "-":
        return CommandSource(words=parse_shell_text(sys.stdin.read()), name=None, base=Path.cwd())
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}", hint="FILE holds a QEMU command line in shell syntax") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{file}: it is not UTF-8 text (byte {exc.start})") from exc
    return CommandSource(words=parse_shell_text(text), name=path.stem, base=path.resolve().parent)


def read_process(pid: int) -> CommandSource:
    """Read the command line of a running QEMU; relative paths start from its working directory."""
    folder = Path("/proc") / str(pid)
    try:
        raw = (folder / "cmdline").read_bytes()
        base = (folder / "cwd").readlink()
    except OSError as exc:
        raise UsageError(f"process {pid}: {exc.strerror}", hint="name a running QEMU of yours") from exc
    argv = raw.decode("utf-8", "surrogateescape").rstrip("\0").split("\0")
    if not argv[0]:
        raise UsageError(f"process {pid} has no command line", hint="name a running QEMU")
    return CommandSource(words=CommandWords(environment=(), argv=tuple(argv)), name=None, base=base)
