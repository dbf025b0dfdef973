"""QEMU's STOP and RESUME events of libvirt's domains, with QEMU's own times, become pauses.

A thread runs libvirt's event loop from the first `PauseWatch` on: make it before
the other connections of the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import libvirt
import libvirt_qemu

from virtsnap.host.event_loop import keep_running
from virtsnap.host.translate import translated

_LATE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """A guest stopped, or went on; `at_s` is Unix time by QEMU's clock."""

    at_s: float
    runs: bool


def paused_s(events: Iterable[RunEvent]) -> float | None:
    """Sum up the pauses among some events; None where there is none, or the last one has not ended."""
    total, since, seen = 0.0, None, False
    for event in events:
        if not event.runs and since is None:
            since = event.at_s
        elif event.runs and since is not None:
            total, since, seen = total + event.at_s - since, None, True
    return total if seen and since is None else None


class PauseWatch:
    """Collects the events of all domains of a hypervisor, by the domains' names; closed by `close`.

    libvirt marks no domain as tainted for it.
    """

    def __init__(self, uri: str | None) -> None:
        keep_running()
        self._found: dict[str, list[RunEvent]] = {}
        self._changed = threading.Condition()
        with translated(f"cannot connect to {uri or 'libvirt'}"):
            self._connection = libvirt.open(uri)
        with translated("cannot listen to QEMU's events"):
            self._callbacks = [
                libvirt_qemu.qemuMonitorEventRegister(self._connection, None, word, self._on_event, None, 0)
                for word in ("STOP", "RESUME")
            ]

    def close(self) -> None:
        """Stop listening."""
        for callback in self._callbacks:
            libvirt_qemu.qemuMonitorEventDeregister(self._connection, callback)
        self._connection.close()

    def take(self, domain: str) -> list[RunEvent]:
        """Give a domain's events since the last call; an end of a pause that is on its way is waited for."""
        deadline = time.monotonic() + _LATE_S
        with self._changed:
            while (left := deadline - time.monotonic()) > 0:
                found = self._found.get(domain, [])
                if found and found[-1].runs:
                    break
                self._changed.wait(left)
            return self._found.pop(domain, [])

    def _on_event(
        self, _connection: Any, domain: Any, event: str, seconds: int, micros: int, _details: str, _opaque: object
    ) -> None:
        with self._changed:
            self._found.setdefault(domain.name(), []).append(
                RunEvent(at_s=seconds + micros / 1e6, runs=event == "RESUME")
            )
            self._changed.notify_all()
