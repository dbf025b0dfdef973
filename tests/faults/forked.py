"""Words become verbs in processes of their own, forked from one that has everything imported.

A fresh interpreter costs a fifth of a second of CPU, and the fault matrix
starts a thousand. Run as `python -m tests.faults.forked` this is that one: it
reads a request in JSON on each line of standard input, and answers each by
[exit code, output] in JSON once the process has ended; a signal is negative.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import virtsnap
from tests.faults.killed import When, run_until
from virtsnap.cli.main import main

CHECKOUT = Path(__file__).resolve().parents[2]
# A verb that hangs is ended by SIGALRM, and the test fails by its exit code.
_LIMIT_S = 200


def run_verb(words: Sequence[str], *, kill: tuple[When, int] | None = None) -> tuple[int, str]:
    """Run `virtsnap WORDS` in a process of its own, which kills itself at the step `kill`, if any."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([*(kill or (None, 0)), *words]) + "\n")
    server.stdin.flush()
    answer: tuple[int, str] = tuple(json.loads(server.stdout.readline()))
    return answer


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.forked"], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait(10)


def _serve() -> None:
    for module in pkgutil.walk_packages(virtsnap.__path__, "virtsnap."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if pid == 0:
                _be_the_verb(json.loads(line), output.fileno())
            _, status = os.waitpid(pid, 0)
            output.seek(0)
            answer = [os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")]
        print(json.dumps(answer), flush=True)


def _be_the_verb(request: list[Any], output: int) -> None:
    """Never returns."""
    code = 70
    signal.alarm(_LIMIT_S)
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, fd)
        when, number, *words = request
        code = main(words) if when is None else run_until(when, number, words)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    _serve()
