"""The verb `create`: a QEMU command line, or a domain template, becomes a domain that runs."""

from __future__ import annotations

from pathlib import Path

import click

from virtsnap.cli.answer import answer, print_json
from virtsnap.cli.command_source import CommandLineCommand, read_one, words_after_dashes
from virtsnap.cli.convert_verbs import convert_source, tell, template_dir_option
from virtsnap.cli.main import Settings
from virtsnap.cli.snapshot_verbs import connect_host, refuse_readonly
from virtsnap.domain_xml.domain_template import fill_domain_template
from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER, with_ram_in_file
from virtsnap.domain_xml.templates import Templates
from virtsnap.errors import UsageError


@click.command(cls=CommandLineCommand)
@click.option("--name", help="The domain's name. Default: what -name says, else the file's name.")
@click.option("--pid", type=click.IntRange(min=1), help="Read the command line of this running QEMU.")
@click.option(
    "--template", "template", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Take a domain template that `convert --template` wrote.",
)
@click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE", help="Fill a placeholder of the template."
)
@click.option("--ram-file", is_flag=True,
              help="Put the RAM into a file, so that saving and loading are `instant`.")
@click.option(
    "--ram-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help=f"Where that file is; implies --ram-file. Default: {DEFAULT_FOLDER}. On XFS or Btrfs, with the snapshots "
         "on the same file system, its copies cost no time and no room.",
)
@template_dir_option
@click.argument("files", nargs=-1, metavar="[FILE | -]")
@click.pass_obj
def create(
    settings: Settings,
    name: str | None,
    pid: int | None,
    template: Path | None,
    values: tuple[str, ...],
    ram_file: bool,
    ram_dir: Path | None,
    template_dirs: tuple[Path, ...],
    files: tuple[str, ...],
) -> int:
    """Convert a QEMU command line, define the domain and start it.

    The command line comes as FILE in shell syntax, `-` for standard input, after
    `--`, or from a running QEMU by --pid; or a template of `convert --template` is
    filled by --set. Where the start fails, the definition is taken back.
    """
    refuse_readonly(settings)
    if template is not None and (files or pid is not None or words_after_dashes() is not None):
        raise UsageError("--template and a command line exclude each other", hint="give one of them")
    if values and template is None:
        raise UsageError("--set goes with --template", hint="write a template by `convert --template`")
    with connect_host(settings) as host:
        if template is not None:
            xml = _filled(template, values, name)
        else:
            conversion = convert_source(
                read_one(files, pid), name=name, target=host.libvirt_version, uri=settings.uri or host.uri,
                templates=Templates(template_dirs),
            )
            xml = conversion.xml
            if not settings.quiet and not settings.json:
                tell(conversion, show_report=False)
        if ram_file or ram_dir is not None:
            folder = DEFAULT_FOLDER if ram_dir is None else str(ram_dir.absolute())
            xml = with_ram_in_file(xml, folder=folder)
        domain = host.create(xml, name=parse_xml(xml).findtext("name") or "")
        state = domain.state()
    if settings.json:
        print_json(answer("create", domain=domain.name, uuid=domain.uuid, state=state))
    else:
        click.echo(f"created {domain.name}: {state}")
    return 0


def _filled(template: Path, values: tuple[str, ...], name: str | None) -> str:
    """Fill a template with the pairs of --set; --name is short for --set name=."""
    pairs: dict[str, str] = {} if name is None else {"name": name}
    for pair in values:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: it is not NAME=VALUE")
        pairs[key] = value
    try:
        text = template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{template}: {exc}", hint="name a file that `convert --template` wrote") from exc
    return fill_domain_template(text, pairs)
