"""Images, firmware and folders that are not at hand become files of the same size and kind, without contents."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.qcow2 import read_qcow2_header

# Formats whose files need more than their length; all others are made as plain files.
MADE_BY_QEMU_IMG = frozenset({"qcow2", "qcow", "vdi", "vmdk", "vpc", "vhdx", "qed", "parallels"})


@contextlib.contextmanager
def stand_in_folder() -> Iterator[Path]:
    """Make a folder that QEMU's user can reach and nobody can find; it is removed in the end.

    On a disk rather than in memory: a file without a page cache (cache=none) must be possible.
    """
    outer = Path(tempfile.mkdtemp(prefix="virtsnap-verify-", dir="/var/tmp"))
    try:
        outer.chmod(0o711)
        inner = Path(tempfile.mkdtemp(dir=outer))
        inner.chmod(0o1777)
        yield inner
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def image_size(path: str) -> int | None:
    """Give the size that a guest sees of an image; None where it cannot be read."""
    file = Path(path)
    try:
        if not file.is_file():
            return None
        header = read_qcow2_header(LocalFiles(), path)
        return file.stat().st_size if header is None else header.virtual_bytes
    except (OSError, VirtsnapError):
        return None


def is_readable_file(path: str) -> bool:
    """Say whether a path is a file that can be read."""
    try:
        with Path(path).open("rb"):
            return Path(path).is_file()
    except OSError:
        return False


def make_image(path: Path, *, format_: str, size_bytes: int) -> None:
    """Make an empty image; raises HypervisorError."""
    if format_ not in MADE_BY_QEMU_IMG:
        with path.open("wb") as file:
            file.truncate(size_bytes)
    else:
        words = ["qemu-img", "create", "-q", "-f", format_, str(path), str(size_bytes)]
        try:
            subprocess.run(words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as exc:
            told = getattr(exc, "stderr", "") or str(exc)
            raise HypervisorError(f"a stand-in of format {format_} cannot be made: {told.strip()}") from exc
    path.chmod(0o666)


def make_file(path: Path, content: bytes) -> None:
    """Write a small file that QEMU's user may read."""
    path.write_bytes(content)
    path.chmod(0o666)


def make_folder(path: Path) -> None:
    """Make a folder for the guest to share."""
    path.mkdir(exist_ok=True)
    path.chmod(0o777)


def memory_bytes() -> int:
    """Give the memory of this host: the kernel refuses a guest that is larger at once."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
