"""The steps that plans are made of: values that say what will be done, and hold what undoing it takes.

A step does nothing by itself (`virtsnap.snapshots.run` performs and undoes
it). It carries whatever its undo needs that cannot be read off the host
afterwards, so that a list of steps and the number of those begun is all that
anyone needs to take an operation back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from virtsnap.domain_xml.beside_disks import StatePlace
from virtsnap.snapshots.catalog import Facts


@dataclass(frozen=True, kw_only=True)
class Step:
    """Base of all steps.

    `phase` is the word under which its seconds are reported. `is_noted` says
    whether the journal is written before it: needed where a recovery decides by
    it; the undo of any other does nothing where the step was not begun.
    """

    phase: ClassVar[str] = ""
    is_noted: ClassVar[bool] = False

    def describe(self) -> str:
        """Say in one line what the step does."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class KeptObject:
    """A snapshot object as it was, for putting it back."""

    object_name: str
    xml: str
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class MakeFolder(Step):
    """Make the folder of a domain's files. Undo: remove it if nothing is in it."""

    phase = "prepare"
    path: str

    def describe(self) -> str:
        """See Step."""
        return f"make the folder {self.path} unless it is there"


@dataclass(frozen=True, kw_only=True)
class MakePersistent(Step):
    """Give a transient domain a persistent definition. Undo: take it away, while the guest runs."""

    phase = "prepare"

    def describe(self) -> str:
        """See Step."""
        return "make the transient domain persistent for the length of this operation"


@dataclass(frozen=True, kw_only=True)
class MakeOverlay(Step):
    """Make an empty overlay, of the size of what it covers where `virtual_bytes` is None. Undo: remove it.

    `owner_like` is a file whose owner it gets.
    """

    phase = "prepare"
    path: str
    backing_path: str
    backing_format: str
    virtual_bytes: int | None
    owner_like: str | None

    def describe(self) -> str:
        """See Step."""
        return f"make the overlay {self.path} over {self.backing_path}"


@dataclass(frozen=True, kw_only=True)
class RequireAbsent(Step):
    """Raise where a file that is to be made is there. No undo: nobody else's file is ever taken for ours."""

    phase = "prepare"
    paths: tuple[str, ...]

    def describe(self) -> str:
        """See Step."""
        return "see that there is no file yet where the snapshot's will be"


@dataclass(frozen=True, kw_only=True)
class KeepState(Step):
    """Copy what a shut-off domain keeps beside its disks into an archive. Undo: remove it."""

    phase = "save"
    archive: str
    places: tuple[StatePlace, ...]

    def describe(self) -> str:
        """See Step."""
        return f"copy {', '.join(place.what for place in self.places)} into {self.archive}"


@dataclass(frozen=True, kw_only=True)
class ReplaceState(Step):
    """Put the snapshot's state beside the disks in the place of today's, which is kept in `before`.

    `archive` None puts nothing there: the memory brings it. Undo: put back what was there, and remove
    `before`. While a guest runs nothing is put anywhere.
    """

    phase = "restore"
    archive: str | None
    before: str
    places: tuple[StatePlace, ...]

    def describe(self) -> str:
        """See Step."""
        what = ", ".join(place.what for place in self.places)
        return f"keep {what} in {self.before}" + (f", and put back {self.archive}" if self.archive else "")


@dataclass(frozen=True, kw_only=True)
class TakeSnapshot(Step):
    """Have libvirt take an external snapshot.

    Undo: drop the object, put the disks back on the files under the overlays
    (`previous_xml` is the definition of a shut-off domain; a running guest's
    overlays are committed), remove the new files.
    """

    phase = "save"
    is_noted = True
    object_name: str
    xml: str
    memory_path: str | None
    overlays: tuple[tuple[str, str], ...]
    is_active: bool
    previous_xml: str
    # Words of the host's SNAPSHOT_WISHES
    asked: frozenset[str] = frozenset()
    # The guest's RAM: what the memory image can have at most; 0 where nobody knows
    ram_bytes: int = 0
    # The disks of a guest whose state was written before: nobody may have let it run
    is_paused: bool = False

    def describe(self) -> str:
        """See Step."""
        disks = ", ".join(f"{target} → {path}" for target, path in self.overlays) or "no disk"
        memory = "no memory" if self.memory_path is None else f"memory → {self.memory_path}"
        return f"take the snapshot {self.object_name}: {memory}; {disks}"


@dataclass(frozen=True, kw_only=True)
class SyncFiles(Step):
    """Have a new snapshot's files, and what it stands on, written to the disks (fsync). No undo."""

    phase = "sync"
    paths: tuple[str, ...]

    def describe(self) -> str:
        """See Step."""
        return "have everything of the snapshot written to the disks: " + ", ".join(self.paths)


@dataclass(frozen=True, kw_only=True)
class PauseGuest(Step):
    """Pause a running guest. Undo: let it run."""

    phase = "pause"
    is_noted = True

    def describe(self) -> str:
        """See Step."""
        return "pause the guest"


@dataclass(frozen=True, kw_only=True)
class FlushRam(Step):
    """Have the running guest's RAM written out, so that sharing its blocks takes no time. No undo."""

    phase = "flush"
    ram_path: str
    size_bytes: int

    def describe(self) -> str:
        """See Step."""
        return "write the guest's RAM out while it runs, so that little is left for the pause"


@dataclass(frozen=True, kw_only=True)
class CloneRam(Step):
    """Make a file that shares its blocks with the copy of the RAM in a snapshot. Undo: remove it."""

    phase = "prepare"
    source_path: str
    path: str

    def describe(self) -> str:
        """See Step."""
        return f"make the RAM file {self.path}, which shares its blocks with {self.source_path}"


@dataclass(frozen=True, kw_only=True)
class BeginCopy(Step):
    """Copy the running guest's RAM to `path`, so that little of it is left for the pause. Undo: remove it."""

    phase = "precopy"
    ram_path: str
    size_bytes: int
    path: str

    def describe(self) -> str:
        """See Step."""
        return f"copy the guest's RAM to {self.path} while it runs, so that little is left for the pause"


@dataclass(frozen=True, kw_only=True)
class PopulateRam(Step):
    """Read the holes of the file at `ram_path`, which the running guest has mapped privately, into the page cache.

    QEMU will read them in the pause, and finds the pages that the kernel has put there. Undo: nothing.
    """

    phase = "precopy"
    ram_path: str

    def describe(self) -> str:
        """See Step."""
        return f"have the kernel find pages for the holes of {self.ram_path}, which QEMU reads in the pause"


@dataclass(frozen=True, kw_only=True)
class LeaveRamOut(Step):
    """Have QEMU write its state without the RAM that is in a file. Undo: as TakeRamIn."""

    phase = "pause"
    is_noted = True

    def describe(self) -> str:
        """See Step."""
        return "have QEMU leave the RAM out of what it writes"


@dataclass(frozen=True, kw_only=True)
class CopyRam(Step):
    """Copy the paused guest's RAM (`size_bytes` at `ram_path`, a file or the folder of one) to `path`.

    Where BeginCopy came before, only what the guest has changed since is copied.
    It cannot be done again later: the RAM must be that of the snapshot. On failure: HypervisorError, also where
    somebody has let the guest run since its state was written. Undo: remove the copy, and let a guest
    run that was paused for it (`resumes`): before that QEMU, which has written its state out, lets nobody
    merge its disks.
    """

    phase = "copy"
    ram_path: str
    size_bytes: int
    path: str
    resumes: bool

    def describe(self) -> str:
        """See Step."""
        return f"copy the guest's RAM to {self.path}"


@dataclass(frozen=True, kw_only=True)
class SaveChanges(Step):
    """Write the paused guest's memory image, with what it has changed of the RAM file at `ram_path`.

    The guest has that file, of `size_bytes`, mapped privately; `cookie` is the one in the image that it was loaded
    from. It cannot be done again later. Undo: remove the image.
    """

    phase = "changes"
    is_noted = True
    memory_path: str
    ram_path: str
    size_bytes: int
    cookie: str | None

    def describe(self) -> str:
        """See Step."""
        return f"write the guest's state to {self.memory_path}, with the RAM that differs from {self.ram_path}"


@dataclass(frozen=True, kw_only=True)
class RecordSnapshot(Step):
    """Have libvirt know a snapshot of which it took the disks, and we the memory.

    `request` is what libvirt would have been asked for, `state` the guest's before it was paused, `parent` the
    object that was the current one, `persistent_xml` the definition for the next boot. Undo: as TakeSnapshot.
    """

    phase = "record"
    object_name: str
    request: str
    memory_path: str
    state: str
    created_s: int
    parent: str | None
    persistent_xml: str
    cookie: str | None

    def describe(self) -> str:
        """See Step."""
        return f"record the snapshot object {self.object_name}"


@dataclass(frozen=True, kw_only=True)
class SplitRam(Step):
    """Move the RAM of `size_bytes` out of the new snapshot's memory image into the file `path`.

    `base_path` is the RAM file that holds the pages which the image lacks. Undo: remove the new file; the image
    goes with the snapshot.
    """

    phase = "split"
    memory_path: str
    size_bytes: int
    path: str
    base_path: str | None = None

    def describe(self) -> str:
        """See Step."""
        return f"move the RAM from {self.memory_path} to {self.path}"


@dataclass(frozen=True, kw_only=True)
class TakeRamIn(Step):
    """Have QEMU write all of its state again, for whoever saves the guest next. Undo: nothing.

    Where it was begun, the RAM has been copied whole.
    """

    phase = "resume"
    is_noted = True

    def describe(self) -> str:
        """See Step."""
        return "have QEMU write all of its state again"


@dataclass(frozen=True, kw_only=True)
class PlaceRam(Step):
    """Have the new snapshot's image and record say where its RAM is; the image's stream fits any QEMU then.

    `state` is the guest's before it was paused for the save. No undo: both go with the snapshot.
    """

    phase = "record"
    object_name: str
    memory_path: str
    ram_path: str
    is_shared: bool
    is_read_only: bool
    state: str

    def describe(self) -> str:
        """See Step."""
        return f"have the snapshot say that its RAM is at {self.ram_path}"


@dataclass(frozen=True, kw_only=True)
class RecordFacts(Step):
    """Write the facts into the new snapshot object; sizes and times are looked up then. No undo."""

    phase = "record"
    object_name: str
    facts: Facts
    with_digests: bool = False

    def describe(self) -> str:
        """See Step."""
        return f"record the facts of {self.facts.name!r} in the snapshot object"


@dataclass(frozen=True, kw_only=True)
class ForgetObjects(Step):
    """Drop snapshot objects, their files untouched. Undo: put them back. Parents come first in `objects`."""

    phase = "forget"
    is_noted = True
    objects: tuple[KeptObject, ...]
    # Those whose parent libvirt changes when an object goes
    orphans: tuple[KeptObject, ...] = ()

    def describe(self) -> str:
        """See Step."""
        return f"forget the snapshot object{'s' if len(self.objects) > 1 else ''} " + ", ".join(
            kept.object_name for kept in self.objects
        )


@dataclass(frozen=True, kw_only=True)
class RenameObject(Step):
    """Put a snapshot object under another name and make it current. Undo: back under the old one."""

    phase = "replace"
    is_noted = True
    object_name: str
    new_name: str

    def describe(self) -> str:
        """See Step."""
        return f"rename the snapshot object {self.object_name} to {self.new_name}"


@dataclass(frozen=True, kw_only=True)
class PullLayers(Step):
    """Have a disk take in what the layers under it hold, down to the file `base_path`.

    It needs no undo: the disk shows the same before, after and in between.
    """

    phase = "pull"
    target: str
    path: str
    base_path: str
    base_format: str
    layers: int
    is_active: bool

    def describe(self) -> str:
        """See Step."""
        return f"pull {self.layers} layers into {self.path}, which then stands on {self.base_path}"


@dataclass(frozen=True, kw_only=True)
class StopGuest(Step):
    """End the QEMU process: the point of no return of a load. No undo.

    It is noted: a load that was killed before it, and whose guest went off by itself later, is taken back.

    `frees_ram_later` keeps RAM in a file without a name until the operation is over: where the new guest's RAM
    takes no room yet, there is room for both.
    """

    phase = "stop"
    is_noted = True
    frees_ram_later: bool = False

    def describe(self) -> str:
        """See Step."""
        return "stop the guest (the point of no return)"


@dataclass(frozen=True, kw_only=True)
class RestoreMemory(Step):
    """Start a paused guest from a memory image. Undo: end it."""

    phase = "restore"
    memory_path: str
    xml: str

    def describe(self) -> str:
        """See Step."""
        return f"restore {self.memory_path} on the new overlays, paused"


@dataclass(frozen=True, kw_only=True)
class RevertNatively(Step):
    """Have libvirt revert to a snapshot, paused; both definitions follow. Undo: end the guest, put all back.

    libvirt makes an overlay beside each file of `frozen` (target, path), named by the second;
    `since_s` and `there` (what the domain and its snapshots stand on) tell those made now from older ones.
    `current` is the object that was the current one.
    """

    phase = "restore"
    snapshot: KeptObject
    has_memory: bool
    frozen: tuple[tuple[str, str], ...]
    since_s: int
    there: frozenset[str]
    previous_xml: str
    current: str | None

    def describe(self) -> str:
        """See Step."""
        return f"have libvirt revert to {self.snapshot.object_name}, paused"


@dataclass(frozen=True, kw_only=True)
class DefineDomain(Step):
    """Replace the persistent definition. Undo: put the previous one back.

    The journal goes on in the new one. Where it `notes_ahead`, the next noted step is in it already and need not
    be written down by itself; nothing but MakeCurrent may be in between.
    """

    phase = "define"
    xml: str
    previous_xml: str
    notes_ahead: bool = False

    def describe(self) -> str:
        """See Step."""
        return "let the persistent definition follow"


@dataclass(frozen=True, kw_only=True)
class StartGuest(Step):
    """Boot a shut-off domain, stopped at reset. Undo: end it.

    `paths` are its writable disks, by which it is told from another guest; None where the step before knows them.
    """

    phase = "restore"
    paths: tuple[str, ...] | None

    def describe(self) -> str:
        """See Step."""
        return "start the guest, stopped at reset"


@dataclass(frozen=True, kw_only=True)
class MakeCurrent(Step):
    """Make a snapshot the current one, so that the next save becomes its child. Undo: the previous one."""

    phase = "define"
    object_name: str
    previous: str | None

    def describe(self) -> str:
        """See Step."""
        return f"make {self.object_name} the current snapshot"


@dataclass(frozen=True, kw_only=True)
class ResumeGuest(Step):
    """Let the paused guest run. No undo: it is the last step that can fail an operation."""

    phase = "resume"
    is_noted = True

    def describe(self) -> str:
        """See Step."""
        return "let the guest run"


@dataclass(frozen=True, kw_only=True)
class RemoveFiles(Step):
    """Remove files that nothing refers to any more, and the folder if that empties it. No undo.

    `needed` is what must stay: a file that is one of them under another name is left alone.
    """

    phase = "forget"
    paths: tuple[str, ...]
    needed: frozenset[str]
    folders: tuple[str, ...]

    def describe(self) -> str:
        """See Step."""
        return "remove " + ", ".join(self.paths)


@dataclass(frozen=True, kw_only=True)
class MakeTransient(Step):
    """Take the persistent definition of a running domain away again. No undo."""

    phase = "forget"

    def describe(self) -> str:
        """See Step."""
        return "make the domain transient again"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an operation will do.

    `steps` happen all or not at all, but for a load's point of no return;
    `afterwards` tidies up when all of them are done: what fails there is a
    warning, and stops the rest of it.
    """

    op: str
    domain: str
    name: str
    steps: tuple[Step, ...]
    afterwards: tuple[Step, ...] = ()

    def reach(self, begun: int) -> int:
        """Give how many steps may have been begun by the time the next one is noted."""
        while begun < len(self.steps) and not self.steps[begun].is_noted:
            begun += 1
        return begun

    def reach_ahead(self, begun: int) -> int:
        """Give how many may have been begun by the time the next but one is noted."""
        return self.reach(min(self.reach(begun) + 1, len(self.steps)))

    def describe(self) -> tuple[str, ...]:
        """Give one line for each step."""
        return tuple(step.describe() for step in (*self.steps, *self.afterwards))
