"""The files of a hypervisor on this machine, by the system's own calls and qemu-img."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from virtsnap.domain_xml.beside_disks import StatePlace
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host import state_archive
from virtsnap.host.files import FileFacts, new_digest
from virtsnap.host.qcow2 import empty_overlay


class LocalFiles:
    """See `HypervisorFiles`."""

    # Looking

    def facts_of(self, path: str) -> FileFacts | None:
        """See HypervisorFiles."""
        try:
            found = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise HypervisorError(f"{path}: {exc.strerror}") from exc
        if stat.S_ISBLK(found.st_mode):
            return FileFacts(size_bytes=_device_bytes(path), held_bytes=0, mtime_ns=0, uid=found.st_uid,
                             gid=found.st_gid, is_device=True)
        if not stat.S_ISREG(found.st_mode):
            raise UnsupportedError(f"{path}: is neither a regular file nor a block device")
        return FileFacts(
            size_bytes=found.st_size, held_bytes=found.st_blocks * 512, mtime_ns=found.st_mtime_ns,
            uid=found.st_uid, gid=found.st_gid,
        )

    def exists(self, path: str) -> bool:
        """See HypervisorFiles."""
        return Path(path).exists()

    def is_taken(self, path: str) -> bool:
        """See HypervisorFiles."""
        return os.path.lexists(path)

    def is_in_use(self, path: str) -> bool:
        """See HypervisorFiles. QEMU holds locks on it (F_OFD_SETLK in QEMU's block/file-posix.c)."""
        try:
            with Path(path).open("rb") as stream:
                # struct flock: type, whence, start, length, pid. A write lock over all meets any lock there is.
                asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                answer = fcntl.fcntl(stream, fcntl.F_OFD_GETLK, asked)
        except OSError:
            return False
        return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)

    def files_in(self, folder: str) -> tuple[str, ...]:
        """See HypervisorFiles."""
        try:
            return tuple(sorted(str(path) for path in Path(folder).iterdir() if path.is_file()))
        except OSError:
            return ()

    def folders_in(self, folder: str) -> tuple[str, ...]:
        """See HypervisorFiles."""
        try:
            return tuple(sorted(
                str(path) for path in Path(folder).iterdir() if path.is_dir() and not path.is_symlink()
            ))
        except OSError:
            return ()

    def same_files(self, paths: tuple[str, ...], others: frozenset[str]) -> frozenset[str]:
        """See HypervisorFiles."""
        real = {os.path.realpath(other) for other in others}
        return frozenset(path for path in paths if os.path.realpath(path) in real)

    # Reading

    def read(self, path: str, *, offset: int, count: int) -> bytes:
        """See HypervisorFiles."""
        try:
            with Path(path).open("rb") as stream:
                stream.seek(offset)
                return stream.read(count)
        except OSError as exc:
            raise HypervisorError(f"{path}: {exc.strerror}") from exc

    def digest_of(self, path: str) -> str:
        """See HypervisorFiles."""
        try:
            with Path(path).open("rb") as stream:
                return hashlib.file_digest(stream, new_digest).hexdigest()
        except OSError as exc:
            raise HypervisorError(f"{path}: {exc.strerror}") from exc

    def release(self) -> None:
        """See HypervisorFiles. Nothing is held."""

    # What a domain keeps beside its disks

    def unreachable_state(self, places: Sequence[StatePlace]) -> tuple[str, ...]:
        """See HypervisorFiles."""
        return tuple(state_archive.unreachable(places))

    def pack_state(self, places: Sequence[StatePlace], archive: str) -> None:
        """See HypervisorFiles."""
        state_archive.pack_state(places, archive)

    def unpack_state(self, archive: str, places: Sequence[StatePlace]) -> None:
        """See HypervisorFiles."""
        state_archive.unpack_state(archive, places)

    def remove_state(self, archive: str) -> None:
        """See HypervisorFiles."""
        state_archive.remove_archive(archive)

    # Changing

    def require_writable(self, folder: str) -> None:
        """See HypervisorFiles."""
        place, hint = Path(folder), "choose another place with --dir"
        if not place.is_dir():
            place = place.parent
        if not place.is_dir():
            raise HypervisorError(f"{place}: no such folder", hint=hint)
        if not os.access(place, os.W_OK | os.X_OK):
            raise HypervisorError(f"{place}: cannot be written to", hint=hint)
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            raise HypervisorError(f"{place}: is on a read-only file system", hint=hint)

    def make_folder(self, path: str) -> bool:
        """See HypervisorFiles."""
        folder = Path(path)
        try:
            if folder.is_dir():
                return False
            folder.mkdir()
            # Root's can be searched by all, as QEMU may run as another user, and listed by none else.
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        except OSError as exc:
            raise HypervisorError(f"{path}: cannot make the folder: {exc.strerror}",
                                  hint="choose another place with --dir") from exc
        return True

    def make_overlay(self, path: str, *, backing_path: str, backing_format: str, virtual_bytes: int,
                     owner: tuple[int, int] | None) -> None:
        """See HypervisorFiles."""
        written, size = empty_overlay(
            virtual_bytes=virtual_bytes, backing_path=backing_path, backing_format=backing_format
        )
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as exc:
            raise HypervisorError(f"{path}: exists already") from exc
        except OSError as exc:
            raise HypervisorError(f"{path}: cannot make the overlay: {exc.strerror}") from exc
        try:
            for at, data in written.items():
                os.pwrite(made, data, at)
            os.truncate(made, size)
            if owner is not None and os.geteuid() == 0:
                os.fchown(made, *owner)
        except OSError as exc:
            self.remove(path)
            raise HypervisorError(f"{path}: cannot make the overlay: {exc.strerror}") from exc
        finally:
            os.close(made)

    def make_private(self, path: str) -> None:
        """See HypervisorFiles."""
        try:
            Path(path).chmod(0o600)
        except OSError as exc:
            raise HypervisorError(f"{path}: cannot be made private: {exc.strerror}") from exc

    def sync(self, paths: Iterable[str]) -> None:
        """See HypervisorFiles."""
        ordered = list(dict.fromkeys(paths))
        # The folder's own name too: it may be new.
        folders = dict.fromkeys(str(folder) for path in ordered for folder in list(Path(path).parents)[:2])
        for path in (*ordered, *folders):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as exc:
                raise HypervisorError(f"{path}: cannot be written to the disk: {exc.strerror}") from exc

    def merge_layers(self, top: str, *, into: str) -> None:
        """See HypervisorFiles."""
        # -d: the layers above are not emptied, they are removed anyway
        words = ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", into, top]
        _run(words, failed=f"{top}: cannot be merged into {into}")

    def rebase(self, path: str, *, base: str, base_format: str) -> None:
        """See HypervisorFiles."""
        words = ["qemu-img", "rebase", "-q", "-f", "qcow2", "-b", base, "-F", base_format, path]
        _run(words, failed=f"{path}: its layers cannot be pulled")

    def remove(self, path: str) -> bool:
        """See HypervisorFiles."""
        if not self.is_taken(path):
            return False  # unlink would say EROFS first on a read-only file system
        try:
            Path(path).unlink()
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise HypervisorError(f"{path}: cannot be removed: {exc.strerror}") from exc
        return True

    def remove_folder_if_empty(self, path: str) -> None:
        """See HypervisorFiles."""
        try:
            Path(path).rmdir()
        except OSError:
            return


def _device_bytes(path: str) -> int:
    try:
        with Path(path).open("rb") as stream:
            return stream.seek(0, os.SEEK_END)
    except OSError as exc:
        raise HypervisorError(f"{path}: {exc.strerror}") from exc


def _run(words: list[str], *, failed: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise HypervisorError("qemu-img is not on the PATH", hint="install the package qemu-utils") from exc
    except subprocess.CalledProcessError as exc:
        raise HypervisorError(f"{failed}: {exc.stderr.strip()}") from exc
