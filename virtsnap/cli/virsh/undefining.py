"""`undefine`: the real virsh takes the definition away, and what virtsnap made for the domain goes with it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from virtsnap.cli.virsh.messages import print_error
from virtsnap.cli.virsh.session import Session
from virtsnap.cli.virsh.syntax import Command
from virtsnap.errors import NoSuchDomainError, VirtsnapError

_REMOVES_DISKS = ("storage", "remove-all-storage")


def run_undefine(session: Session, command: Command, pass_on: Callable[[], int]) -> bool:
    """Run an undefine; say whether it worked.

    Whether it may (snapshots without --snapshots-metadata, NVRAM, …) is virsh's to say. A running domain
    and one that nothing of ours is in are left to it altogether.
    """
    try:
        domain = session.host().tree(command.require("domain"))
        leaves_something = not session.preferences.readonly and domain.has_files_of_ours()
    except VirtsnapError:
        return pass_on() == 0  # it will say what is wrong
    if not leaves_something:
        return pass_on() == 0
    if domain.state() != "shutoff":
        is_done = pass_on() == 0
        if is_done:
            left = f"{domain.name} runs on, on files of virtsnap's: they are still there when it stops"
            print(f"warning: {left}", file=sys.stderr)
        return is_done
    try:
        is_done, warnings = domain.leave(
            lambda: pass_on() == 0, removes_disks=any(command.has(option) for option in _REMOVES_DISKS)
        )
    except NoSuchDomainError:
        return pass_on() == 0
    except VirtsnapError as exc:
        print_error(exc)
        session.remark("\n")
        return False
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return is_done
