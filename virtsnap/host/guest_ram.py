"""The file that is a running guest's RAM becomes a file of ours, while the guest is paused.

The file has no name: it is reached through the QEMU process that has it open,
which takes root or QEMU's own user. Blocks are shared where the file system
can (FICLONE), which takes no time and no room; else they are copied, holes
left out: by sendfile, which moves pages without a detour through this process
and was twice as fast as reading and writing, in two threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from virtsnap.errors import HypervisorError, OperationTimeoutError
from virtsnap.host.qemu_process import find_qemu

_FICLONE = 0x40049409  # linux/fs.h
_CHUNK = 32 << 20
_THREADS = 2
_MOST_ROUNDS = 5
_SHORT_ROUND_S = 0.03


def ram_problem(uuid: str, *, path: str, size_bytes: int) -> str | None:
    """Say why a guest's RAM file cannot be reached from here, or None; `path` is the file or its folder."""
    try:
        with _opened(uuid, path=path, size_bytes=size_bytes):
            return None
    except HypervisorError as exc:
        return exc.message


def copy_ram(uuid: str, *, path: str, size_bytes: int, to: str, timeout_s: float | None = None) -> int:
    """Copy a guest's RAM into the new private file `to`, owned by QEMU's user; give the bytes that it holds.

    Needs: the guest is paused. On failure: HypervisorError, OperationTimeoutError, and the file is gone.
    """
    with _opened(uuid, path=path, size_bytes=size_bytes) as (source, user, group):
        try:
            target = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise HypervisorError(f"{to}: cannot be made: {exc.strerror}") from exc
        try:
            if os.geteuid() == 0:
                os.fchown(target, user, group)
            if not share_blocks(source, target):
                os.ftruncate(target, size_bytes)
                _copy(f"/proc/self/fd/{source}", to, list(_pieces(source)), timeout_s)
            return os.fstat(target).st_blocks * 512
        except OSError as exc:
            Path(to).unlink(missing_ok=True)
            raise HypervisorError(f"{to}: the RAM cannot be copied: {exc.strerror}") from exc
        except BaseException:
            Path(to).unlink(missing_ok=True)
            raise
        finally:
            os.close(target)


def flush_ram(uuid: str, *, path: str, size_bytes: int) -> None:
    """Have the kernel write a running guest's RAM out, again until little is left to be written.

    Sharing blocks takes what is on disk: what is not yet would be written out then, while the guest is
    paused. On failure: HypervisorError.
    """
    with _opened(uuid, path=path, size_bytes=size_bytes) as (source, _, _):
        for _ in range(_MOST_ROUNDS):
            started = time.monotonic()
            try:
                os.fdatasync(source)
            except OSError as exc:
                raise HypervisorError(f"the guest's RAM cannot be written out: {exc.strerror}") from exc
            if time.monotonic() - started < _SHORT_ROUND_S:
                return


def clone_file(source: str, to: str) -> None:
    """Make a private file that shares all blocks with another, and its owner.

    On failure: HypervisorError, and there is no new file.
    """
    try:
        with Path(source).open("rb") as given:
            target = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if not share_blocks(given.fileno(), target):
                    Path(to).unlink()
                    raise HypervisorError(f"{to}: its file system shares no blocks with {source}")
                if os.geteuid() == 0:
                    like = os.fstat(given.fileno())
                    os.fchown(target, like.st_uid, like.st_gid)
            finally:
                os.close(target)
    except OSError as exc:
        raise HypervisorError(f"{to}: cannot be made from {source}: {exc.strerror}") from exc


def can_share_blocks(source: str, folder: str) -> bool:
    """Say whether a file in `folder`, which may be yet to be made, can share blocks with `source`."""
    place = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    try:
        given = Path(source)
        if given.stat().st_dev != place.stat().st_dev:
            return False
        with tempfile.TemporaryFile(dir=place) as one, tempfile.TemporaryFile(dir=place) as other:
            one.write(b"x" * 65536)
            one.flush()
            return share_blocks(one.fileno(), other.fileno())
    except OSError:
        return False


def qemu_user(uuid: str) -> tuple[int, int] | None:
    """Give user and group that a domain's QEMU acts as; None where it is not in sight."""
    pid = find_qemu(uuid)
    try:
        return None if pid is None else _owner(pid)
    except OSError:
        return None


def share_blocks(source: int, target: int) -> bool:
    """Let one file share all blocks of another; False where the file systems cannot."""
    try:
        return bool(fcntl.ioctl(target, _FICLONE, source) == 0)
    except OSError:
        return False


@contextlib.contextmanager
def _opened(uuid: str, *, path: str, size_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Open a guest's RAM; give the descriptor, and QEMU's user and group."""
    pid = find_qemu(uuid)
    if pid is None:
        raise HypervisorError("its QEMU process is not in sight")
    try:
        user, group = _owner(pid)
        place = next((fd for fd in Path(f"/proc/{pid}/fd").iterdir() if _is_ram(fd, path)), None)
        if place is None:
            raise HypervisorError(f"its QEMU process has no RAM at {path} open")
        source = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise HypervisorError(f"its QEMU process may not be looked into ({exc.strerror})",
                              hint="be root, or the user that QEMU runs as") from exc
    try:
        if os.fstat(source).st_size != size_bytes:
            raise HypervisorError(f"the file of its RAM has not the {size_bytes} bytes of its definition")
        yield source, user, group
    finally:
        os.close(source)


def _owner(pid: int) -> tuple[int, int]:
    """Give user and group that a process acts as."""
    lines = dict(line.partition(":")[::2] for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["Uid"].split()[1]), int(lines["Gid"].split()[1])


def _is_ram(fd: Path, path: str) -> bool:
    try:
        name = str(fd.readlink())
    except OSError:
        return False
    # file_ram_open() in QEMU's softmmu/physmem.c: <folder>/qemu_back_mem.<id>.XXXXXX, unlinked at once. By the
    # last part alone: a QEMU in another mount namespace may have the folder under another name.
    last = name.rpartition("/")[2].removesuffix(" (deleted)")
    return last == Path(path).name or last.startswith("qemu_back_mem.virtsnap-ram.")


def _pieces(source: int) -> Iterator[tuple[int, int]]:
    """Give what holds data as (first byte, byte after the last), in pieces that threads can share."""
    at, end = 0, os.fstat(source).st_size
    while at < end:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        until = os.lseek(source, at, os.SEEK_HOLE)
        while at < until:
            step = min(until, at + _CHUNK)
            yield at, step
            at = step


def _copy(source: str, target: str, pieces: list[tuple[int, int]], timeout_s: float | None) -> None:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def work(mine: list[tuple[int, int]]) -> None:
        # Descriptors of its own: sendfile writes where the descriptor stands.
        with Path(source).open("rb", buffering=0) as given, Path(target).open("rb+", buffering=0) as taken:
            for first, end in mine:
                if deadline is not None and time.monotonic() > deadline:
                    raise OperationTimeoutError("the time ran out while the RAM was copied")
                at = first
                taken.seek(first)
                while at < end:
                    count = os.sendfile(taken.fileno(), given.fileno(), at, end - at)
                    if count == 0:
                        raise OSError(0, "it became shorter meanwhile")
                    at += count

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, [pieces[number::_THREADS] for number in range(_THREADS)]))
