"""A shell command becomes its output and status, through the guest's serial console.

The protocol, whose other end is tests/guest/answer-commands.sh:

    host:   @run NONCE LENGTH BASE64-OF-COMMAND
    guest:  @got NONCE                      (it starts)
    host:   @again NONCE                    (where the answer may have been lost)
    guest:  @out NONCE BASE64-OF-OUTPUT
    guest:  @end NONCE STATUS MD5-OF-OUTPUT

A serial line loses bytes while nobody listens, and the kernel writes into it
whenever it likes. So every message is a line of its own with the nonce in it,
and a request can be repeated: the guest runs a nonce once and keeps its answer.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
import select
import socket
import stat
import time
import tty
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

REPEAT_S = 0.5
# A guest that is slow must not have to answer faster than it can.
MOST_REPEAT_S = 15.0
BACKLOG_BYTES = 1 << 20


class GuestSilentError(Exception):
    """The guest gave no answer in time; the message has the last that the console said."""


class GuestConsole:
    """The serial console of a running test guest.

    `where` is a pty or a UNIX socket, or a function that finds it anew for each
    connection (a pty has another name after a load). Connecting is done when
    needed and again after QEMU has been replaced.
    """

    def __init__(self, where: str | Path | Callable[[], str | Path]) -> None:
        self._where = where
        self._fd: int | None = None
        self._pending = b""
        self.transcript = b""

    def run(self, command: str, *, timeout_s: float = 60) -> tuple[str, int]:
        """Run a shell command in the guest; return its output (both streams) and exit status.

        The command has no standard input, and runs once however often the request
        had to be repeated. Raises GuestSilentError after `timeout_s`, when it may
        or may not have run.
        """
        deadline = time.monotonic() + timeout_s
        nonce = secrets.token_hex(6)
        started = False
        output: bytes | None = None
        wait_s, repeat_at = REPEAT_S, 0.0
        while (now := time.monotonic()) < deadline:
            if self._fd is None:
                if not self._connect():
                    time.sleep(0.02)
                    continue
                started, wait_s, repeat_at = False, REPEAT_S, now
            if now >= repeat_at:
                if started:
                    # A kernel message may have fallen into the answer; it is kept there.
                    self._write(f"\n@again {nonce}\n")
                else:
                    self._request(nonce, command)
                repeat_at = now + wait_s
                # Less and less often: while a guest boots they pile up, and each is answered then. On a busy
                # machine a hundred of them kept a guest from hearing the next command for a minute.
                wait_s = min(1.5 * wait_s, MOST_REPEAT_S)
            for line in self._lines(min(deadline, repeat_at)):
                match line.split(b" "):
                    case [b"@ready"] if not started:
                        repeat_at = 0.0  # it has just booted, and may not have heard the first request
                    case [b"@got", got] if got == nonce.encode():
                        started = True
                    case [b"@out", got, text] if got == nonce.encode():
                        output = _decoded(text)
                    case [b"@end", got, status, md5] if got == nonce.encode():
                        if output is not None and _md5(output) == md5:
                            # Nobody reads between two commands, and QEMU writes a console byte by byte: some 280
                            # unread bytes fill a UNIX socket, and a UART that waits for room at a save never
                            # sends again after a load. Without a client QEMU drops what the guest says.
                            self.close()
                            return output.decode(errors="replace"), int(status)
                        started, repeat_at = True, 0.0
                    case _:
                        pass
        said = self.transcript[-400:].decode(errors="replace")
        raise GuestSilentError(f"no answer to {command!r} within {timeout_s} s; the console said: {said!r}")

    def check(self, command: str, *, timeout_s: float = 60) -> str:
        """Run a command that must succeed; return its output without the last newline."""
        output, status = self.run(command, timeout_s=timeout_s)
        if status != 0:
            raise AssertionError(f"{command!r} ended with {status} in the guest: {output}")
        return output.removesuffix("\n")

    def send(self, command: str, *, timeout_s: float = 10) -> None:
        """Give the guest a command that it may not survive, and return once it is sent."""
        deadline = time.monotonic() + timeout_s
        while self._fd is None and not self._connect():
            if time.monotonic() > deadline:
                raise GuestSilentError(f"nothing listens at {self._place()}")
            time.sleep(0.02)
        self._request(secrets.token_hex(6), command)

    def wait_ready(self, *, timeout_s: float = 180) -> float:
        """Wait until the guest answers; return the seconds that it took."""
        begun = time.monotonic()
        self.check("true", timeout_s=timeout_s)
        return time.monotonic() - begun

    def wait_disk(self, *, timeout_s: float = 180) -> None:
        """Wait until the ext4 disk is mounted; one on USB comes a second after the first answer."""
        self.check("until grep -q ' /mnt ' /proc/mounts; do sleep 0.1; done", timeout_s=timeout_s)

    def close(self) -> None:
        """Let go of the console, so that somebody else can have it."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._pending = None, b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _place(self) -> str:
        return str(self._where() if callable(self._where) else self._where)

    def _connect(self) -> bool:
        try:
            self._fd = _open(self._place())
        except OSError:
            return False
        self._pending = b""
        return True

    def _request(self, nonce: str, command: str) -> None:
        payload = base64.b64encode(command.encode()).decode()
        # The first newline ends whatever half a line the guest may have read before.
        self._write(f"\n@run {nonce} {len(payload)} {payload}\n")

    def _write(self, text: str) -> None:
        line = text.encode()
        while line and self._fd is not None:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:
                select.select([], [self._fd], [], 1)
            except OSError:
                self.close()

    def _lines(self, until: float) -> list[bytes]:
        """Read until there is a whole line or the time is up; at the end of the connection, close."""
        while b"\n" not in self._pending:
            wait_s = max(0.0, until - time.monotonic())
            if self._fd is None or not select.select([self._fd], [], [], wait_s)[0]:
                return []
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # a pty whose QEMU has gone: EIO
                data = b""
            if not data:
                self.close()
                time.sleep(0.02)
                return []
            self._pending += data
            self.transcript = (self.transcript + data)[-BACKLOG_BYTES:]
        *lines, self._pending = self._pending.split(b"\n")
        # A kernel message may stand before ours on the same line.
        return [re.sub(rb"^.*(?=@(?:got|out|end) )", b"", line.strip(b"\r")) for line in lines]


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _decoded(text: bytes) -> bytes | None:
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(text, validate=True)
    return None


def _open(place: str) -> int:
    if stat.S_ISSOCK(Path(place).stat().st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(place)
            client.setblocking(False)
            return client.detach()
    fd = os.open(place, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(fd)  # else the pty echoes the guest's words back to it
    return fd
