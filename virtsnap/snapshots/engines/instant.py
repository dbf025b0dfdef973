"""Snapshots whose RAM is a file: saved by copying it, loaded by mapping the copy.

The domain's RAM is in a file that QEMU shares with whoever opens it
(`virtsnap.domain_xml.ram_file`). A save copies the file while the guest runs,
pauses it, has libvirt take its snapshot without that RAM, and copies what has
changed meanwhile. What libvirt then has is a
memory image of its own, of some 100 kB, and the definition in it says that the
RAM is the copy, mapped privately: page by page as the guest touches it. So a
load is the `restore` engine's, in the same time for any size of RAM; plain
virsh can restore or revert to such a snapshot as well.

A guest that was loaded so has its RAM in private pages. Of these a save writes
those that the guest changed since, beside the same copy; where that cannot be
had libvirt takes the snapshot as always, and while the guest runs on the RAM is
moved out of the memory image into a file. On a file system with reflinks it is
never private: copies take neither time nor room there, and a load maps one of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER, gives_memory_back, move_ram, obstacles, read_ram_file
from virtsnap.snapshots import places
from virtsnap.snapshots.catalog import SavedMemory, to_text
from virtsnap.snapshots.definition import disks_alone
from virtsnap.snapshots.engines import Revert
from virtsnap.snapshots.engines.restore import RestoreEngine
from virtsnap.snapshots.origin import Origin
from virtsnap.snapshots.steps import (
    BeginCopy,
    CloneRam,
    CopyRam,
    FlushRam,
    LeaveRamOut,
    PauseGuest,
    PlaceRam,
    PopulateRam,
    RecordSnapshot,
    ResumeGuest,
    SaveChanges,
    SplitRam,
    Step,
    StopGuest,
    TakeRamIn,
    TakeSnapshot,
)
from virtsnap.snapshots.view import View

# QEMU that can map a file privately and writable which it opened for reading only
PROTECTS_FILES = (8, 2)
# What a load reads in less than it takes to start QEMU
_LEFT_IN_THE_IMAGE = 64 << 20


class InstantEngine(RestoreEngine):
    """See the module. Where the file system can, the guest gets a shared file again, with the copy's blocks."""

    name = "instant"

    def prepare(self, revert: Revert) -> tuple[Step, ...]:
        """Plan the overlays, and a RAM file whose blocks are the copy's until the guest writes to them."""
        assert revert.facts.ram is not None
        steps = super().prepare(revert)
        if revert.ram_path is not None:
            steps += (CloneRam(source_path=revert.facts.ram.path, path=revert.ram_path),)
        return steps

    def switch(self, revert: Revert) -> tuple[Step, ...]:
        """Plan what `restore` does; the definition in the image says that the RAM is the snapshot's, mapped."""
        if revert.ram_path is not None and revert.saved_xml is not None:
            domain = parse_xml(revert.saved_xml)
            move_ram(domain, revert.ram_path, is_shared=True)
            revert = replace(revert, saved_xml=to_text(domain))
        return tuple(
            replace(step, frees_ram_later=True) if isinstance(step, StopGuest) else step
            for step in super().switch(revert)
        )


@dataclass(frozen=True, kw_only=True)
class InstantSave:
    """A save that copies the RAM of `size_bytes` at `ram_path`, a file or the folder of one.

    `is_read_only` says whether loads shall open the copy for reading only, which QEMU 8.2 can;
    `shares_blocks` whether the copy will share the RAM's blocks; `is_private` whether the RAM is in pages of
    QEMU's own, so that `ram_path` holds but what they were before the guest wrote to them. Then `origin` is
    what the load said of that file, where it said it, and `moves_changes` says that too much was changed since
    to be left in the image.
    """

    ram_path: str
    size_bytes: int
    is_read_only: bool
    shares_blocks: bool = False
    is_private: bool = False
    origin: Origin | None = None
    moves_changes: bool = False


def ram_of_save(instant: InstantSave | None, *, folder: str, token: str) -> SavedMemory | None:
    """Give the RAM file of a snapshot to be: a new one, or the one that the guest was loaded from."""
    if instant is None:
        return None
    if instant.origin is not None and not instant.moves_changes:
        return instant.origin.ram
    return SavedMemory(path=places.ram_path(folder, token), size_bytes=0, mtime_ns=0)


def moves_changes(changed_bytes: int, *, held_bytes: int) -> bool:
    """Say whether so much was changed of a RAM file of `held_bytes` that a load would be slow to read it."""
    return changed_bytes > max(_LEFT_IN_THE_IMAGE, held_bytes // 8)


def obstacle(view: View, *, qemu_version: tuple[int, int]) -> str | None:
    """Say why the running guest cannot be saved by `instant`, as far as definitions tell; None where it can."""
    domain = parse_xml(view.live_xml)
    ram = read_ram_file(domain)
    if ram is None:
        excluded = "; ".join(obstacles(domain))
        return "its RAM is not in a file (`virtsnap create --ram-file` makes such a domain)" + (
            f", and cannot be: {excluded}" if excluded else ""
        )
    if qemu_version < PROTECTS_FILES and gives_memory_back(domain):
        return "it may give memory back, and QEMU before 8.2 would take that out of the snapshot's file"
    return None


def plan_taking(
    take: TakeSnapshot, view: View, *, instant: InstantSave | None, ram_path: str | None, created_s: int
) -> list[Step]:
    """Plan how a snapshot is taken, by `instant` into `ram_path` or whole, and where its RAM then is."""
    if take.memory_path is None:
        return [take]
    ram = read_ram_file(parse_xml(view.live_xml))
    if instant is None or ram_path is None:
        if ram is None or ram.is_shared:
            return [take]
        # The definition names another snapshot's copy: an image with all RAM in it needs none.
        return [take, PlaceRam(
            object_name=take.object_name, memory_path=take.memory_path, ram_path=ram_folder(view), is_shared=True,
            is_read_only=False, state=view.state,
        )]
    place = PlaceRam(
        object_name=take.object_name, memory_path=take.memory_path, ram_path=ram_path, is_shared=False,
        is_read_only=instant.is_read_only, state=view.state,
    )
    runs = view.state == "running"
    if instant.origin is not None:
        return _plan_changes(take, view, instant, place, origin=instant.origin, created_s=created_s)
    if instant.is_private:
        return [
            *((PopulateRam(ram_path=instant.ram_path),) if runs else ()),
            take,
            SplitRam(memory_path=take.memory_path, size_bytes=instant.size_bytes, path=ram_path),
            place,
        ]
    before: Step = (
        FlushRam(ram_path=instant.ram_path, size_bytes=instant.size_bytes) if instant.shares_blocks
        else BeginCopy(ram_path=instant.ram_path, size_bytes=instant.size_bytes, path=ram_path)
    )
    return [
        *((before,) if runs else ()),
        LeaveRamOut(),
        *((PauseGuest(),) if runs else ()),
        take,
        CopyRam(ram_path=instant.ram_path, size_bytes=instant.size_bytes, path=ram_path, resumes=runs),
        TakeRamIn(),
        *((ResumeGuest(),) if runs else ()),
        place,
    ]


def _plan_changes(
    take: TakeSnapshot, view: View, instant: InstantSave, place: PlaceRam, *, origin: Origin, created_s: int,
) -> list[Step]:
    """Plan a save of private pages: the guest's own go into the image, which we write; libvirt does the disks.

    The object comes last: until then it is none, and the save is taken back.
    """
    assert take.memory_path is not None
    assert not take.asked  # those are libvirt's to fulfil, and nothing of it is by `instant`
    runs = view.state == "running"
    current = next((each.object_name for each in view.catalog.snapshots if each.is_current), None)
    return [
        *((PauseGuest(),) if runs else ()),
        SaveChanges(memory_path=take.memory_path, ram_path=origin.ram.path, size_bytes=instant.size_bytes,
                    cookie=origin.cookie),
        replace(take, xml=disks_alone(take.xml), memory_path=None, asked=frozenset({"no-metadata"}),
                is_paused=True),
        *((ResumeGuest(),) if runs else ()),
        *((SplitRam(memory_path=take.memory_path, size_bytes=instant.size_bytes, path=place.ram_path,
                    base_path=origin.ram.path),) if instant.moves_changes else ()),
        RecordSnapshot(object_name=take.object_name, request=take.xml, memory_path=take.memory_path,
                       state=view.state, created_s=created_s, parent=current, persistent_xml=take.previous_xml,
                       cookie=origin.cookie),
        place,
    ]


def ram_folder(view: View) -> str:
    """Give the folder in which QEMU makes the RAM of a cold start."""
    ram = read_ram_file(parse_xml(view.persistent_xml))
    if ram is not None and ram.is_shared and PurePosixPath(ram.path).suffix != ".ram":
        return ram.path
    return DEFAULT_FOLDER
