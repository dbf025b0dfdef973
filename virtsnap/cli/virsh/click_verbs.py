"""virsh's verbs as verbs of `virtsnap`: the words go unread through click to virsh's own rules."""

from __future__ import annotations

import click

from virtsnap.cli.main import Settings, end_in_order
from virtsnap.cli.virsh.answers import ANSWERS, parse_as_installed
from virtsnap.cli.virsh.session import Preferences, Session, print_error
from virtsnap.cli.virsh.syntax import VirshSyntaxError
from virtsnap.cli.virsh.verbs import VERBS
from virtsnap.errors import UsageError


class VirshVerb(click.Command):
    """A command that takes all its words as they are, `--` and `--help` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words."""
        ctx.params["words"] = list(args)
        return []


def _command(name: str) -> click.Command:
    verb = VERBS[name]

    @click.pass_obj
    def run(settings: Settings, words: list[str]) -> int:
        if settings.json:
            print_error(UsageError(f"{name} answers as virsh does; --json is for virtsnap's own verbs"))
            return 1
        try:
            command = parse_as_installed(verb, words)
        except VirshSyntaxError as exc:
            print_error(exc)
            return 1
        end_in_order()
        preferences = Preferences(
            uri=settings.uri, quiet=settings.quiet, readonly=settings.readonly, timeout_s=settings.timeout_s
        )
        with Session(preferences) as session:
            return 0 if session.run(command, ANSWERS[name]) else 1

    return VirshVerb(name, callback=run, short_help=f"{verb.summary}, as virsh has it.", add_help_option=False)


COMMANDS = {name: _command(name) for name in VERBS}


def __getattr__(name: str) -> click.Command:
    """Find a verb's command by the name that the table of verbs has: `snapshot_list`."""
    found = COMMANDS.get(name.replace("_", "-"))
    if found is None:
        raise AttributeError(name)
    return found
