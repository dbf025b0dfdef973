"""Commands of virsh's are run one after another on one connection, with virsh's output and exit codes.

Every command of virsh ends in an empty line on stdout but under -q, whether it
failed or not; errors are lines on stderr; the exit code is the last command's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from virtsnap.cli.virsh.syntax import Command, VirshSyntaxError
from virtsnap.cli.virsh.text import format_help
from virtsnap.errors import NoSuchDomainError, UnsupportedError, VirtsnapError
from virtsnap.snapshots.tree import SnapshotTree, TreeHost, connect_tree


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """The global options. `uri` None is libvirt's own choice."""

    uri: str | None = None
    quiet: bool = False
    readonly: bool = False
    timing: bool = False
    timeout_s: float | None = None
    escape: str = "^]"


class Session:
    """Runs commands; connects when the first one needs it. Close it, or use it as a context manager."""

    def __init__(self, preferences: Preferences) -> None:
        self.preferences = preferences
        self._host: TreeHost | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._host is not None:
            self._host.close()
            self._host = None

    def host(self) -> TreeHost:
        """Connect, once; on failure: VirshFailure."""
        if self._host is None:
            try:
                self._host = connect_tree(self.preferences.uri, readonly=self.preferences.readonly)
            except VirtsnapError as exc:
                raise VirshFailure("failed to connect to the hypervisor", exc) from exc
        return self._host

    def domain(self, command: Command) -> SnapshotTree:
        """Find the domain that the command names; on failure: NoSuchDomainError in virsh's words."""
        word = command.require("domain")
        try:
            return self.host().tree(word)
        except NoSuchDomainError as exc:
            raise NoSuchDomainError(f"failed to get domain '{word}'") from exc

    def say(self, text: str) -> None:
        """Write what the command was asked for."""
        sys.stdout.write(text)

    def remark(self, text: str) -> None:
        """Write what -q leaves out."""
        if not self.preferences.quiet:
            sys.stdout.write(text)

    def run(self, command: Command, answer: Callable[[Session, Command], None]) -> bool:
        """Run one command; say whether it did what it was asked for. What went wrong is told here."""
        started = time.monotonic()
        is_done = False
        try:
            if command.wants_help:
                self.say(format_help(command.verb))
            else:
                refuse_unsupported(command)
                answer(self, command)
            is_done = True
        except VirtsnapError as exc:
            print_error(exc)
        if self.preferences.timing:
            self.say(f"\n(Time: {(time.monotonic() - started) * 1000:.3f} ms)\n\n")
        else:
            self.remark("\n")
        sys.stdout.flush()
        return is_done


class VirshFailure(VirtsnapError):
    """An error before which virsh says what it was doing: "Failed to delete snapshot s1"."""

    def __init__(self, what: str, error: VirtsnapError) -> None:
        super().__init__(f"{what}\n{error_text(error)}", hint=error.hint)


def refuse_unsupported(command: Command) -> None:
    """Raise UnsupportedError for an option of virsh's that nobody here carries out."""
    for option in command.verb.options:
        if option.refused is not None and command.has(option.name):
            raise UnsupportedError(f"virtsnap does not support --{option.name}: {option.refused}")


def exclude(command: Command, *pairs: Sequence[str]) -> None:
    """Raise VirshSyntaxError for two options that virsh does not take together."""
    for one, other in pairs:
        if command.has(one) and command.has(other):
            raise VirshSyntaxError(f"Options --{one} and --{other} are mutually exclusive")


def error_text(error: VirtsnapError) -> str:
    """Give what virsh would say: libvirt's own words where the error is libvirt's."""
    return error.libvirt_message or error.message


def print_error(error: VirtsnapError) -> None:
    """Write an error as virsh does, a line for each of its lines; a hint of ours after it."""
    sys.stdout.flush()
    for line in error_text(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    if error.hint and error.libvirt_message is None:
        print(f"hint: {error.hint}", file=sys.stderr)
