"""A second serial line becomes times: when the guest lived, and when it answered for the first time.

In the guest a loop of the shell waits 20 ms for a line; it sends one dot where
none came, and where one came it sends that back. It forks nothing, so that it
disturbs little (a twentieth of a core under TCG) and keeps its step under emulation too.

The clock of the dots is the host's. The guest's own would not do: QEMU stops
it with the guest, so that a guest cannot see that it was paused.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import select
import socket
import threading
import time
from collections import deque
from pathlib import Path

from virtsnap.bench.console import GuestConsole
from virtsnap.errors import OperationTimeoutError

_START_TIMEOUT_S = 120.0
_ASK_AGAIN_S = 0.05
_RETRY_S = 0.002
_TICK_S = 0.01
_MOST_TICKS = 100_000

_LOOP = (
    "stty -F TTY raw -echo && (exec setsid sh -c 'while :; do if read -t 0.02 -r line; "
    "then echo \"!$line\"; else echo .; fi; done' <TTY >TTY 2>/dev/null &)"
)


class Pulse:
    """Listens to a guest's pulse from a thread of its own, whatever QEMU stands behind the socket."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._ticks: deque[float] = deque(maxlen=_MOST_TICKS)
        self._question: str | None = None
        self._connections, self._asked_after = 0, -1
        self._answered_at = 0.0
        self._answered = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @staticmethod
    def start_in(console: GuestConsole, tty: str) -> None:
        """Start the loop in a guest."""
        console.check(_LOOP.replace("TTY", tty), timeout_s=_START_TIMEOUT_S)

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        self._thread.join()

    def ask(self) -> None:
        """Begin to ask whoever comes next: a QEMU that listens after now. The one that runs is not asked."""
        self._answered.clear()
        self._asked_after = self._connections
        self._question = secrets.token_hex(2)

    def ask_anyone(self) -> None:
        """Ask the QEMU that runs too: the load is done, so an answer can only be the new guest's."""
        self._asked_after = -1

    def wait_answer(self, *, timeout_s: float) -> float:
        """Wait for the answer to `ask`, and give when it came (`time.monotonic`)."""
        if not self._answered.wait(timeout_s):
            raise OperationTimeoutError(f"the guest has shown no life within {timeout_s:.0f} s")
        return self._answered_at

    def wait_tick(self, *, timeout_s: float) -> None:
        """Wait until the guest has shown life after now."""
        deadline, now = time.monotonic() + timeout_s, time.monotonic()
        while not self._ticks or self._ticks[-1] <= now:
            if time.monotonic() > deadline:
                raise OperationTimeoutError(f"the guest has shown no life within {timeout_s:.0f} s")
            time.sleep(_TICK_S / 2)

    def longest_gap(self, since: float, until: float) -> float:
        """Give the longest time without a sign of life that ended in an interval of `time.monotonic`."""
        ticks = list(self._ticks)
        gaps = [later - sooner for sooner, later in itertools.pairwise(ticks) if since <= later <= until]
        return max(gaps, default=0.0)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                    line.connect(str(self._place))
                    line.setblocking(False)
                    self._connections += 1
                    self._follow(line)
            except OSError:
                time.sleep(_RETRY_S)

    def _follow(self, line: socket.socket) -> None:
        pending, asked, ask_at = b"", None, 0.0
        while not self._over.is_set():
            question = self._question if self._connections > self._asked_after else None
            if question is not None and (question != asked or time.monotonic() >= ask_at):
                with contextlib.suppress(BlockingIOError):
                    line.send(f"{question}\n".encode())
                asked, ask_at = question, time.monotonic() + _ASK_AGAIN_S
            if not select.select([line], [], [], _TICK_S)[0]:
                continue
            data = line.recv(65536)
            now = time.monotonic()
            if not data:
                return
            self._ticks.append(now)
            pending = (pending + data)[-4096:]
            if question is not None and f"!{question}".encode() in pending:
                self._answered_at = now
                self._question = None
                pending = b""
                self._answered.set()
