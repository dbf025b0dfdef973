"""A long step is a line on a terminal, and nothing anywhere else."""

from __future__ import annotations

import os
import pty
import time

import pytest

from virtsnap.cli import progress
from virtsnap.cli.main import Settings
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.steps import MakePersistent, Step


class Busy(SnapshotDomain):
    """A domain that is forever in the middle of 600 MB."""

    def __init__(self) -> None:
        self.asked: list[Step] = []

    def progress(self, step: Step) -> tuple[int, int]:
        """Count on."""
        self.asked.append(step)
        return 1_000_000 * len(self.asked), 600_000_000


def settings(*, quiet: bool = False, json: bool = False) -> Settings:
    return Settings(uri=None, quiet=quiet, readonly=False, json=json, timeout_s=None)


def new_terminal(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make stderr a terminal, until pytest changes it back; give its other end, which does not block."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    monkeypatch.setattr("sys.stderr", os.fdopen(theirs, "w"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(progress, "_SHOWN_AFTER_S", 0.0)
    return ours


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 20)
    except BlockingIOError:
        return b""


def test_phase_bytes_and_rate_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = new_terminal(monkeypatch)
    shown, deadline = b"", time.monotonic() + 60
    with progress.shown_progress(Busy(), settings()) as watch:
        assert watch is not None
        watch(MakePersistent())
        while not all(word in shown for word in (b"prepare", b"/600.0 MB", b"MB/s")):
            assert time.monotonic() < deadline, shown
            shown += read(terminal)
            time.sleep(0.01)


@pytest.mark.parametrize("silent", [settings(quiet=True), settings(json=True)])
def test_nothing_is_shown_where_nobody_wants_it(monkeypatch: pytest.MonkeyPatch, silent: Settings) -> None:
    terminal = new_terminal(monkeypatch)
    with progress.shown_progress(Busy(), silent) as watch:
        assert watch is None
    assert read(terminal) == b""


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = new_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_SHOWN_AFTER_S", 3600.0)
    domain = Busy()
    with progress.shown_progress(domain, settings()) as watch:
        assert watch is not None
        watch(MakePersistent())
    assert (read(terminal), domain.asked) == (b"", [])
