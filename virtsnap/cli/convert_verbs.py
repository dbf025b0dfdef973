"""The verb `convert`: a QEMU command line in, domain XML and the report out."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import click

from virtsnap.cli.answer import answer, exit_code_of, print_json
from virtsnap.cli.command_source import CommandLineCommand, CommandSource, read_file, read_one
from virtsnap.cli.main import Settings
from virtsnap.convert import Conversion, convert_command_line
from virtsnap.convert.head.machines import arch_of_emulator
from virtsnap.domain_xml.domain_template import make_domain_template
from virtsnap.domain_xml.templates import Templates
from virtsnap.errors import UsageError, VirtsnapError
from virtsnap.host.text_files import read_text


class LibvirtVersion(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3, not before
    """X.Y, a version of libvirt."""

    name = "X.Y"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read `11.3` (or `11.3.0`) as (11, 3)."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", value)
        if found is None:
            self.fail(f"{value!r} is not a libvirt version such as 11.3", param, ctx)
        return int(found[1]), int(found[2])


EXPLAIN = "virtsnap.explain"
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)

for_libvirt_option = click.option(
    "--for-libvirt", type=LibvirtVersion(), metavar="X.Y",
    help="Write for this libvirt. Default: the connected or installed one, else the newest that is known.",
)
template_dir_option = click.option(
    "--template-dir", "template_dirs", multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder whose templates replace ours by name.",
)


class ConvertCommand(CommandLineCommand):
    """`convert`, whose --explain takes all words behind it: they look like options and are QEMU's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the words behind --explain aside before click reads them."""
        if "--explain" in args:
            at = args.index("--explain") + 1
            ctx.meta[EXPLAIN] = args[at:]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(cls=ConvertCommand)
@click.option("--name", help="The domain's name. Default: what -name says, else the file's name.")
@click.option(
    "--report", "report_file", type=OUTPUT_FILE, metavar="FILE", help="Write the conversion report as JSON."
)
@click.option("--strict", is_flag=True, help="Exit 1 where something had to be dropped.")
@click.option(
    "--template", is_flag=True,
    help="Write placeholders for name, UUID, MACs, ports and disk paths; `create --set` fills them.",
)
@for_libvirt_option
@click.option(
    "-o", "--output", type=OUTPUT_FILE, metavar="FILE", help="Write the domain XML here instead of to stdout."
)
@click.option(
    "--output-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Write DIR/NAME.xml and DIR/NAME.report.json for each NAME.args.",
)
@click.option("--pid", type=click.IntRange(min=1), help="Read the command line of this running QEMU.")
@template_dir_option
@click.option("--explain", is_flag=True, help="Print what is supported for the QEMU option that follows.")
@click.option(
    "--show-report/--no-show-report", default=None,
    help="Print the report as a table on stderr. Default: where stderr is a terminal.",
)
@click.argument("files", nargs=-1, metavar="[FILE... | -]")
@click.pass_obj
def convert(
    settings: Settings,
    name: str | None,
    report_file: Path | None,
    strict: bool,
    template: bool,
    for_libvirt: tuple[int, int] | None,
    output: Path | None,
    output_dir: Path | None,
    pid: int | None,
    template_dirs: tuple[Path, ...],
    explain: bool,
    show_report: bool | None,
    files: tuple[str, ...],
) -> int:
    """Convert a QEMU command line into libvirt domain XML.

    FILE holds the command line in shell syntax; `-` is standard input; or give
    the words themselves after `--`. Options, device drivers and properties
    that libvirt has no word for are passed through to QEMU; the report says what became
    of every word and of every key in it.
    """
    if explain:
        return _explain(settings, click.get_current_context().meta[EXPLAIN], Templates(template_dirs))
    target = for_libvirt or target_version(settings.uri)
    templates = Templates(template_dirs)
    if output_dir is not None:
        if output or report_file or pid:
            raise UsageError("--output-dir goes with files only", hint="leave out --output, --report and --pid")
        return _convert_files(settings, files, output_dir, target, templates, strict)
    source = read_one(files, pid)
    conversion = convert_source(source, name=name, target=target, uri=settings.uri, templates=templates)
    values: Mapping[str, str] = {}
    if template:
        made = make_domain_template(conversion.xml)
        conversion, values = replace(conversion, xml=made.xml), made.values
    if report_file is not None:
        write_file(report_file, json.dumps(conversion.report, indent=2, ensure_ascii=False) + "\n")
    if output is not None:
        write_file(output, conversion.xml)
    dropped = dropped_words(conversion)
    if settings.json:
        more = {"placeholders": dict(values)} if template else {}
        domain = name or source.name
        print_json(answer("convert", domain=domain, xml=conversion.xml, report=conversion.report, **more))
    elif output is None:
        click.echo(conversion.xml, nl=False)
    if not settings.quiet:
        for placeholder, value in values.items():
            click.echo(f"placeholder: {placeholder} for {value}", err=True)
        tell(conversion, show_report)
    return 1 if strict and dropped else 0


def _explain(settings: Settings, words: list[str], templates: Templates) -> int:
    """Print what is supported for one option, out of the rows."""
    from virtsnap.cli.report_table import print_explanation
    from virtsnap.convert.explain import explain

    found = explain(words, templates)
    if settings.json:
        keys = [
            {"key": line.key, "place": line.place, "since": ".".join(map(str, line.since)), "note": line.note,
             "outcome": line.outcome.word}
            for line in found.keys
        ]
        print_json(answer("convert", explain=found.title, keys=keys, other_keys=found.other_keys))
    else:
        print_explanation(found)
    return 0


def target_version(uri: str | None) -> tuple[int, int] | None:
    """Find the libvirt to write for: the connected one where a URI is given, else the installed one."""
    from virtsnap.host.versions import connected_version, installed_version

    return connected_version(uri) if uri else installed_version()


@functools.cache
def program_finder(uri: str | None) -> Callable[[str], str | None]:
    """Give the way to look up a bare emulator name: by the libvirt of a URI, else on this machine's PATH."""
    if uri is None:
        return shutil.which
    known: dict[str, str | None] = {}

    def find(name: str) -> str | None:
        from virtsnap.host.versions import known_emulator

        arch = arch_of_emulator(name)
        if arch not in known:
            known[arch] = known_emulator(uri, arch)
        path = known[arch]
        return path if path is not None and (PurePath(path).name == name or "-system-" not in name) else None

    return find


def convert_source(
    source: CommandSource, *, name: str | None, target: tuple[int, int] | None, uri: str | None,
    templates: Templates | None = None,
) -> Conversion:
    """Convert one command line that was read from somewhere; `uri` is the libvirt that it is for, None for any."""
    return convert_command_line(
        source.words.argv,
        name=name,
        default_name=source.name,
        for_libvirt=target,
        environment=source.words.environment,
        templates=templates,
        base=source.base,
        find_program=program_finder(uri),
        read_file=read_text,
    )


def dropped_words(conversion: Conversion) -> list[str]:
    """Give the options of which something was dropped."""
    return [entry["text"] for entry in conversion.report["arguments"] if entry["outcome"] == "dropped"]


def tell(conversion: Conversion, show_report: bool | None) -> None:
    """Print the report's table or, without it, the warnings, on stderr."""
    if show_report or (show_report is None and sys.stderr.isatty()):
        from virtsnap.cli.report_table import print_report

        print_report(conversion.report)
        return
    for warning in conversion.report["warnings"]:
        click.echo(f"warning: {warning}", err=True)


def write_file(path: Path, text: str) -> None:
    """Write a file as a whole or not at all; raises UsageError where it cannot be written.

    A link goes on pointing where it did; what is no regular file (/dev/null, a pipe) is written to, not replaced.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(target)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}", hint="name a file in a folder that can be written") from exc


def _convert_files(
    settings: Settings, files: tuple[str, ...], output_dir: Path, target: tuple[int, int] | None,
    templates: Templates, strict: bool,
) -> int:
    """Convert many files; a file that fails is told and the others go on. Exit 1 where one failed."""
    if not files:
        raise UsageError("no files were given", hint="name files such as *.args")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"{output_dir}: {exc.strerror}") from exc
    results: list[dict[str, Any]] = []
    worst = 0
    for file in files:
        stem = Path(file).stem
        try:
            conversion = convert_source(
                read_file(file), name=None, target=target, uri=settings.uri, templates=templates
            )
            write_file(output_dir / f"{stem}.xml", conversion.xml)
            report = json.dumps(conversion.report, indent=2, ensure_ascii=False) + "\n"
            write_file(output_dir / f"{stem}.report.json", report)
        except VirtsnapError as exc:
            worst = max(worst, exit_code_of(exc) if len(files) == 1 else 1)
            error = {"code": exc.code, "message": exc.message, "hint": exc.hint}
            results.append({"file": file, "ok": False, "error": error})
            if not settings.json:
                click.echo(f"error: {file}: {exc.message}", err=True)
            continue
        if strict and dropped_words(conversion):
            worst = max(worst, 1)
        results.append({"file": file, "ok": True})
    failed = sum(not result["ok"] for result in results)
    if settings.json:
        print_json({**answer("convert", files=results), "ok": failed == 0})
    elif not settings.quiet:
        click.echo(f"{len(results) - failed} converted, {failed} failed", err=True)
    return worst
