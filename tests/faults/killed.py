"""Run a verb that kills itself at a step: python -m tests.faults.killed before|after STEP WORDS…

STEP counts the steps that are performed, tidying up included, from 1. `before`
is after the journal has noted the step, `after` is before it notes the next.
Where the verb has fewer steps it runs through, and its exit code is told.
"""

from __future__ import annotations

import os
import signal
import sys

from virtsnap.cli.main import main
from virtsnap.snapshots import recover, run, steps


def kill_self() -> None:
    """End as by kill -9: nothing is cleared up."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    when, number, *words = sys.argv[1:]
    seen = 0
    real = run.perform

    def perform(step: steps.Step, context: run.Context) -> None:
        """Perform a step, unless it is the last thing that we do."""
        global seen
        seen += 1
        if seen == int(number) and when == "before":
            kill_self()
        real(step, context)
        if seen == int(number):
            kill_self()

    for module in (run, recover):
        vars(module)["perform"] = perform
    sys.exit(main(words))
