"""The command `virtsnap`: global options, and the verbs, each loaded when it is called.

A verb's module is imported only when that verb runs, so that `virtsnap
--version` and the shell's completion never pay for libvirt or lxml.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import click

from virtsnap import __version__
from virtsnap.cli.answer import report_error
from virtsnap.errors import VirtsnapError

VERBS = {
    "convert": "virtsnap.cli.convert_verbs:convert",
    "verify": "virtsnap.cli.verify_verbs:verify",
    "create": "virtsnap.cli.create_verb:create",
    "save": "virtsnap.cli.snapshot_verbs:save",
    "load": "virtsnap.cli.snapshot_verbs:load",
    "list": "virtsnap.cli.snapshot_verbs:list_",
    "rm": "virtsnap.cli.snapshot_verbs:rm",
    "check": "virtsnap.cli.upkeep_verbs:check",
    "flatten": "virtsnap.cli.upkeep_verbs:flatten",
    "gc": "virtsnap.cli.upkeep_verbs:gc",
    "recover": "virtsnap.cli.upkeep_verbs:recover",
    "doctor": "virtsnap.cli.upkeep_verbs:doctor",
    "bench": "virtsnap.cli.bench_verb:bench",
    **{
        verb: f"virtsnap.cli.virsh.click_verbs:{verb.replace('-', '_')}"
        for verb in (
            "snapshot-create-as", "snapshot-revert", "snapshot-delete", "snapshot-list", "snapshot-info",
            "snapshot-current", "snapshot-parent", "snapshot-dumpxml", "domxml-from-native",
        )
    },
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The global options, as every verb gets them (`@click.pass_obj`).

    `uri` None means libvirt's own choice; `timeout_s` None means no limit.
    """

    uri: str | None
    quiet: bool
    readonly: bool
    json: bool
    timeout_s: float | None


def end_in_order() -> None:
    """Have a polite signal (a runner's time limit, a closed terminal) take the operation back, as Ctrl-C does."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


class LazyGroup(click.Group):
    """A click group that imports a verb's module when the verb is used."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb; an error of ours is printed and becomes its exit code."""
        try:
            return super().invoke(ctx)
        except VirtsnapError as exc:
            settings: Settings | None = ctx.obj
            json_ = settings is not None and settings.json
            return report_error(exc, op=ctx.invoked_subcommand or "", json_=json_)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        target = VERBS.get(cmd_name)
        if target is None:
            return None
        module, name = target.split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="virtsnap")
@click.option(
    "-c", "--connect", "uri", metavar="URI", envvar="LIBVIRT_DEFAULT_URI",
    help="The hypervisor; default: LIBVIRT_DEFAULT_URI, else libvirt's own choice.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print answers only, no progress and no remarks.")
@click.option("-r", "--readonly", is_flag=True, help="Connect read-only.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object instead of text.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Give up after so long.")
@click.pass_context
def cli(
    ctx: click.Context, uri: str | None, quiet: bool, readonly: bool, json_: bool, timeout_s: float | None
) -> None:
    """Turn QEMU command lines into libvirt domains, and save and load their snapshots.

    Exit codes: 0 done; 1 ran, and the answer is no; 2 usage, or a command line that
    cannot be parsed; 3 no such domain; 4 no such snapshot; 5 exists; 6 unsupported;
    7 timeout; 8 hypervisor error; 9 busy.
    """
    ctx.obj = Settings(uri=uri, quiet=quiet, readonly=readonly, json=json_, timeout_s=timeout_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; None takes the words from `sys.argv`."""
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="virtsnap", standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as exc:
        exc.show()
        return 2
    return code if isinstance(code, int) else 0
