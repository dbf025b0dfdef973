"""The files of a hypervisor on this machine: looked at, made, removed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.qcow2 import read_qcow2_header

_MAX_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a look at a file tells without reading it. `held_bytes` is what it takes on disk."""

    size_bytes: int
    held_bytes: int
    mtime_ns: int
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file of a disk's chain. `digest` is of its contents (`digest_of`), None where nobody read them."""

    path: str
    format: str
    size_bytes: int
    mtime_ns: int
    virtual_bytes: int
    digest: str | None = None


def file_facts(path: str) -> FileFacts | None:
    """Look at a regular file; None where there is none.

    On failure: HypervisorError for something else of that name, or a folder that cannot be searched.
    """
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise HypervisorError(f"{path}: {exc.strerror}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise UnsupportedError(f"{path}: is not a regular file")
    return FileFacts(
        size_bytes=found.st_size, held_bytes=found.st_blocks * 512, mtime_ns=found.st_mtime_ns,
        uid=found.st_uid, gid=found.st_gid,
    )


def is_there(path: str) -> bool:
    """Say whether anything has that name, a broken link too."""
    return os.path.lexists(path)


def read_chain(path: str, format_: str | None) -> tuple[Layer, ...]:
    """Follow a disk's backing files from the top down to the last.

    `format_` is the top's, as the domain says it. On failure: HypervisorError
    for a layer that is missing, damaged or cannot be read; UnsupportedError
    for one that virtsnap cannot follow.
    """
    layers: list[Layer] = []
    seen: set[str] = set()
    where, kind = path, format_
    above = ""
    while True:
        facts = file_facts(where)
        if facts is None:
            raise HypervisorError(f"{where}: no such file{above}")
        if where in seen or len(layers) >= _MAX_LAYERS:
            raise HypervisorError(f"{where}: its chain of backing files has no end")
        seen.add(where)
        try:
            header = None if kind == "raw" else read_qcow2_header(Path(where))
        except OSError as exc:
            raise HypervisorError(f"{where}: {exc.strerror}") from exc
        if kind == "qcow2" and header is None:
            raise HypervisorError(f"{where}: is not qcow2{above}")
        if kind not in (None, "raw", "qcow2"):
            raise UnsupportedError(f"{where}: format {kind} cannot be kept in a snapshot; raw and qcow2 can")
        if header is not None and header.is_corrupt:
            raise HypervisorError(f"{where}: qcow2 marks itself corrupt")
        layers.append(Layer(
            path=where, format="raw" if header is None else "qcow2", size_bytes=facts.size_bytes,
            mtime_ns=facts.mtime_ns, virtual_bytes=facts.size_bytes if header is None else header.virtual_bytes,
        ))
        if header is None or header.backing_path is None:
            return tuple(layers)
        above = f" (the backing file of {where})"
        where = str(Path(where).parent / header.backing_path)
        kind = header.backing_format


def digest_of(path: str) -> str:
    """Read a whole file and give the digest of its contents: 32 hex digits of BLAKE2b.

    BLAKE2b, because it is the fastest of hashlib's on processors without SHA instructions (0.9 GB/s).
    On failure: HypervisorError.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as exc:
        raise HypervisorError(f"{path}: {exc.strerror}") from exc


def make_folder(path: str) -> bool:
    """Make a folder for private files; say whether it was made now.

    QEMU may run as another user and must pass through: for root the folder
    can be searched by all and listed by none else; its files are private.
    """
    folder = Path(path)
    try:
        if folder.is_dir():
            return False
        folder.mkdir()
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as exc:
        raise HypervisorError(f"{path}: cannot make the folder: {exc.strerror}",
                              hint="choose another place with --dir") from exc
    return True


def require_writable(folder: str) -> None:
    """Raise unless files can be made in `folder`, or in its parent where it is yet to be made."""
    place = Path(folder)
    if not place.is_dir():
        place = place.parent
    if not place.is_dir():
        raise HypervisorError(f"{place}: no such folder", hint="choose another place with --dir")
    if not os.access(place, os.W_OK | os.X_OK):
        raise HypervisorError(f"{place}: cannot be written to", hint="choose another place with --dir")
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise HypervisorError(f"{place}: is on a read-only file system", hint="choose another place with --dir")


def make_overlay(path: str, *, backing_path: str, backing_format: str, virtual_bytes: int,
                 owner: tuple[int, int] | None) -> None:
    """Make an empty qcow2 over a backing file, private, owned by `owner` (uid, gid).

    On success the file is new. On failure there is no file.
    """
    if Path(path).exists():
        raise HypervisorError(f"{path}: exists already")
    # -u: the size is known, so the backing file is neither opened nor locked
    words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing_path, "-F", backing_format,
             path, str(virtual_bytes)]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, umask=0o077)
        if owner is not None and os.geteuid() == 0:
            os.chown(path, *owner)
    except FileNotFoundError as exc:
        raise HypervisorError("qemu-img is not on the PATH", hint="install the package qemu-utils") from exc
    except subprocess.CalledProcessError as exc:
        remove_file(path)
        raise HypervisorError(f"{path}: cannot make the overlay: {exc.stderr.strip()}") from exc
    except OSError as exc:
        remove_file(path)
        raise HypervisorError(f"{path}: cannot make the overlay: {exc.strerror}") from exc


def merge_layers(top: str, *, into: str) -> None:
    """Write what is in `top` and every layer between into the file `into`, which is below it in its chain.

    Needs: no guest has any of them open. On success `into` holds what `top` showed; the layers above are
    of no use any more and still there. On failure: HypervisorError; a second try can finish the work.
    """
    # -d: the layers above are not emptied, they are removed anyway
    words = ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", into, top]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise HypervisorError("qemu-img is not on the PATH", hint="install the package qemu-utils") from exc
    except subprocess.CalledProcessError as exc:
        raise HypervisorError(f"{top}: cannot be merged into {into}: {exc.stderr.strip()}") from exc


def files_in(folder: str) -> tuple[str, ...]:
    """Name the files in a folder; none where there is no such folder."""
    try:
        return tuple(sorted(str(path) for path in Path(folder).iterdir() if path.is_file()))
    except OSError:
        return ()


def make_private(path: str) -> None:
    """Take the rights of group and others away."""
    try:
        Path(path).chmod(0o600)
    except OSError as exc:
        raise HypervisorError(f"{path}: cannot be made private: {exc.strerror}") from exc


def remove_file(path: str) -> bool:
    """Remove a file; say whether there was one.

    On failure: HypervisorError, and the file is still there.
    """
    if not is_there(path):
        return False  # unlink would say EROFS first on a read-only file system
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise HypervisorError(f"{path}: cannot be removed: {exc.strerror}") from exc
    return True


def files_beside(path: str) -> tuple[str, ...]:
    """Name what is in the folder of a file; nothing where it cannot be listed."""
    try:
        return tuple(sorted(str(each) for each in Path(path).parent.iterdir()))
    except OSError:
        return ()


def is_in_use(path: str) -> bool:
    """Say whether QEMU has an image open: it holds locks on it (F_OFD_SETLK in QEMU's block/file-posix.c)."""
    try:
        with Path(path).open("rb") as stream:
            # struct flock: type, whence, start, length, pid. A write lock over all would meet any lock there is.
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(stream, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)


def rebase(path: str, *, base: str, base_format: str) -> None:
    """Copy what the layers between a qcow2 and `base` hold into it, and let it stand on `base`.

    Needs: nobody has it open. On failure: HypervisorError, and it shows what it showed.
    """
    words = ["qemu-img", "rebase", "-q", "-f", "qcow2", "-b", base, "-F", base_format, path]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise HypervisorError("qemu-img is not on the PATH", hint="install the package qemu-utils") from exc
    except subprocess.CalledProcessError as exc:
        raise HypervisorError(f"{path}: its layers cannot be pulled: {exc.stderr.strip()}") from exc


def same_files(paths: tuple[str, ...], others: frozenset[str]) -> frozenset[str]:
    """Give those of `paths` that are the same file as one of `others`, by whatever name."""
    real = {os.path.realpath(other) for other in others}
    return frozenset(path for path in paths if os.path.realpath(path) in real)


def remove_folder_if_empty(path: str) -> None:
    """Remove a folder that nothing is in; anything else is left as it is."""
    try:
        Path(path).rmdir()
    except OSError:
        return
