"""A verb that kills itself at a step: python -m tests.faults.killed before|during|after STEP WORDS…

Steps count in the order in which they are performed, tidying up included, from
1. `before` is after the journal has noted the step, `after` is before it notes
the next; `during` is while QEMU sends pages of its RAM, in whichever step that
is. Where the verb has fewer steps it runs through, and its exit code is told.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Literal, get_args

from virtsnap.cli.main import main
from virtsnap.host import asked_ram
from virtsnap.snapshots import acts, recover, run, steps

When = Literal["before", "during", "after"]


def kill_self() -> None:
    """End as by kill -9: nothing is cleared up."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_until(when: When, number: int, words: Sequence[str]) -> int:
    """Run a verb up to the step of this number."""
    seen = 0
    real = run.perform

    def perform(step: steps.Step, context: run.Context) -> None:
        """Perform a step, unless it is the last thing that we do."""
        nonlocal seen
        seen += 1
        if seen == number and when == "before":
            kill_self()
        real(step, context)
        if seen == number and when == "after":
            kill_self()

    if when == "during":
        vars(asked_ram)["_Receiver"].receive = lambda *_: kill_self()
    assert acts  # it has made `run` know its steps
    for module in (run, recover):
        vars(module)["perform"] = perform
    return main(list(words)) or 0


if __name__ == "__main__":
    moment, step_number, *verb = sys.argv[1:]
    moments: dict[str, When] = {each: each for each in get_args(When)}
    sys.exit(run_until(moments[moment], int(step_number), verb))
