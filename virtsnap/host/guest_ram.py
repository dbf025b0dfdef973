"""The file that is a running guest's RAM becomes a file of ours, whole as of a pause of the guest.

The file has no name: it is reached through the QEMU process that has it open,
which takes root or QEMU's own user. Blocks are shared where the file system
can (FICLONE), which takes no time and no room; else they are copied, the most
of it before the pause (`virtsnap.host.file_copies`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.file_copies import CopyInTwoParts, copy_data, populate
from virtsnap.host.files import unfinished
from virtsnap.host.process_maps import file_name
from virtsnap.host.qemu_process import UNNAMED_RAM, find_qemu, looked_into

_FICLONE = 0x40049409  # linux/fs.h
_MOST_ROUNDS = 5
_SHORT_ROUND_S = 0.03


def ram_problem(uuid: str, *, path: str, size_bytes: int) -> str | None:
    """Say why a guest's RAM file cannot be reached from here, or None; `path` is the file or its folder."""
    try:
        with _opened(uuid, path=path, size_bytes=size_bytes):
            return None
    except HypervisorError as exc:
        return exc.message


class BegunCopy:
    """A copy of a running guest's RAM that will be right when it is finished."""

    def __init__(self, to: str, source: int, target: int, copy: CopyInTwoParts) -> None:
        self._to, self._source, self._target, self._copy = to, source, target, copy

    def finish(self, uuid: str, *, path: str, size_bytes: int, timeout_s: float | None = None) -> int:
        """Copy what has changed since; give the bytes that the file holds. Needs: the guest is paused.

        On failure: HypervisorError, also where it is another QEMU by now; OperationTimeoutError.
        """
        with _opened(uuid, path=path, size_bytes=size_bytes) as (now, _, _), _told(self._to):
            if not os.path.samestat(os.fstat(now), os.fstat(self._source)):
                raise HypervisorError("its QEMU was replaced by another while the RAM was copied",
                                      hint="save again")
            self._copy.finish(timeout_s=timeout_s)
            return os.fstat(self._target).st_blocks * 512


@contextlib.contextmanager
def begun_copy(
    uuid: str, *, path: str, size_bytes: int, to: str, timeout_s: float | None = None
) -> Iterator[BegunCopy]:
    """Copy a running guest's RAM into the new private file `to`, owned by QEMU's user, and keep both open.

    On failure: HypervisorError, OperationTimeoutError, and the file is gone. What happens later leaves it there.
    """
    with contextlib.ExitStack() as opened:
        source, user, group = opened.enter_context(_opened(uuid, path=path, size_bytes=size_bytes))
        with _new(to, user, group) as made:
            os.ftruncate(made, size_bytes)
            target = os.dup(made)
            opened.callback(os.close, target)
            copy = opened.enter_context(CopyInTwoParts(source, target, timeout_s=timeout_s))
        yield BegunCopy(to, source, target, copy)


def copy_ram(uuid: str, *, path: str, size_bytes: int, to: str, timeout_s: float | None = None) -> int:
    """Copy a guest's RAM into the new private file `to`, owned by QEMU's user; give the bytes that it holds.

    Needs: the guest is paused. On failure: HypervisorError, OperationTimeoutError, and the file is gone.
    """
    with _opened(uuid, path=path, size_bytes=size_bytes) as (source, user, group), _new(to, user, group) as target:
        if not share_blocks(source, target):
            os.ftruncate(target, size_bytes)
            copy_data(source, target, timeout_s=timeout_s)
        return os.fstat(target).st_blocks * 512


@contextlib.contextmanager
def _new(path: str, user: int, group: int) -> Iterator[int]:
    """Make a file, and remove it where the block fails."""
    try:
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise HypervisorError(f"{path}: cannot be made: {exc.strerror}") from exc
    try:
        with _told(path):
            if os.geteuid() == 0:
                os.fchown(target, user, group)
            yield target
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise HypervisorError(f"{path}: the RAM cannot be copied: {exc.strerror}") from exc


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


def populate_file(path: str, *, timeout_s: float | None = None) -> None:
    """Have the kernel find pages for the holes of a RAM file that a guest has mapped privately.

    What reads those holes then, a page at a time, finds pages. Where that cannot be done it is left: it saves
    time and nothing else. On failure: OperationTimeoutError.
    """
    with contextlib.suppress(OSError), Path(path).open("rb") as ram:
        populate(ram.fileno(), timeout_s=timeout_s)


def clone_file(source: str, to: str) -> None:
    """Make a private file that shares all blocks with another, and its owner.

    Until it is whole it is called `unfinished(to)`: where there is a file `to`, a guest can have it as its RAM.
    On failure: HypervisorError, and there is no new file.
    """
    try:
        with Path(source).open("rb") as given:
            like = os.fstat(given.fileno())
            with _new(unfinished(to), like.st_uid, like.st_gid) as target:
                if not share_blocks(given.fileno(), target):
                    raise HypervisorError(f"{to}: its file system shares no blocks with {source}")
                Path(unfinished(to)).rename(to)
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
    with looked_into(uuid) as pid:
        user, group = _owner(pid)
        place = next((fd for fd in Path(f"/proc/{pid}/fd").iterdir() if _is_ram(fd, path)), None)
        if place is None:
            raise HypervisorError(f"its QEMU process has no RAM at {path} open")
        source = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
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
        last = file_name(str(fd.readlink()))
    except OSError:
        return False
    return last == Path(path).name or last.startswith(UNNAMED_RAM)
