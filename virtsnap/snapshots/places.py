"""A domain's UUID and an operation's id become the folder and the file names of a snapshot.

Files are named by ids of ours, never by what a user called a domain or a
snapshot, so that no name can lead out of the folder.
"""

from __future__ import annotations

import re
import secrets
from pathlib import PurePosixPath

_OUR_FILE = re.compile(r"[0-9a-f]{8}(-[A-Za-z0-9_.]+\.qcow2|\.(mem|ram)(\.new)?|\.state(\.part)?)\Z")

_OUR_FOLDER = re.compile(r"virtsnap-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")


def new_token() -> str:
    """Make the id of a snapshot or of a line: 8 hex digits."""
    return secrets.token_hex(4)


def folder_in(directory: str, uuid: str) -> str:
    """Give the folder for a domain's files in `directory`; a file in such a folder stays in it."""
    own = f"virtsnap-{uuid}"
    place = PurePosixPath(directory)
    return str(place if place.name == own else place / own)


def uuid_of_folder(name: str) -> str | None:
    """Give the UUID of the domain whose folder has that name; None for any other folder."""
    found = _OUR_FOLDER.match(name)
    return found[1] if found else None


def overlay_path(folder: str, token: str, target: str) -> str:
    """Name an overlay. libvirt allows only letters and digits in a disk's target."""
    safe = re.sub(r"[^A-Za-z0-9_.]", "_", target)
    return str(PurePosixPath(folder) / f"{token}-{safe}.qcow2")


def memory_path(folder: str, token: str) -> str:
    """Name a memory image."""
    return str(PurePosixPath(folder) / f"{token}.mem")


def state_path(folder: str, token: str) -> str:
    """Name an archive of what a domain keeps beside its disks."""
    return str(PurePosixPath(folder) / f"{token}.state")


def ram_path(folder: str, token: str) -> str:
    """Name the copy of a guest's RAM."""
    return str(PurePosixPath(folder) / f"{token}.ram")


def is_ours(path: str, uuid: str) -> bool:
    """Say whether virtsnap made a file for this domain: only such files are ever removed."""
    place = PurePosixPath(path)
    return place.parent.name == f"virtsnap-{uuid}" and _OUR_FILE.match(place.name) is not None


def is_native_overlay(path: str, frozen_path: str, *, since_s: int) -> bool:
    """Say whether a file is what libvirt's revert makes over `frozen_path`: beside it, named by the second.

    disk.qcow2 → disk.1795490366 (libvirt's src/conf/snapshot_conf.c, and qemuSnapshotRevertExternalPrepare).
    """
    place, frozen = PurePosixPath(path), PurePosixPath(frozen_path)
    number = place.suffix.removeprefix(".")
    return (
        place.parent == frozen.parent and place.stem == frozen.stem
        and number.isascii() and number.isdigit() and int(number) >= since_s
    )
