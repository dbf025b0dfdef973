"""A QEMU command line becomes a process of ours that answers QMP, and then nothing again.

The monitor is added to the command line; a process that we are killed with
goes too (PR_SET_PDEATHSIG). One object belongs to the thread that made it:
qemu.qmp keeps an event loop for each thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from qemu.qmp import ExecuteError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from virtsnap.errors import HypervisorError, OperationTimeoutError

# It logs every QEMU that ends early; what there is to say is raised.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0

Event = dict[str, Any]


class OwnQemu:
    """A running QEMU; a context manager that ends it.

    `folder` is where it runs; its monitor's socket is elsewhere. `connect_pause_s` is slept once after
    the monitor has been found, for those who compare with somebody that does.
    On failure to start: HypervisorError with QEMU's own message, and no process.
    """

    def __init__(self, argv: Sequence[str], *, folder: Path, connect_pause_s: float = 0.0) -> None:
        self._private = tempfile.TemporaryDirectory(prefix="virtsnap-qmp-")
        socket = str(Path(self._private.name) / "qmp")
        self._messages = Path(self._private.name) / "messages"
        self._events: list[Event] = []
        self._monitor: QEMUMonitorProtocol | None = None
        words = [*argv, "-qmp", f"unix:{socket},server=on,wait=off"]
        with self._messages.open("wb") as output:
            try:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                    start_new_session=True, preexec_fn=_bind_to_us,
                    env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C"},
                )
            except OSError as exc:
                self._private.cleanup()
                raise HypervisorError(f"{argv[0]}: cannot be started: {exc.strerror}") from exc
        try:
            self._monitor = self._connect(socket)
        except BaseException:
            self.stop()
            raise
        if connect_pause_s:
            time.sleep(connect_pause_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Give the process's number."""
        return self._process.pid

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command and give what it returns; `_` in a name is written `-`.

        On failure: HypervisorError with QEMU's words, its last ones where it is gone.
        """
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        assert self._monitor is not None
        try:
            return self._monitor.cmd(command, **named)
        except ExecuteError as exc:
            raise HypervisorError(f"{command}: {exc}") from exc
        except (QMPError, OSError, EOFError) as exc:
            raise HypervisorError(_last_words(self._messages) or f"{command}: QEMU is gone") from exc

    def give_file(self, path: str, *, name: str) -> None:
        """Open a file (made where there is none) and hand the descriptor over as `name` (getfd)."""
        assert self._monitor is not None
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            self._monitor.send_fd_scm(fd)
            self.execute("getfd", fdname=name)
        finally:
            os.close(fd)

    def wait_for(self, wanted: Callable[[Event], bool], *, timeout_s: float) -> Event:
        """Wait for an event; those that come before it stay for `take_events`.

        On failure: OperationTimeoutError; HypervisorError where QEMU ends meanwhile.
        """
        assert self._monitor is not None
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = dict(self._monitor.pull_event(min(left, 1.0)) or {})
            except TimeoutError:
                if self._process.poll() is not None:
                    raise HypervisorError(_last_words(self._messages) or "QEMU is gone") from None
                continue
            self._events.append(event)
            if wanted(event):
                return event
        raise OperationTimeoutError(f"QEMU sent no such event within {timeout_s:.0f} s")

    def take_events(self) -> list[Event]:
        """Give the events since the last call, oldest first."""
        assert self._monitor is not None
        with contextlib.suppress(QMPError, OSError):
            while (event := self._monitor.pull_event(False)) is not None:
                self._events.append(dict(event))
        found, self._events = self._events, []
        return found

    def stop(self) -> None:
        """End the process, as SIGTERM does, and wait until it is gone; doing it twice is no error."""
        _end(self._process)
        if self._monitor is not None:
            _close(self._monitor)
            self._monitor = None
        self._private.cleanup()

    def _connect(self, socket: str) -> QEMUMonitorProtocol:
        """Connect as soon as QEMU listens; its end is noticed at once, because it is a child."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            # QEMU listens before it makes its devices, and answers when they are made.
            ended = self._process.poll() is not None
            if Path(socket).exists() and not ended:
                monitor = QEMUMonitorProtocol(socket)
                try:
                    monitor.connect()
                except (QMPError, OSError, EOFError):
                    _close(monitor)
                else:
                    return monitor
            if ended or time.monotonic() > deadline:
                _end(self._process)
                raise HypervisorError(_last_words(self._messages) or "QEMU ended without a message")
            time.sleep(0.002)


def _bind_to_us() -> None:
    """Have the kernel end QEMU when we are killed, and let a QEMU that aborts leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _close(monitor: QEMUMonitorProtocol) -> None:
    with contextlib.suppress(QMPError, OSError, EOFError):
        monitor.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        # Not wait(timeout), which looks every 50 ms: what is measured with this ends when the process does.
        watched = os.pidfd_open(process.pid)
        try:
            if not select.select([watched], [], [], STOP_TIMEOUT_S)[0]:
                process.kill()
        finally:
            os.close(watched)
    process.wait()


def _last_words(messages: Path) -> str:
    """Give what QEMU printed, without its warnings unless there is nothing else."""
    try:
        lines = [line.strip() for line in messages.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    grave = [line for line in lines if "warning:" not in line]
    return "\n".join(grave or lines)
