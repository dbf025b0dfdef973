"""A character device of a guest, opened through libvirt, becomes a session that outlives its QEMU.

virDomainOpenConsole gives a stream, over remote URIs too. The stream ends with
the QEMU process, and with libvirt's answer to somebody's --force. What then
happens is the caller's to decide (`Ended`); here a stream is opened, and bytes
are moved between it and two descriptors by libvirt's event loop.

libvirt wants its event loop registered before the connection is opened:
`virtsnap.host.event_loop.register_event_loop` first, then `connect`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator
from typing import Any, Literal

import libvirt

from virtsnap.host.domain import Domain
from virtsnap.host.hypervisor import Host

# Why a session stopped: the user typed the escape character or closed the terminal, a signal came, the
# stream ended, nobody reads our output any more, or the connection to libvirt is lost.
Ended = Literal["escape", "signal", "stream", "output", "connection"]

_TICK_MS = 50
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_MOST_PENDING_BYTES = 1 << 20


class Console:
    """A console of one domain; `open` and `pump` may be called again and again.

    `stdin` None takes no input. `escape` is the byte that ends a session when a read from stdin begins with it.
    """

    def __init__(
        self, host: Host, domain: Domain, *, device: str | None, force: bool, safe: bool,
        stdin: int | None, stdout: int, escape: bytes,
    ) -> None:
        self._host = host
        self._domain = domain
        self._device = device
        self._safe = safe
        self._force = force
        self._stdin = stdin
        self._stdout = stdout
        self._escape = escape
        self._stream: Any = None
        self._to_guest = b""
        self._ended: Ended | None = None
        self._is_waiting = False

    def domain_id(self) -> int | None:
        """Give the number of the running QEMU, None where none runs; on failure: NoSuchDomainError."""
        return self._domain.number()

    @property
    def is_connected(self) -> bool:
        """Say whether libvirt can still be asked."""
        return self._host.is_alive()

    def open(self) -> None:
        """Open the device of the QEMU that runs now; on failure: VirtsnapError."""
        flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if self._force else 0
        flags |= libvirt.VIR_DOMAIN_CONSOLE_SAFE if self._safe else 0
        self._stream = self._domain.open_console(self._device, flags)

    def pump(self) -> Ended:
        """Move bytes both ways until the session or the stream ends; say which and why.

        Output that the stream still holds when it ends is written before this returns.
        """
        self._ended = None
        stream, watches, timer = self._stream, [], -1
        with _signals_end(self):
            try:
                timer = libvirt.virEventAddTimeout(_TICK_MS, self._on_tick, None)
                stream.eventAddCallback(self._wanted_events(), self._on_stream, None)
                if self._stdin is not None:
                    watches.append(libvirt.virEventAddHandle(
                        self._stdin, libvirt.VIR_EVENT_HANDLE_READABLE, self._on_stdin, None
                    ))
                while self._ended is None:
                    libvirt.virEventRunDefaultImpl()
                return self._ended
            finally:
                for watch in watches:
                    libvirt.virEventRemoveHandle(watch)
                libvirt.virEventRemoveTimeout(timer)
                self._close()

    def wait(self, seconds: float) -> Ended | None:
        """Let libvirt's loop run for a moment while there is no stream; input is kept for the next one."""
        self._ended = None
        watches = []
        with _signals_end(self):
            timer = libvirt.virEventAddTimeout(max(1, int(seconds * 1000)), self._on_timeout, None)
            try:
                if self._stdin is not None:
                    watches.append(libvirt.virEventAddHandle(
                        self._stdin, libvirt.VIR_EVENT_HANDLE_READABLE, self._on_stdin, None
                    ))
                self._is_waiting = True
                while self._is_waiting and self._ended is None:
                    libvirt.virEventRunDefaultImpl()
            finally:
                libvirt.virEventRemoveTimeout(timer)
                for watch in watches:
                    libvirt.virEventRemoveHandle(watch)
        return self._ended

    def raw_terminal(self) -> contextlib.AbstractContextManager[None]:
        """Hand every key to the guest while a `with` block runs."""
        return contextlib.nullcontext() if self._stdin is None else raw_terminal(self._stdin)

    def end(self, why: Ended) -> None:
        """Have `pump` or `wait` return; the first reason stays."""
        self._ended = self._ended or why

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        with contextlib.suppress(libvirt.libvirtError):
            stream.eventRemoveCallback()
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()

    def _wanted_events(self) -> int:
        wanted: int = (
            libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR
        )
        return wanted | libvirt.VIR_STREAM_EVENT_WRITABLE if self._to_guest else wanted

    def _on_tick(self, _timer: int, _opaque: object) -> None:
        """Give Python the chance to run signal handlers; look whether libvirt is still there."""
        if not self._host.is_alive():
            self.end("connection")

    def _on_timeout(self, _timer: int, _opaque: object) -> None:
        self._is_waiting = False

    def _on_stream(self, stream: Any, events: int, _opaque: object) -> None:
        try:
            if events & (libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_HANGUP):
                self._receive(stream)
            if self._ended is None and events & libvirt.VIR_STREAM_EVENT_WRITABLE and self._to_guest:
                sent = stream.send(self._to_guest)
                if sent > 0:
                    self._to_guest = self._to_guest[sent:]
                stream.eventUpdateCallback(self._wanted_events())
        except libvirt.libvirtError:
            self.end("stream")
        if events & (libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP):
            self.end("stream")

    def _receive(self, stream: Any) -> None:
        while self._ended is None:
            data = stream.recv(65536)
            if data == -2:  # nothing more for now
                return
            if not data:
                self.end("stream")
                return
            self._write_out(data)

    def _write_out(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._stdout, data):]
            except OSError:
                self.end("output")
                return

    def _on_stdin(self, watch: int, fd: int, _events: int, _opaque: object) -> None:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data.startswith(self._escape) and data:
            self.end("escape")
            return
        if not data:
            if os.isatty(fd):
                self.end("escape")
            else:
                # A pipe or /dev/null as input: there is nothing to type, and still something to read.
                self._stdin = None
                libvirt.virEventUpdateHandle(watch, 0)
            return
        # Nobody may read it for long: what a guest cannot take in is not kept for ever.
        self._to_guest = (self._to_guest + data)[-_MOST_PENDING_BYTES:]
        if self._stream is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._stream.eventUpdateCallback(self._wanted_events())


@contextlib.contextmanager
def _signals_end(console: Console) -> Iterator[None]:
    """Have a signal end the session, so that the terminal is put back as it was."""
    before = {number: signal.signal(number, lambda *_: console.end("signal")) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Hand every key to the guest, Ctrl-C too; afterwards the terminal is as it was. Not a terminal: nothing."""
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        yield
        return
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
