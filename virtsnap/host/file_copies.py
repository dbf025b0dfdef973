"""A large file with holes is copied by several threads, whole or where it differs from an older copy.

By sendfile, which moves pages without a detour through this process and was
twice as fast as reading and writing. Comparing is faster still (five times,
once both files are mapped): a copy has to find, clear and account for each
page that it fills. So of a file that changes slowly the copy is begun early,
and what is left for the moment in which it must not change is to compare. By
memcmp: Python compares no slice of a map without copying it, nor without its
lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from virtsnap.errors import OperationTimeoutError

_THREADS = 2
# What a thread does at once, and what it compares at once, and what it copies at least where a byte differs
_CHUNK = 8 << 20
_RUN = 1 << 20
_BLOCK = 64 << 10
_MADV_POPULATE_READ = 22  # linux/mman.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value

Piece = tuple[int, int]


class CopyInTwoParts:
    """A copy of `source` into `target`, of the same size and without data, that is begun now and finished later.

    A context manager, which does the first part; both files are mapped for as long as it lasts.
    On failure, here and in `finish`: OSError, OperationTimeoutError.
    """

    def __init__(self, source: int, target: int, *, timeout_s: float | None = None) -> None:
        self._source, self._target, self._timeout_s = source, target, timeout_s
        self._size = os.fstat(source).st_size
        self._maps = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._copied = copy_data(self._source, self._target, timeout_s=self._timeout_s)
            self._at_source = self._maps.enter_context(_mapped(self._source, self._size, self._copied))
            self._at_target = self._maps.enter_context(_mapped(self._target, self._size, self._copied))
        except BaseException:
            self._maps.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.close()

    def finish(self, *, timeout_s: float | None = None) -> int:
        """Make the target what the source is, which nobody changes now; give the bytes written, in blocks.

        Holes are not read: reading one through a map puts a page into it where the file is on a tmpfs.
        """
        given, taken = data_of(self._source), self._copied
        workers = _Workers(self._source, self._target, timeout_s)
        written = sum((
            workers.each(in_both(given, taken), self._update),
            workers.each(in_first(given, taken), _Copy.copy),
            workers.each(in_first(taken, given), _Copy.clear),
        ))
        self._copied = given
        return written

    def _update(self, copy: _Copy, first: int, end: int) -> int:
        written = 0
        for begin, after in _steps(first, end, _RUN):
            copy.check_time()
            if self._differ(begin, after):
                written += sum(copy.copy(*block) for block in _steps(begin, after, _BLOCK) if self._differ(*block))
        return written

    def _differ(self, first: int, end: int) -> bool:
        return bool(_LIBC.memcmp(self._at_source + first, self._at_target + first, end - first))


def copy_data(source: int, target: int, *, timeout_s: float | None = None) -> list[Piece]:
    """Copy all data of one file into another of the same size, which has none yet; give where there was some.

    On failure: OSError, OperationTimeoutError.
    """
    found = data_of(source)
    _Workers(source, target, timeout_s).each(found, _Copy.copy)
    return found


def populate(file: int, *, timeout_s: float | None = None) -> None:
    """Put pages into the page cache for all holes of a file, as its mapping would one by one.

    Two threads of it take half the time where what takes it is a hypervisor that gives memory out on first use.
    On failure: OSError, OperationTimeoutError.
    """
    size = os.fstat(file).st_size
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    holes = [step for hole in in_first([(0, size)], data_of(file)) for step in _steps(*hole, _CHUNK)]
    with _mapped(file, size, ()) as address, ThreadPoolExecutor(_THREADS) as pool:

        def read(piece: Piece) -> None:
            _check_time(deadline)
            _LIBC.madvise(address + piece[0], piece[1] - piece[0], _MADV_POPULATE_READ)

        for _ in pool.map(read, holes):
            pass


class _Copy:
    """What one thread does to a file, through descriptors of its own: sendfile writes where one stands."""

    def __init__(self, given: int, taken: int, deadline: float | None) -> None:
        self._given, self._taken, self._deadline = given, taken, deadline

    def check_time(self) -> None:
        """Raise OperationTimeoutError when the time has run out."""
        _check_time(self._deadline)

    def copy(self, first: int, end: int) -> int:
        """Copy a piece; give its length."""
        self.check_time()
        at = os.lseek(self._taken, first, os.SEEK_SET)
        while at < end:
            count = os.sendfile(self._taken, self._given, at, end - at)
            if count == 0:
                raise OSError(0, "it became shorter meanwhile")
            at += count
        return end - first

    def clear(self, first: int, end: int) -> int:
        """Put zeros into a piece; give its length."""
        at = first
        while at < end:
            self.check_time()
            at += os.pwrite(self._taken, bytes(min(_BLOCK, end - at)), at)
        return end - first


class _Workers:
    """Threads that act on the pieces of two files."""

    def __init__(self, source: int, target: int, timeout_s: float | None) -> None:
        self._source, self._target = Path(f"/proc/self/fd/{source}"), Path(f"/proc/self/fd/{target}")
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def each(self, pieces: Sequence[Piece], act: Callable[[_Copy, int, int], int]) -> int:
        """Act on all pieces; give the sum of what comes back."""

        def work(mine: Sequence[Piece]) -> int:
            with self._source.open("rb", buffering=0) as given, self._target.open("rb+", buffering=0) as taken:
                copy = _Copy(given.fileno(), taken.fileno(), self._deadline)
                return sum(act(copy, *piece) for piece in mine)

        shares = [step for piece in pieces for step in _steps(*piece, _CHUNK)]
        if not shares:
            return 0
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(work, [shares[number::_THREADS] for number in range(_THREADS)]))


def _check_time(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise OperationTimeoutError("the time ran out while the RAM was read")


def data_of(file: int) -> list[Piece]:
    """Give what of a file holds data, as (first byte, byte after the last), in order."""
    found: list[Piece] = []
    at, end = 0, os.fstat(file).st_size
    while at < end:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            break
        until = os.lseek(file, at, os.SEEK_HOLE)
        found.append((at, until))
        at = until
    return found


def in_both(one: Sequence[Piece], other: Sequence[Piece]) -> list[Piece]:
    """Give what is in pieces of both; each has its pieces in order, none over another."""
    return in_first(one, in_first(one, other))


def in_first(one: Sequence[Piece], other: Sequence[Piece]) -> list[Piece]:
    """Give what is in pieces of the first and of no other."""
    found: list[Piece] = []
    at = 0
    for first, end in one:
        while at < len(other) and other[at][1] <= first:
            at += 1
        n, begin = at, first
        while n < len(other) and other[n][0] < end:
            if begin < other[n][0]:
                found.append((begin, other[n][0]))
            begin = other[n][1]
            n += 1
        if begin < end:
            found.append((begin, end))
    return found


def _steps(first: int, end: int, most: int) -> list[Piece]:
    return [(at, min(end, at + most)) for at in range(first, end, most)]


@contextlib.contextmanager
def _mapped(file: int, size: int, data: Sequence[Piece]) -> Iterator[int]:
    """Map a file for reading, what of it holds data at once; gives the address."""
    address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
    if address in (None, _MAP_FAILED):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        for first, end in data:
            _LIBC.madvise(address + first, end - first, _MADV_POPULATE_READ)  # before Linux 5.14: refused
        yield address
    finally:
        _LIBC.munmap(address, size)
