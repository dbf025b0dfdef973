"""A paused guest's memory image, of which QEMU is asked for no more than the pages that are wanted.

A guest that was loaded from a file of RAM has it mapped privately, and most
of its pages still are the file's. Whoever has QEMU write its state out gets
all of them: it reads even the holes. But QEMU lets a peer that it migrates to
ask for pages (MIG_RP_MSG_REQ_PAGES_ID in its migration/migration.c; postcopy
is why it is there) and sends these before all others. So we are that peer,
ask for the guest's own pages and for all of the blocks that are in no file
(video memory, ROMs), and cancel the migration when they have come; the
devices are written by a command of their own. What comes of it is an ordinary
stream in which most pages of one block do not occur: QEMU leaves those as it
finds them, which is in the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from virtsnap.errors import HypervisorError, OperationTimeoutError
from virtsnap.host.domain import Domain
from virtsnap.host.file_copies import Piece
from virtsnap.host.memory_image import new_image
from virtsnap.host.private_pages import private_pages
from virtsnap.host.qemu_stream import (
    COMMAND,
    END_OF_PART,
    FOOTER,
    LAST_PART,
    NUMBER,
    PAGE,
    PART,
    SAME_BLOCK,
    WHOLE_PAGE,
    ZERO_PAGE,
    Setup,
    read_setup,
)

_REQUEST = 3  # MIG_RP_MSG_REQ_PAGES_ID
_MOST_ASKED_AT_ONCE = 1 << 30  # the length in a request has 32 bits
_ON_THEIR_WAY = 32
_MOST_OF_A_PAGE = 8 + 1 + 255 + PAGE
_AT_ONCE = 1 << 20
_HELD = 4 << 20
_ANSWER_TIMEOUT_S = 30.0
_HEAD_BYTES = 8
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_INSTEAD = "`virtsnap save --engine libvirt` has all of the RAM written"

Write = Callable[[bytes | bytearray | memoryview], object]


class PagesRefusedError(HypervisorError):
    """QEMU, or what confines it, does not give single pages of RAM, or not so that they are understood."""


def save_changes(
    domain: Domain, *, xml: str, cookie: str | None, block: str, size_bytes: int, ram_path: str, to: str,
    timeout_s: float | None = None,
) -> int:
    """Write a paused guest's memory image to the new private file `to`; give the bytes of RAM asked for.

    It lacks those pages of the RAM `block`, of `size_bytes`, that still are the file's at `ram_path`. The
    definition `xml` and libvirt's `cookie` are what libvirt needs to start a QEMU from it. The guest stays
    paused, its disks as they are.
    On failure: PagesRefusedError, OperationTimeoutError, HypervisorError where there is no room for the file;
    and there is none.
    """
    until = _Until(timeout_s)
    try:
        pieces = private_pages(domain.uuid, path=ram_path, size_bytes=size_bytes)
        with new_image(to, xml=xml, cookie=cookie) as image:
            with domain.monitor.sending_state() as connection:
                incoming = _Incoming(connection, until)
                setup = read_setup(incoming)
                if setup.names.get(block) != size_bytes:
                    raise ValueError(f"QEMU has no RAM {block} of {size_bytes} bytes")
                asked = {name: [(0, size)] for name, size in setup.names.items()} | {block: pieces}
                _ask(connection, asked, until)
                _Receiver(incoming, setup, asked).receive(image.write)
            devices = domain.monitor.device_state()
            image.write(devices[_HEAD_BYTES:])
    except _TimeIsUpError as exc:
        raise OperationTimeoutError(f"{domain.name}: the time ran out while QEMU was asked for its RAM") from exc
    except (OSError, struct.error, ValueError, IndexError) as exc:
        if isinstance(exc, OSError) and exc.errno in _NO_ROOM:  # all of the RAM would take more
            raise HypervisorError(f"{domain.name}: cannot write {to}: {exc.strerror}",
                                  hint="make room on that file system, and save again") from exc
        raise PagesRefusedError(f"{domain.name}: what QEMU sends of its RAM is not understood: {exc}",
                                hint=_INSTEAD) from exc
    except HypervisorError as exc:
        raise PagesRefusedError(exc.message, hint=_INSTEAD) from exc
    return sum(end - first for ranges in asked.values() for first, end in ranges)


class _TimeIsUpError(Exception):
    """The caller's time is."""


class _Until:
    """How long QEMU is waited for: until the caller's time is up, and never long where it says nothing."""

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @contextlib.contextmanager
    def waiting(self) -> Iterator[float]:
        """Give the seconds that the block may wait; its TimeoutError stays one unless the caller's time is up."""
        left = math.inf if self._deadline is None else self._deadline - time.monotonic()
        if left <= 0:
            raise _TimeIsUpError
        try:
            yield min(left, _ANSWER_TIMEOUT_S)
        except TimeoutError as exc:
            if left <= _ANSWER_TIMEOUT_S:
                raise _TimeIsUpError from exc
            raise TimeoutError(f"nothing for {_ANSWER_TIMEOUT_S:g} s") from exc


class _Incoming:
    """A stream as it arrives; `data` holds what was not thrown away yet, `at` is where it is read from."""

    def __init__(self, connection: socket.socket, until: _Until) -> None:
        self._connection, self._until = connection, until
        self.data = bytearray()
        self.at = 0

    def need(self, count: int) -> None:
        """Wait until so many bytes are there; on failure: IndexError at the end, _TimeIsUpError, OSError."""
        while len(self.data) - self.at < count:
            with self._until.waiting() as left_s:
                self._connection.settimeout(left_s)
                came = self._connection.recv(_AT_ONCE)
            if not came:
                raise IndexError("it ended before all was there")
            self.data += came

    def need_page(self) -> None:
        """Wait until the next page is there, with what says which; or what is there instead of one."""
        self.need(8)
        flags = NUMBER.unpack_from(self.data, self.at)[0]
        length = 8
        if not flags & (SAME_BLOCK | END_OF_PART):
            self.need(9)
            length += 1 + self.data[self.at + 8]
        self.need(length + (PAGE if flags & WHOLE_PAGE else flags & ZERO_PAGE and 1))

    def take(self, count: int) -> bytes:
        """See Source."""
        self.need(count)
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def peek(self) -> int:
        """See Source."""
        self.need(1)
        return self.data[self.at]

    def throw_away(self) -> None:
        """Forget what was read."""
        del self.data[: self.at]
        self.at = 0

    def hand_over(self, write: Write) -> None:
        """Write what was read, and forget it."""
        with memoryview(self.data) as held, held[: self.at] as read:
            write(read)
        self.throw_away()


def _ask(connection: socket.socket, asked: Mapping[str, Sequence[Piece]], until: _Until) -> None:
    """Send the requests, and see that they were read; QEMU only notes them, so this never waits for it to send.

    Few are on their way at any time: whoever closes the connection, or is killed, while QEMU has more to read ends
    the migration, and the thread that reads then notes the rest in memory that is gone (SIGSEGV, seen on 7.2).
    """
    requests: list[bytes] = []
    for block, pieces in asked.items():
        name = block.encode()
        for first, end in pieces:
            for begin in range(first, end, _MOST_ASKED_AT_ONCE):
                length = min(_MOST_ASKED_AT_ONCE, end - begin)
                requests.append(struct.pack(">HHQIB", _REQUEST, 13 + len(name), begin, length, len(name)) + name)
    for first in range(0, len(requests), _ON_THEIR_WAY):
        with until.waiting() as left_s:
            over = time.monotonic() + left_s
            connection.settimeout(left_s)
            connection.sendall(b"".join(requests[first : first + _ON_THEIR_WAY]))
            while any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))):
                if time.monotonic() > over:
                    raise TimeoutError
                time.sleep(0)


class _Receiver:
    """Writes the stream up to the last page asked for, with pages that were not asked for, and ends the RAM."""

    def __init__(self, incoming: _Incoming, setup: Setup, asked: Mapping[str, Iterable[Piece]]) -> None:
        self._incoming, self._setup = incoming, setup
        self._awaited = {name.encode(): bytearray(-(-size // PAGE)) for name, size in setup.names.items()}
        for name, pieces in asked.items():
            for first, end in pieces:
                pages = slice(first // PAGE, -(-end // PAGE))
                self._awaited[name.encode()][pages] = b"\1" * (pages.stop - pages.start)
        self._left = sum(map(sum, self._awaited.values()))
        self._block = bytearray()  # of the page before, also across parts

    def receive(self, write: Write) -> None:
        """Go through the parts; on failure: ValueError for what is not understood, and what `_Incoming` raises."""
        incoming, setup = self._incoming, self._setup
        incoming.throw_away()
        write(setup.without_marks)
        is_in_part = False
        while self._left:
            kind = incoming.peek()
            if kind == COMMAND:  # to a peer that loads; we are none
                incoming.hand_over(write)
                incoming.take(struct.unpack(">H", incoming.take(5)[3:])[0])
                incoming.throw_away()
                continue
            section = incoming.take(5)
            if kind not in (PART, LAST_PART, FOOTER) or struct.unpack_from(">I", section, 1)[0] != setup.section:
                raise ValueError(f"a section of kind {kind} among those of the RAM")
            is_in_part = kind != FOOTER
            if is_in_part:
                self._receive_part(write)
        incoming.hand_over(write)
        if is_in_part:
            write(setup.end_of_part())
        write(setup.last_part())

    def _receive_part(self, write: Write) -> None:
        """Read pages up to the end of a part, or to the last that was waited for."""
        incoming, block, left = self._incoming, self._block, self._left
        data, at, unpack = incoming.data, incoming.at, NUMBER.unpack_from
        while left:
            if len(data) - at < _MOST_OF_A_PAGE:
                incoming.at = at
                if at > _HELD:
                    incoming.hand_over(write)
                incoming.need_page()  # no byte more: QEMU may have said its last
                at = incoming.at
            word = unpack(data, at)[0]
            at += 8
            flags = word & (PAGE - 1)
            if flags == END_OF_PART:
                break
            kind = flags & ~SAME_BLOCK
            if kind not in (WHOLE_PAGE, ZERO_PAGE):
                raise ValueError(f"a page with the flags {flags:#x}")
            if kind == flags:
                name = bytes(data[at + 1 : at + 1 + data[at]])
                if name not in self._awaited:
                    raise ValueError(f"a page of {name!r}, which it did not name before")
                block = self._awaited[name]
                at += 1 + len(name)
            at += PAGE if kind == WHOLE_PAGE else 1
            number = word // PAGE
            if block[number]:
                block[number] = 0
                left -= 1
        incoming.at, self._block, self._left = at, block, left
