"""`virtsnap-virsh`: virsh with external snapshots, in front of the real virsh.

The snapshot verbs, `undefine` and `console` are answered here; every other
command, the interactive mode and whatever is not understood go to the real
virsh, with the words as they came. So it can be installed as `virsh` in front
of the PATH: the real one is the first `virsh` on the PATH that is not this
program, and one that leads back here (a wrapper) is passed over the second time.
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from virtsnap.cli.virsh.messages import print_error
from virtsnap.cli.virsh.preferences import Preferences
from virtsnap.cli.virsh.syntax import Command, Verb, VirshSyntaxError, split_commands
from virtsnap.cli.virsh.verbs import CONSOLE, UNDEFINE, VERBS
from virtsnap.errors import UnsupportedError, VirtsnapError
from virtsnap.host.programs import become_program, find_program, is_script, run_program

if TYPE_CHECKING:
    from virtsnap.cli.virsh.session import Session

# Which virsh it is, where the PATH does not say; and those that were tried and led back here
CHOSEN = "VIRTSNAP_REAL_VIRSH"
TRIED = "VIRTSNAP_TRIED_VIRSH"
_SHORT = "c:d:e:hk:K:l:qrtvV"
_LONG = ["connect=", "debug=", "escape=", "help", "keepalive-interval=", "keepalive-count=", "log=", "quiet",
         "readonly", "timing", "version"]
_OURS = {**VERBS, CONSOLE.name: CONSOLE, UNDEFINE.name: UNDEFINE}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A command line of virsh: the global options as words, what they say, and the words behind them."""

    options: tuple[str, ...]
    preferences: Preferences
    words: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `virtsnap-virsh` and give its exit code: 0 or 1 for what is answered here."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        call = read_call(words)
        commands = _commands_of(call)
        if not any(command and command[0] in _OURS for command in commands):
            become_virsh(words)
        return _run_all(call, commands)
    except VirtsnapError as exc:
        print_error(exc)
        return 1


def read_call(words: Sequence[str]) -> Call | None:
    """Part virsh's global options from the commands; None for what virsh itself has to say something to."""
    try:
        found, rest = getopt.getopt(list(words), _SHORT, _LONG)
    except getopt.GetoptError:
        return None
    uri, escape = os.environ.get("VIRSH_DEFAULT_CONNECT_URI") or None, "^]"
    quiet = readonly = timing = False
    for option, value in found:
        match option:
            case "-h" | "--help" | "-v" | "-V" | "--version":
                return None
            case "-c" | "--connect":
                uri = value
            case "-e" | "--escape":
                escape = value
            case "-q" | "--quiet":
                quiet = True
            case "-r" | "--readonly":
                readonly = True
            case "-t" | "--timing":
                timing = True
            case _:  # -d, -k, -K, -l: virsh's own log and keepalive
                pass
    return Call(
        options=tuple(words[: len(words) - len(rest)]), words=tuple(rest),
        preferences=Preferences(uri=uri or None, quiet=quiet, readonly=readonly, timing=timing, escape=escape),
    )


def _commands_of(call: Call | None) -> list[list[str]]:
    """Give the commands of a call; one word alone may hold several."""
    if call is None or not call.words:
        return []
    if len(call.words) > 1:
        return [list(call.words)]
    try:
        return split_commands(call.words[0])
    except VirshSyntaxError:
        return []  # virsh says what is wrong with it


def _run_all(call: Call | None, commands: list[list[str]]) -> int:
    """Run commands of which at least one is ours. As virsh does, all are read before any is run."""
    # Imported here, as what only passes by need not pay for it.
    from virtsnap.cli.main import end_in_order
    from virtsnap.cli.virsh.session import Session

    assert call is not None
    parsed: list[tuple[list[str], Command | None]] = []
    for words in commands:
        if len(commands) > 1 and words[0] in ("connect", "cd"):
            raise UnsupportedError(
                f"virtsnap-virsh does not support `{words[0]}` beside snapshot verbs in one call",
                hint="use -c, or a call of its own",
            )
        verb = _OURS.get(words[0])
        parsed.append((words, None if verb is None else _parse(verb, words[1:])))
    end_in_order()
    is_done = True
    with Session(call.preferences) as session:
        for words, command in parsed:
            if words[0] in ("quit", "exit"):
                break
            is_done = _pass_on(call, words) == 0 if command is None else _answer(session, call, words, command)
    return 0 if is_done else 1


def _parse(verb: Verb, words: list[str]) -> Command | None:
    """Read a command of ours; None for one that virsh itself is to complain about or to explain."""
    from virtsnap.cli.virsh.answers import parse_as_installed

    try:
        command = parse_as_installed(verb, words)
    except VirshSyntaxError:
        if verb.name in (UNDEFINE.name, CONSOLE.name):
            return None  # a later virsh may know more options
        raise
    if command.wants_help or _is_for_another_hypervisor(command):
        return None
    return command


def _is_for_another_hypervisor(command: Command) -> bool:
    return command.verb.name == "domxml-from-native" and command.get("format") != "qemu-argv"


def _answer(session: Session, call: Call, words: list[str], command: Command) -> bool:
    if command.verb is UNDEFINE:
        from virtsnap.cli.virsh.undefining import run_undefine

        return run_undefine(session, command, lambda: _pass_on(call, words))
    if command.verb is CONSOLE:
        from virtsnap.cli.virsh.console import answer_console

        session.prepare_events()
        return session.run(command, answer_console)
    from virtsnap.cli.virsh.answers import ANSWERS

    return session.run(command, ANSWERS[command.verb.name])


def _pass_on(call: Call, words: Sequence[str]) -> int:
    """Have the real virsh run one command with the global options of this call."""
    sys.stdout.flush()
    program, environment = real_virsh()
    return run_program([program, *call.options, *words], environment=environment)


def become_virsh(words: Sequence[str]) -> None:
    """Leave everything to the real virsh; on failure: UnsupportedError."""
    program, environment = real_virsh()
    become_program([program, *words], environment=environment)


def real_virsh() -> tuple[str, dict[str, str]]:
    """Find the virsh that is not this program, and the environment to give it; on failure: UnsupportedError."""
    environment = dict(os.environ)
    chosen = environment.get(CHOSEN)
    if chosen:
        return chosen, environment
    tried = [place for place in environment.get(TRIED, "").split(os.pathsep) if place]
    found = find_program(
        "virsh", search_path=environment.get("PATH", os.defpath), not_these=[*_this_program(), *tried]
    )
    if found is None:
        raise UnsupportedError("the real virsh is not on the PATH",
                               hint=f"install libvirt-clients, or name it in {CHOSEN}")
    if is_script(found):
        environment[TRIED] = os.pathsep.join([*tried, found])
    return found, environment


def _this_program() -> list[str]:
    return [sys.argv[0]] if sys.argv and sys.argv[0] else []
