"""Other programs on this machine: found on the PATH, run with our terminal, or run in our place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from virtsnap.errors import HypervisorError, OperationTimeoutError, UnsupportedError, VirtsnapError


def find_program(name: str, *, search_path: str, not_these: Collection[str] = ()) -> str | None:
    """Find an executable on a PATH that is none of `not_these`, by whatever name or link."""
    avoided = [Path(place) for place in not_these]
    for folder in search_path.split(os.pathsep):
        place = Path(folder or ".") / name
        if not (place.is_file() and os.access(place, os.X_OK)):
            continue
        if not any(_is_same(place, other) for other in avoided):
            return str(place)
    return None


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def is_script(program: str) -> bool:
    """Say whether a program is a script, which may run any other program in its place."""
    try:
        with Path(program).open("rb") as stream:
            return stream.read(2) == b"#!"
    except OSError:
        return False


def run_program(words: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Run a program on our terminal; give its exit code, 128 + N where signal N ended it.

    On failure: UnsupportedError where it cannot be started.
    """
    try:
        code = subprocess.run(list(words), check=False, env=dict(environment)).returncode
    except OSError as exc:
        raise _cannot_start(words[0], exc) from exc
    return code if code >= 0 else 128 - code


def call_program(words: Sequence[str], *, timeout_s: float) -> str:
    """Run a program without a terminal and give what it prints.

    On failure: HypervisorError with what it says, OperationTimeoutError.
    """
    try:
        done = subprocess.run(
            list(words), check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s
        )
    except OSError as exc:
        raise _cannot_start(words[0], exc) from exc
    except subprocess.TimeoutExpired as exc:
        raise OperationTimeoutError(f"{' '.join(words)}: not done within {timeout_s:.0f} s") from exc
    if done.returncode:
        raise HypervisorError(f"{' '.join(words)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def become_program(words: Sequence[str], *, environment: Mapping[str, str]) -> NoReturn:
    """Have a program take our place: its terminal, signals and exit code are ours.

    On failure: UnsupportedError, and we are still here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(words[0], list(words), dict(environment))  # noqa: S606 - not a shell, a list of words
    except OSError as exc:
        raise _cannot_start(words[0], exc) from exc


def _cannot_start(program: str, exc: OSError) -> VirtsnapError:
    return UnsupportedError(f"{program}: cannot be started: {exc.strerror}")
