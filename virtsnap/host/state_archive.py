"""What a domain keeps beside its disks becomes one private file, and goes back from there to where it was.

The file is a tar archive: `nvram` is the file with the UEFI variables,
`tpm/` the folder of the TPM's state. What is not in it was not there (libvirt
makes both at a domain's first start). It is written under another name and
renamed, so an archive that is there is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from virtsnap.domain_xml.beside_disks import StatePlace
from virtsnap.errors import HypervisorError

if TYPE_CHECKING:
    from tarfile import TarInfo

_LOCK = ".lock"  # swtpm's own
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")


def tpm_root(uri: str, uuid: str) -> str:
    """Say where the hypervisor on this machine has the TPM of a domain (libvirt's src/qemu/qemu_conf.c)."""
    parts = urlsplit(uri)
    if parts.path.endswith("/session"):
        home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        base = Path(home) / "libvirt" / "qemu" / "swtpm"
    elif parts.path.endswith("/embed"):
        base = Path(parse_qs(parts.query).get("root", ["/"])[0]) / "lib" / "swtpm"
    else:
        base = Path("/var/lib/libvirt/swtpm")
    return str(base / uuid)


def unreachable(places: Sequence[StatePlace]) -> Iterator[str]:
    """Say of each place why it cannot be read and written to from here; nothing where it can."""
    for place in places:
        if place.path is None:
            yield f"the definition does not say where {place.what} lies"
            continue
        problem = _problem(Path(place.path), is_folder=place.kind == "tpm")
        if problem is not None:
            yield f"{place.what} in {place.path} cannot be kept: {problem}"


def _problem(path: Path, *, is_folder: bool) -> str | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        # libvirt makes it at the first start. Its folder has to be reachable, or nothing is known.
        above = next((each for each in path.parents if os.path.lexists(each)), Path("/"))
        return None if os.access(above, os.W_OK | os.X_OK) else f"{above} cannot be written to"
    except OSError as exc:
        return exc.strerror
    if is_folder != stat.S_ISDIR(found.st_mode) or not (is_folder or stat.S_ISREG(found.st_mode)):
        return "it is no folder" if is_folder else "it is no regular file"
    rights = os.R_OK | os.W_OK | (os.X_OK if is_folder else 0)
    return None if os.access(path, rights) else "no right to read and write it"


def pack_state(places: Sequence[StatePlace], archive: str) -> None:
    """Copy what is at the places into a new archive, private and on disk when this returns.

    Needs: nothing changes them meanwhile. On failure: HypervisorError, and there is no archive.
    """
    import tarfile

    part = Path(_part_of(archive))
    try:
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        with os.fdopen(fd, "w+b") as stream:
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for place in places:
                    if place.path is not None:
                        _add(tar, place, Path(place.path))
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(archive)
    except (OSError, tarfile.TarError) as exc:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise HypervisorError(f"{archive}: cannot be written: {_words(exc)}") from exc


def _add(tar: object, place: StatePlace, path: Path) -> None:
    import tarfile

    assert isinstance(tar, tarfile.TarFile)
    if place.kind == "nvram":
        if path.exists():
            tar.add(path.resolve(), "nvram", recursive=False)
        return
    if not path.is_dir():
        return
    tar.add(path, "tpm", recursive=False)
    for each in sorted(path.iterdir()):
        if each.name != _LOCK and each.is_file() and not each.is_symlink():
            tar.add(each, f"tpm/{each.name}", recursive=False)


def unpack_state(archive: str, places: Sequence[StatePlace]) -> None:
    """Put back what an archive holds; what it does not hold is removed from its place.

    Files that are there are written in place and keep owner and labels. Doing it again does no harm.
    On failure: HypervisorError, and the places may hold a part of it.
    """
    import tarfile

    try:
        members = _members(archive)
        for place in places:
            if place.path is None:
                continue
            if place.kind == "nvram":
                _put_file(Path(place.path), members.get("nvram"))
            else:
                _put_folder(Path(place.path), {
                    name.removeprefix("tpm").removeprefix("/"): member
                    for name, member in members.items() if name == "tpm" or name.startswith("tpm/")
                })
    except (OSError, tarfile.TarError) as exc:
        raise HypervisorError(f"{archive}: cannot be put back: {_words(exc)}") from exc


def remove_archive(archive: str) -> None:
    """Remove an archive, and one that was not finished; it is no error when there is none."""
    for path in (archive, _part_of(archive)):
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as exc:
            raise HypervisorError(f"{path}: cannot be removed: {exc.strerror}") from exc


def _part_of(archive: str) -> str:
    return archive + ".part"


_Member = tuple["TarInfo", bytes]


def _members(archive: str) -> Mapping[str, _Member]:
    """Read an archive whole: an NVRAM file has half a megabyte, a TPM's state some kilobytes."""
    import tarfile

    found: dict[str, _Member] = {}
    with tarfile.open(archive) as tar:
        for info in tar:
            folder, _, name = info.name.partition("/")
            known = info.isfile() and (info.name == "nvram" or (folder == "tpm" and _NAME.match(name)))
            if known:
                content = tar.extractfile(info)
                assert content is not None
                found[info.name] = (info, content.read())
            elif info.isdir() and info.name == "tpm":
                found[info.name] = (info, b"")
            else:
                raise HypervisorError(f"{archive}: holds {info.name!r}, which no virtsnap put there")
    return found


def _put_file(path: Path, member: _Member | None) -> None:
    if member is None:
        path.unlink(missing_ok=True)
        return
    info, content = member
    try:
        fd = os.open(path, os.O_WRONLY)
        is_new = False
    except FileNotFoundError:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        is_new = True
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        _give(path, info)


def _put_folder(path: Path, members: Mapping[str, _Member]) -> None:
    own = members.get("")
    if own is not None and not path.is_dir():
        path.mkdir(mode=0o700, parents=True)
        path.parent.chmod(0o711)  # QEMU's and swtpm's user pass through, as libvirt makes it
        _give(path, own[0])
    there = {each.name for each in path.iterdir()} if path.is_dir() else set()
    for name, member in members.items():
        if name:
            _put_file(path / name, member)
    for name in sorted(there - members.keys()):
        if name != _LOCK and (path / name).is_file():
            (path / name).unlink()
    if own is None and there:
        # Without the folder libvirt makes a new TPM at the next start, as it would have at the save.
        (path / _LOCK).unlink(missing_ok=True)
        path.rmdir()


def _give(path: Path, info: TarInfo) -> None:
    if os.geteuid() == 0:
        os.chown(path, info.uid, info.gid)
    path.chmod(stat.S_IMODE(info.mode))


def _words(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)
