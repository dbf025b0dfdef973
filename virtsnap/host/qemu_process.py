"""The QEMU process of a domain on this machine: found, and ended before libvirt is asked to end it.

virDomainDestroy sends a signal, looks whether the process is gone, and looks
again every 200 ms; QEMU takes 10 to 30 ms, so a stop takes 0.21 s. Where the
process is gone (and reaped) by the first look, it takes 10 ms. QEMU cannot
simply be ended beforehand, though: libvirt would see its monitor close, stop
the domain by itself, find the process still on its way out, and wait the same
200 ms. So the monitor is kept open meanwhile, by a duplicate of QEMU's end of
it; libvirt's records, events and reasons are then those of a plain destroy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.kept_memory import kept_memory
from virtsnap.host.process_maps import file_name

# QEMU flushes its disks on the way out; past this libvirt's own way is no slower.
_END_TIMEOUT_S = 1.0
# A parent that has not reaped it by then never does, or does so late (a container's PID 1).
_REAP_TIMEOUT_S = 0.15
# Whoever waits for an answer from that monitor is told only when it closes.
_HOLD_S = 0.1
_PIDFD_GETFD = 438  # the same number on every architecture (linux/arch/*/syscall.tbl)
_CONNECTED = "03"
# file_ram_open() in QEMU's softmmu/physmem.c: <folder>/qemu_back_mem.<id>.XXXXXX, unlinked at once
UNNAMED_RAM = "qemu_back_mem.virtsnap-ram."


def find_qemu(uuid: str) -> int | None:
    """Give the PID of the QEMU that runs the domain; None where none, or more than one, is in sight."""
    words = b"\0-uuid\0" + uuid.encode() + b"\0"
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - a load waits for it, and Path takes twice as long
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:  # noqa: PTH123 - as above
                if words in file.read():
                    found.append(int(name))
    return found[0] if len(found) == 1 else None


@contextlib.contextmanager
def looked_into(uuid: str) -> Iterator[int]:
    """Give the PID of the domain's QEMU to a block that looks into the process.

    On failure: HypervisorError, also for an OSError of the block, which takes the right to do so.
    """
    pid = find_qemu(uuid)
    if pid is None:
        raise HypervisorError("its QEMU process is not in sight")
    try:
        yield pid
    except OSError as exc:
        raise HypervisorError(f"its QEMU process may not be looked into ({exc.strerror})",
                              hint="be root, or the user that QEMU runs as") from exc


@contextlib.contextmanager
def ended(uuid: str, *, held: contextlib.ExitStack | None = None) -> Iterator[bool]:
    """End a domain's QEMU as libvirt would, and hide it from libvirt for the length of the block.

    `held` gets the guest's RAM, where that is a file of ours without a name, and the process's memory: the kernel
    takes a second for 4 GiB to free, and 0.2 s to take them out of the map, and QEMU is not gone before.

    Yields whether the process is gone. Where not, all is as it was but for the signal, and libvirt's own
    way ends it too: it may be out of sight or out of reach (another user's, or ptrace is restricted), hang,
    or be slow.
    """
    kept = _Kept()
    is_gone = False
    try:
        with contextlib.suppress(OSError):
            is_gone = _end(uuid, kept, held)
        if not is_gone:
            kept.close()
        timer = threading.Timer(_HOLD_S, kept.close)
        timer.daemon = True
        timer.start()
        try:
            yield is_gone
        finally:
            timer.cancel()
    finally:
        kept.close()


class _Kept:
    """Descriptors that are closed once, by whoever comes first."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._lock = threading.Lock()

    def add(self, fd: int) -> None:
        self._fds.append(fd)

    def close(self) -> None:
        with self._lock:
            for fd in self._fds:
                os.close(fd)
            self._fds = []


def _end(uuid: str, kept: _Kept, held: contextlib.ExitStack | None) -> bool:
    """Send SIGTERM, upon which QEMU shuts down in order, and wait until nothing is left of the process.

    On failure: OSError, and no signal was sent.
    """
    pid = find_qemu(uuid)
    if pid is None:
        return False
    handle = os.pidfd_open(pid)
    try:
        fds = _monitor_fds(pid)
        for fd in fds:
            kept.add(_duplicate(handle, fd))
        if not fds:
            return False
        with contextlib.ExitStack() as meanwhile:
            if held is not None:
                for fd in _unnamed_ram_fds(pid):
                    held.callback(os.close, _duplicate(handle, fd))
                meanwhile.enter_context(kept_memory(pid, until=held))
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], _END_TIMEOUT_S)[0]:
                return False
    finally:
        os.close(handle)
    deadline = time.monotonic() + _REAP_TIMEOUT_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _monitor_fds(pid: int) -> list[int]:
    """Find the process's descriptors of libvirt's connection to its monitor."""
    inodes = set()
    for line in Path(f"/proc/{pid}/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path; an accepted socket has its listener's path
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[5] == _CONNECTED and fields[7].endswith("/monitor.sock"):
            inodes.add(f"socket:[{fields[6]}]")
    return [fd for fd, name in _open_files(pid) if name in inodes]


def _unnamed_ram_fds(pid: int) -> list[int]:
    return [fd for fd, name in _open_files(pid) if file_name(name).startswith(UNNAMED_RAM)]


def _open_files(pid: int) -> Iterator[tuple[int, str]]:
    """Give the descriptors of a process, and the kernel's names for what they are."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            yield int(fd.name), str(fd.readlink())


def _duplicate(handle: int, fd: int) -> int:
    """Duplicate a descriptor of another process; needs the right to trace it."""
    libc = ctypes.CDLL(None, use_errno=True)
    got = int(libc.syscall(_PIDFD_GETFD, handle, fd, 0))
    if got < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return got
