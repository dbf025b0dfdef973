"""`console`: one session for as long as the domain lives, over loads and reverts.

virsh's session ends with the QEMU process. This one waits for the next QEMU
and goes on there, with a line about it on stderr. It ends when the domain is
undefined, or off and not held by an operation of virtsnap's for GRACE_S; when
somebody takes the console over with --force; at the escape character.
"""

from __future__ import annotations

import os
import sys
import time

from virtsnap.cli.virsh.session import Session
from virtsnap.cli.virsh.syntax import Command
from virtsnap.errors import HypervisorError, NoSuchDomainError, UnsupportedError, VirtsnapError
from virtsnap.host.console import Console
from virtsnap.host.versions import installed_version
from virtsnap.snapshots.tree import SnapshotTree

# A domain that anybody else restarts (destroy and start, libvirt's own revert) is off for a second or two;
# and libvirt says that a killed QEMU still runs until it is reaped, up to 2 s where PID 1 is slow.
GRACE_S = 5.0
POLL_S = 0.02


def escape_byte(text: str) -> bytes:
    """Give the byte of `^]` or of a single character."""
    return bytes([ord(text[1].upper()) ^ 0x40]) if len(text) == 2 and text[0] == "^" else text.encode()[:1]


def answer_console(session: Session, command: Command) -> None:
    """Answer console; see the module."""
    if command.has("resume"):
        raise UnsupportedError("virtsnap does not support --resume: a revert leaves the guest as it was saved")
    domain = session.domain(command)
    escape = session.preferences.escape
    console = domain.console(
        device=command.get("devname"), force=command.has("force"), safe=command.has("safe"),
        stdin=sys.stdin.fileno(), stdout=sys.stdout.fileno(), escape=escape_byte(escape),
    )
    if console.domain_id() is None and not domain.is_held():
        raise HypervisorError("The domain is not running")
    named = f"Escape character is {escape}" + (f" (Ctrl + {escape[1]})" if escape.startswith("^") else "")
    greeting = f"Connected to domain '{domain.name}'\n{named}\n"
    # virsh 9.0 says so before it opens the console, 11.3 when it has.
    version = installed_version()
    says_it_first = version is not None and version < (10, 0)
    if says_it_first:
        _greet(session, greeting)
    number = _open_next(domain, console, None)
    if not says_it_first:
        _greet(session, greeting)
    with console.raw_terminal():
        _keep_up(domain, console, number)


def _greet(session: Session, text: str) -> None:
    session.remark(text)
    sys.stdout.flush()


def _keep_up(domain: SnapshotTree, console: Console, number: int | None) -> None:
    """Keep the session up over one QEMU after the other; `number` is the one whose console is open."""
    while number is not None:
        why = console.pump()
        if why == "connection":
            raise HypervisorError("the connection to libvirt is lost")
        if why != "stream":
            return
        before = number
        number = _open_next(domain, console, before)
        if number is not None:
            _tell(f"virtsnap: {domain.name} has a new QEMU; the console is connected to it")


def _open_next(domain: SnapshotTree, console: Console, before: int | None) -> int | None:
    """Open the console of a QEMU other than number `before` as soon as there is one; give its number.

    None where the session is over.
    """
    last_seen = time.monotonic()
    problem: VirtsnapError | None = None
    while True:
        try:
            number = console.domain_id()
            if number is not None and number != before:
                try:
                    console.open()
                except NoSuchDomainError:
                    raise
                except VirtsnapError as exc:
                    # While it starts its devices have no names yet; what lasts is a real problem.
                    problem = exc
                    if before is None and not domain.is_held():
                        raise
                else:
                    return number
            if time.monotonic() - last_seen > GRACE_S:
                if not domain.is_held():
                    if problem is not None:
                        raise problem
                    return None
                last_seen = time.monotonic()
        except NoSuchDomainError:
            if before is None:
                raise
            return None
        if console.wait(POLL_S) is not None:
            return None


def _tell(text: str) -> None:
    """Write one line on stderr; the terminal may be raw, so the line is ended as such a one needs it."""
    line = f"\r\n{text}\r\n" if os.isatty(sys.stderr.fileno()) else f"{text}\n"
    sys.stderr.write(line)
    sys.stderr.flush()
