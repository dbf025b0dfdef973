"""The verb `verify`: a QEMU command line in, the differences between its machine and the domain's out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from virtsnap.cli.answer import answer, exit_code_of, print_json
from virtsnap.cli.command_source import CommandLineCommand, CommandSource, read_one
from virtsnap.cli.convert_verbs import for_libvirt_option, target_version, template_dir_option
from virtsnap.cli.main import Settings
from virtsnap.domain_xml.templates import Templates
from virtsnap.verify.compare import Difference
from virtsnap.verify.verify import NotStartedError, Verdict, check_round_trip, verify_command_line


@click.command(cls=CommandLineCommand)
@for_libvirt_option
@click.option("--pid", type=click.IntRange(min=1), help="Read the command line of this running QEMU.")
@template_dir_option
@click.option(
    "--round-trip", is_flag=True,
    help="Start nothing: compare with the command line that libvirt makes of the domain (domxml-to-native).",
)
@click.option("--show-xml", is_flag=True, help="Print the domain that was started, too.")
@click.argument("files", nargs=-1, metavar="[FILE | -]")
@click.pass_obj
def verify(
    settings: Settings,
    for_libvirt: tuple[int, int] | None,
    pid: int | None,
    template_dirs: tuple[Path, ...],
    round_trip: bool,
    show_xml: bool,
    files: tuple[str, ...],
) -> int:
    """Compare the hardware of a QEMU command line with that of its domain.

    Starts QEMU from the command line, and the converted domain through libvirt, one after
    the other and both stopped before the first instruction, and compares what a guest would see. Missing
    images, taps and host devices are replaced by stand-ins, which are listed. Exit 1: they differ.
    Exit 8: one of the two cannot be started.
    """
    source = read_one(files, pid)
    if round_trip:
        return _round_trip(settings, source, for_libvirt or target_version(settings.uri), Templates(template_dirs))
    try:
        verdict = verify_command_line(
            source.words.argv, uri=settings.uri, base=source.base,
            for_libvirt=for_libvirt or target_version(settings.uri), templates=Templates(template_dirs),
        )
    except NotStartedError as exc:
        if not settings.json:
            raise
        error = {"code": exc.code, "message": exc.message, "hint": exc.hint}
        print_json(answer("verify", error=error, stand_ins=[asdict(entry) for entry in exc.stand_ins]))
        return exit_code_of(exc)
    if settings.json:
        print_json({**_as_json(verdict), "ok": verdict.comparison.same})
    else:
        if show_xml:
            click.echo(verdict.xml, nl=False)
        _print(verdict, quiet=settings.quiet)
    return 0 if verdict.comparison.same else 1


def _round_trip(
    settings: Settings, source: CommandSource, target: tuple[int, int] | None, templates: Templates
) -> int:
    changes = check_round_trip(
        source.words.argv, uri=settings.uri, base=source.base, for_libvirt=target, templates=templates
    )
    unexplained = [change for change in changes if change.reason is None]
    if settings.json:
        print_json({**answer("verify", changes=[asdict(change) for change in changes]), "ok": not unexplained})
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table("subject", "where", "argv", "libvirt", "reason")
        for change in changes:
            row = (change.subject, change.where, change.argv or "-", change.libvirt or "-", change.reason or "")
            table.add_row(*(escape(cell) for cell in row))
        Console(highlight=False).print(table)
    return 1 if unexplained else 0


def _as_json(verdict: Verdict) -> dict[str, object]:
    return answer(
        "verify",
        differences=[asdict(difference) for difference in verdict.comparison.differences],
        expected=[asdict(difference) for difference in verdict.comparison.expected],
        stand_ins=[asdict(stand_in) for stand_in in verdict.stand_ins],
        argv=list(verdict.argv),
        xml=verdict.xml,
    )


def _print(verdict: Verdict, *, quiet: bool) -> None:
    """Print the differences as a table on stdout; what was replaced, and what was expected, on stderr."""
    from rich.console import Console
    from rich.table import Table

    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    if not quiet:
        for stand_in in verdict.stand_ins:
            now = stand_in.now or "nothing"
            notes.print(f"stand-in: {stand_in.was} -> {now} ({stand_in.reason})", markup=False)
        for difference in verdict.comparison.expected:
            told = f"expected: {difference.subject}, {difference.where}: {difference.reason}"
            notes.print(told, markup=False)
    if verdict.comparison.same:
        if not quiet:
            click.echo("no difference")
        return
    table = Table("subject", "where", "argv", "domain")
    for difference in verdict.comparison.differences:
        table.add_row(*_row(difference))
    Console(highlight=False).print(table)


def _row(difference: Difference) -> tuple[str, str, str, str]:
    from rich.markup import escape

    sides = ("-" if value is None else value for value in (difference.argv, difference.domain))
    ours, theirs = (escape(value) for value in sides)
    return difference.subject, escape(difference.where), ours, theirs
