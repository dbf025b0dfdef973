"""The folders of snapshots become a list of files that nothing refers to.

A folder is looked into where a disk or a snapshot of any domain lies, and
where the caller says. A file of ours in it is needed while any domain's disk
or any snapshot, of whichever domain, stands on it. A folder whose domain this
hypervisor does not know belongs to a vanished one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from virtsnap.host.files import HypervisorFiles
from virtsnap.snapshots.places import is_ours, uuid_of_folder
from virtsnap.snapshots.view import View


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Files to remove with the bytes that they hold, the folders they are in, and what was left alone and why."""

    paths: tuple[str, ...]
    held_bytes: int
    folders: tuple[str, ...]
    needed: frozenset[str]
    spared: tuple[str, ...]


def places_to_look(views: Iterable[View], directories: Iterable[str]) -> tuple[str, ...]:
    """Name the folders that may hold folders of ours."""
    found = set(directories)
    for view in views:
        files = {disk.path for disk in (*view.disks, *view.persistent_disks) if disk.path}
        files |= {path for chain in view.chains.values() for path in chain}
        for snapshot in view.catalog.snapshots:
            files |= {path for path in (*snapshot.overlay_paths, snapshot.memory_path) if path}
        for path in files:
            parent = PurePosixPath(path).parent
            found.add(str(parent.parent if uuid_of_folder(parent.name) else parent))
    return tuple(sorted(found))


def find_garbage(
    files: HypervisorFiles, views: Mapping[str, View], directories: Collection[str], *, only: str | None = None
) -> Garbage:
    """Find what can go; `views` are all domains by UUID, `only` restricts it to one domain's folders.

    A domain whose needs cannot be known keeps all of its files.
    """
    needed: set[str] = set()
    unknown: set[str] = set()
    for uuid, view in views.items():
        for used in (view.files_of_the_line(), *(view.files_of(each) for each in view.catalog.snapshots)):
            if used is None:
                unknown.add(uuid)
            else:
                needed |= used
    paths, folders, spared, held = [], [], [], 0
    for place in places_to_look(views.values(), directories):
        for folder in files.folders_in(place):
            owner = uuid_of_folder(PurePosixPath(folder).name)
            if owner is None or only not in (None, owner):
                continue
            if owner in unknown:
                spared.append(f"{folder}: a chain of its domain cannot be followed")
                continue
            folders.append(folder)
            for path in files.files_in(folder):
                if path in needed or not is_ours(path, owner):
                    continue
                if files.is_in_use(path):
                    spared.append(f"{path}: a process has it open")
                    continue
                facts = files.facts_of(path)
                held += 0 if facts is None else facts.held_bytes
                paths.append(path)
    return Garbage(paths=tuple(paths), held_bytes=held, folders=tuple(folders), needed=frozenset(needed),
                   spared=tuple(spared))
