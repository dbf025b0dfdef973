"""A step that takes long becomes a line on the terminal: what is done, bytes, rate, time left.

Only on a terminal, not with --quiet or --json, and only once an operation has
taken a second: rich takes a tenth of one to load, which a load of half a
second does not pay.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from virtsnap.cli.main import Settings
from virtsnap.errors import VirtsnapError
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.steps import Step

_SHOWN_AFTER_S = 1.0
_PERIOD_S = 0.1

Watch = Callable[[Step], None]


@contextmanager
def shown_progress(domain: SnapshotDomain, settings: Settings) -> Iterator[Watch | None]:
    """Show what an operation in this block does; give the watcher for it, None where nothing is shown."""
    if settings.quiet or settings.json or not sys.stderr.isatty():
        yield None
        return
    shown = _Shown(domain)
    try:
        yield shown.watch
    finally:
        shown.end()


class _Shown:
    def __init__(self, domain: SnapshotDomain) -> None:
        self._domain = domain
        self._step: Step | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def watch(self, step: Step) -> None:
        self._step = step

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _show(self) -> None:
        if self._over.wait(_SHOWN_AFTER_S):
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), BarColumn(20),
            DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        )
        # Transient: when the operation is over its own sentence says how it went.
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task, of = progress.add_task("", total=None), None
            while True:
                step = self._step
                if step is not None and step is not of:
                    progress.reset(task, total=None, description=step.phase)
                    of = step
                found = None
                with suppress(VirtsnapError):  # what cannot be asked is not shown
                    found = None if step is None else self._domain.progress(step)
                if found is not None:
                    done, total = found
                    progress.update(task, completed=done, total=total)
                if self._over.wait(_PERIOD_S):
                    return
