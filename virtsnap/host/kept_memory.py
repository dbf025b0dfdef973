"""The memory of a process that ends is taken apart by us instead of by it, so that it is gone sooner.

A process is gone when its memory is: the kernel takes each page out of its
map before it tells anybody, 0.2 s for the million pages of 4 GiB. Whoever is
reading another's memory (process_vm_readv) holds that memory for the length
of the call, and takes it apart if he is the last. So a thread of ours reads
the same few pages of QEMU's, over and over, until QEMU is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import threading
from collections.abc import Iterator

from virtsnap.host.process_maps import mappings

_AT_ONCE = 1024  # IOV_MAX
_PIECE = 256 << 10  # of so many bytes a call takes 10 to 50 ms; longer ones delay the end, shorter ones leave gaps
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Piece(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


_LIBC.process_vm_readv.restype = ctypes.c_ssize_t
_LIBC.process_vm_readv.argtypes = [
    ctypes.c_int, ctypes.POINTER(_Piece), ctypes.c_ulong, ctypes.POINTER(_Piece), ctypes.c_ulong, ctypes.c_ulong,
]


@contextlib.contextmanager
def kept_memory(pid: int, *, until: contextlib.ExitStack) -> Iterator[None]:
    """Hold the memory of a process that is about to end; `until` waits until it is taken apart.

    Where that cannot be done (it takes the right to trace the process) the process does it itself, as always.
    """
    given_up = threading.Event()
    reading = threading.Event()
    thread = threading.Thread(target=_read_on, args=(pid, reading, given_up), daemon=True)
    thread.start()
    until.callback(thread.join)
    reading.wait()
    try:
        yield
    finally:
        given_up.set()


def _read_on(pid: int, reading: threading.Event, given_up: threading.Event) -> None:
    """Read until the process has no memory any more, or it is given up."""
    try:
        place = _a_place_to_read(pid)
        if place is None:
            return
        buffer = ctypes.create_string_buffer(_PIECE)
        ours = (_Piece * _AT_ONCE)(*[_Piece(ctypes.addressof(buffer), _PIECE)] * _AT_ONCE)
        theirs = (_Piece * _AT_ONCE)(*[_Piece(place, _PIECE)] * _AT_ONCE)
        reading.set()
        while not given_up.is_set():
            count = _LIBC.process_vm_readv(pid, ours, _AT_ONCE, theirs, _AT_ONCE, 0)
            if count < 0 and ctypes.get_errno() != errno.EINTR:
                return
    finally:
        reading.set()


def _a_place_to_read(pid: int) -> int | None:
    """Find so many bytes of the process's own code: they are there for as long as it is."""
    with contextlib.suppress(OSError):
        for mapping in mappings(pid):
            if mapping.rights.startswith("r-x") and mapping.length >= _PIECE:
                return mapping.address
    return None
