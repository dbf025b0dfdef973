"""A request and what was seen of a domain become a plan: pure, printed by --dry-run, tested without a host.

Each `plan_*` refuses (UnsupportedError, NoSuchSnapshotError) what cannot be
done at all; whether the files are fit is looked at by
`virtsnap.snapshots.preflight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from virtsnap.domain_xml.beside_disks import places_beside_disks
from virtsnap.domain_xml.live import Disk, nvme_controllers, parse_xml, writable_passthrough_drives
from virtsnap.errors import ExistsError, UnsupportedError
from virtsnap.host.files import Layer
from virtsnap.snapshots import places
from virtsnap.snapshots.catalog import Facts, SavedDisk, SavedMemory, SavedState, Snapshot
from virtsnap.snapshots.definition import definitions_in_snapshot, on_new_overlays, snapshot_request
from virtsnap.snapshots.engines import Engine, Revert
from virtsnap.snapshots.engines.instant import InstantSave, plan_taking, ram_of_save
from virtsnap.snapshots.names import encode_name, is_temporary, temporary_name
from virtsnap.snapshots.steps import (
    DefineDomain,
    ForgetObjects,
    KeepState,
    KeptObject,
    MakeCurrent,
    MakeFolder,
    MakeOverlay,
    MakePersistent,
    MakeTransient,
    Plan,
    PullLayers,
    RecordFacts,
    RemoveFiles,
    RenameObject,
    ReplaceState,
    RequireAbsent,
    ResumeGuest,
    Step,
    StopGuest,
    SyncFiles,
    TakeSnapshot,
)
from virtsnap.snapshots.view import Unneeded, View

Final = Literal["running", "paused", "as-saved"]
Scope = Literal["one", "tree", "below"]


@dataclass(frozen=True, kw_only=True)
class SaveRequest:
    """Save `name`. `directory` None is beside the first writable disk; `token` is a fresh id.

    virsh's verb asks for more: a name that is taken to be refused, the disks of a running guest alone
    (which is what a power cut would leave), and `asked`, words of the host's SNAPSHOT_WISHES.
    `with_digests` reads every file of the snapshot and records digests; `durable` has them all on the disks
    before the save is done. `instant` leaves the RAM to a copy of the file that it is in.
    """

    name: str
    directory: str | None
    description: str | None
    token: str
    now_ns: int
    replace: bool = True
    disk_only: bool = False
    asked: frozenset[str] = frozenset()
    with_digests: bool = False
    durable: bool = False
    instant: InstantSave | None = None


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """Load `name` and leave the guest as `final` says; `token` is a fresh id, `now_s` is Unix time.

    `shares_blocks` says whether a new RAM file can share its blocks with the snapshot's.
    """

    name: str
    final: Final
    keep_newer: bool
    token: str
    now_s: int
    shares_blocks: bool = False


# Save


def plan_save(request: SaveRequest, view: View) -> Plan:
    """Plan a save, which replaces a snapshot of the same name once the new one is complete.

    On failure: UsageError for the name, UnsupportedError for a domain that cannot be saved, ExistsError
    where the name is taken and not to be replaced.
    """
    encoded = encode_name(request.name)
    with_memory = view.is_active and not request.disk_only
    require_saveable(view, with_memory=with_memory)
    old = view.catalog.get(request.name)
    if old is not None and not request.replace:
        raise ExistsError(f"operation failed: domain moment {request.name} already exists")  # libvirt's words
    folder = folder_for(view, request.directory)
    overlays = tuple(
        (disk.target, places.overlay_path(folder, request.token, disk.target)) for disk in view.writable_disks
    )
    memory = places.memory_path(folder, request.token) if with_memory else None
    beside = () if with_memory else view.beside_disks
    archive = places.state_path(folder, request.token) if beside else None
    instant = request.instant if with_memory else None
    ram = ram_of_save(instant, folder=folder, token=request.token)
    object_name = encoded if old is None else temporary_name(request.token)
    facts = Facts(
        id=request.token, name=request.name, state=view.state if with_memory else "shutoff",
        created_ns=request.now_ns, folder=folder,
        memory=None if memory is None else SavedMemory(path=memory, size_bytes=0, mtime_ns=0),
        ram=ram,
        disks=tuple(
            SavedDisk(target=disk.target, overlay_path=dict(overlays)[disk.target], layers=_layers_of(disk, view))
            for disk in view.writable_disks
        ),
        beside=None if archive is None else SavedState(path=archive, size_bytes=0, mtime_ns=0),
    )
    take = TakeSnapshot(
        object_name=object_name,
        xml=snapshot_request(
            object_name=object_name, description=request.description, memory_path=memory,
            overlays=dict(overlays),
            left_out=[disk.target for disk in view.disks if not disk.is_writable],
        ),
        memory_path=memory, overlays=overlays, is_active=view.is_active, previous_xml=view.persistent_xml,
        asked=request.asked if view.is_active else request.asked | {"reuse-external"},
        ram_bytes=1024 * int(parse_xml(view.live_xml).findtext("memory", "0")),
    )
    steps: list[Step] = [] if view.is_persistent else [MakePersistent()]
    steps += [
        MakeFolder(path=folder),
        RequireAbsent(paths=(*facts.own_files, *(path for _, path in overlays))),
        *(() if archive is None else (KeepState(archive=archive, places=beside),)),
        *_overlays_of_a_shut_off_domain(view, dict(overlays)),
        *plan_taking(take, view, instant=instant, ram_path=None if ram is None else ram.path,
                     created_s=request.now_ns // 10**9),
        *((SyncFiles(paths=_all_files(facts)),) if request.durable else ()),
        RecordFacts(object_name=object_name, facts=facts, with_digests=request.with_digests),
    ]
    afterwards: list[Step] = []
    if old is not None:
        steps += [_forget(view, (old,)), RenameObject(object_name=object_name, new_name=encoded)]
        kept = tuple(snapshot for snapshot in view.catalog.snapshots if snapshot is not old)
        line = view.files_of_the_line()  # the new snapshot's frozen chain is today's line
        afterwards += _remove(view.unneeded(gone=(old,), kept=kept, line=line))
    if not view.is_persistent:
        afterwards.append(MakeTransient())
    return Plan(op="save", domain=view.name, name=request.name, steps=tuple(steps), afterwards=tuple(afterwards))


def _all_files(facts: Facts) -> tuple[str, ...]:
    memory = tuple(held.path for held in (facts.memory, facts.ram) if held is not None)
    disks = (path for disk in facts.disks for path in (disk.overlay_path, *(layer.path for layer in disk.layers)))
    return (*memory, *disks)


def _overlays_of_a_shut_off_domain(view: View, overlays: Mapping[str, str]) -> tuple[Step, ...]:
    """Plan the overlays that libvirt would else make itself, readable by all (9.0)."""
    return () if view.is_active else tuple(
        MakeOverlay(path=overlays[disk.target], backing_path=disk.path, backing_format=disk.format or "raw",
                    virtual_bytes=None, owner_like=disk.path)
        for disk in view.writable_disks if disk.path
    )


def _layers_of(disk: Disk, view: View) -> tuple[Layer, ...]:
    """Name the layers; their sizes and times are looked up once the disk is frozen."""
    assert disk.path is not None
    return tuple(
        Layer(path=path, format=disk.format or "raw", size_bytes=0, mtime_ns=0, virtual_bytes=0)
        for path in view.chains.get(disk.path, (disk.path,))
    )


def require_saveable(view: View, *, with_memory: bool | None = None) -> None:
    """Raise UnsupportedError, naming all that stands in the way of a save; `with_memory` None: if it runs."""
    obstacles = obstacles_to_save(view, with_memory=with_memory)
    if obstacles:
        raise UnsupportedError(f"{view.name} cannot be saved: " + "; ".join(obstacles))


def obstacles_to_save(view: View, *, with_memory: bool | None = None) -> list[str]:
    """Name all that stands in the way of a save; `with_memory` None: if it runs."""
    if with_memory is None:
        with_memory = view.is_active
    why = "the disks alone are to be saved" if view.is_active else "it is shut off"
    obstacles = [obstacle for disk in view.writable_disks if (obstacle := _obstacle(disk, view))]
    obstacles += _passthrough(view)
    if with_memory:
        obstacles += _unwritable_devices(view)
    else:
        obstacles += (
            [f"{why}, and {place.what} would not be kept without its memory" for place in view.beside_disks]
            if view.is_active else [f"{why}, and {problem}" for problem in view.unreachable]
        )
        if not view.writable_disks:
            obstacles.append(f"{why} and it has no writable disk, so there is nothing to keep")
    return obstacles


def _passthrough(view: View) -> list[str]:
    return [
        f"`{words}` in <qemu:commandline> is a writable disk that libvirt does not know"
        for words in writable_passthrough_drives(parse_xml(view.live_xml))
    ]


def _unwritable_devices(view: View) -> list[str]:
    """Name devices whose state this QEMU cannot write out; what else blocks it, it says itself (`check`)."""
    if view.qemu_version >= _NVME_CAN_BE_SAVED or view.qemu_version == (0, 0):
        return []
    version = ".".join(map(str, view.qemu_version))
    return [
        f"an NVMe controller ({name}) has a state that QEMU {version} cannot write out; QEMU 11 can"
        for name in nvme_controllers(parse_xml(view.live_xml))
    ]


_NVME_CAN_BE_SAVED = (11, 0)


def _obstacle(disk: Disk, view: View) -> str | None:
    """Say why a writable disk cannot go into an external snapshot, or None."""
    rows: tuple[tuple[bool, str], ...] = (
        (disk.source_type not in ("file", "block"),
         f"is of type {disk.source_type}, and only files and block devices can be kept"),
        (disk.path is None, "has no file"),
        (disk.device != "disk", f"is a {disk.device} device"),
        (disk.format not in (None, "raw", "qcow2"), f"has the format {disk.format}; raw and qcow2 can be kept"),
        (disk.is_shareable, "is shared with other domains"),
        (disk.is_transient, "is marked <transient/>"),
        (disk.is_encrypted_or_sliced, "is encrypted or a slice of a file"),
        (disk.has_block_job, "has an active block job"),
        (disk.path is not None and disk.path not in view.chains, f"has a chain that is not whole ({disk.path})"),
    )
    return next((f"disk {disk.target} {reason}" for applies, reason in rows if applies), None)


def folder_for(view: View, directory: str | None) -> str:
    """Choose the folder of a domain's files: in `directory`, else beside the first writable disk in a file."""
    if directory is None:
        beside = [disk.path for disk in view.writable_disks if disk.source_type == "file" and disk.path]
        if not beside:
            raise UnsupportedError(f"{view.name} has no writable disk in a file to put its snapshots beside",
                                   hint="choose a place with --dir")
        directory = str(PurePosixPath(beside[0]).parent)
    return places.folder_in(directory, view.uuid)


# Load


def plan_load(
    request: LoadRequest, view: View, *, facts: Facts, saved_xml: str | None, engine: Engine
) -> Plan:
    """Plan a load.

    `facts` are the snapshot's, `saved_xml` is the definition inside the memory image (None for an offline
    snapshot). On failure: NoSuchSnapshotError; UnsupportedError for a domain that must not be loaded into.
    """
    snapshot = view.catalog.find(request.name)
    obstacles = _passthrough(view)
    if obstacles:
        raise UnsupportedError(f"{view.name} cannot be loaded: " + "; ".join(obstacles))
    folder = places.folder_in(facts.folder, view.uuid)
    in_snapshot, for_next_boot = definitions_in_snapshot(snapshot.xml)
    overlays = tuple(
        (disk.target, places.overlay_path(folder, request.token, disk.target)) for disk in facts.disks
    )
    running_on = {disk.target: disk.path for disk in view.writable_disks if disk.path}
    ram = places.ram_path(folder, request.token) if request.shares_blocks and engine.name == "instant" else None
    previous = next((other for other in view.catalog.snapshots if other.is_current), None)
    revert = Revert(
        facts=facts, snapshot=_kept(snapshot), now_s=request.now_s, in_use=_in_use(view),
        is_active=view.is_active, saved_xml=saved_xml,
        persistent_xml=for_next_boot or in_snapshot, previous_persistent_xml=view.persistent_xml,
        overlays=overlays,
        # Where libvirt does not set owners itself (dynamic_ownership = 0), QEMU opens what it could open before.
        owner_like=tuple(running_on.items()),
        start=request.final != "as-saved",
        current=None if previous is None else previous.object_name,
        ram_path=ram,
    )
    steps: list[Step] = [] if view.is_persistent else [MakePersistent()]
    prepared = engine.prepare(revert)
    replace_state = _replace_state(request, facts, folder, revert, view)
    if prepared or replace_state:
        new_files = (*(path for _, path in overlays), *(() if ram is None else (ram,)))
        new_files += tuple(step.before for step in replace_state)
        steps += [MakeFolder(path=folder), RequireAbsent(paths=new_files), *prepared]
    switch = engine.switch(revert)
    stops = [step for step in switch if isinstance(step, StopGuest)]
    steps += [*stops, *replace_state, *(step for step in switch if step not in stops)]
    if previous is None or previous.object_name != snapshot.object_name:
        steps.append(MakeCurrent(
            object_name=snapshot.object_name, previous=None if previous is None else previous.object_name
        ))
    if _runs_after(request.final, facts):
        steps.append(ResumeGuest())
    gone = () if request.keep_newer else view.catalog.descendants(snapshot)
    kept = tuple(other for other in view.catalog.snapshots if other not in gone)
    # Nothing needs the overlays of the line that is left, unless a snapshot that stays stands on them.
    abandoned = (view.files_of_the_line() or frozenset()) | {step.before for step in replace_state}
    afterwards: list[Step] = [_forget(view, gone)] if gone else []
    afterwards += _remove(view.unneeded(
        gone=gone, kept=kept, line=frozenset(facts.files), abandoned=abandoned
    ))
    if not view.is_persistent and (facts.memory is not None or revert.start):
        afterwards.append(MakeTransient())
    return Plan(op="load", domain=view.name, name=request.name, steps=tuple(steps), afterwards=tuple(afterwards))


def _replace_state(
    request: LoadRequest, facts: Facts, folder: str, revert: Revert, view: View
) -> tuple[ReplaceState, ...]:
    """Plan to keep what is beside the disks, for the case that the load fails, and to put back what was there.

    With memory QEMU writes the variables into the file, and swtpm its state, once they have read the stream;
    then a load works too where we may not read them.
    """
    loaded = places_beside_disks(parse_xml(revert.persistent_xml), tpm_root=view.tpm_root)
    beside = tuple(place for place in loaded if place.path is not None)
    if not beside or (facts.beside is None and view.unreachable):
        return ()
    return (ReplaceState(
        archive=None if facts.beside is None else facts.beside.path,
        before=places.state_path(folder, request.token), places=beside,
    ),)


def _in_use(view: View) -> frozenset[str]:
    found = {disk.path for disk in (*view.disks, *view.persistent_disks) if disk.path}
    for chain in view.chains.values():
        found |= set(chain)
    for snapshot in view.catalog.snapshots:
        found |= view.files_of(snapshot) or set()
        found |= set(snapshot.overlay_paths)
    return frozenset(found)


def _runs_after(final: Final, facts: Facts) -> bool:
    return final == "running" or (final == "as-saved" and facts.state == "running")


# Remove


def plan_remove(name: str, view: View, *, scope: Scope = "one", keep_files: bool = False) -> Plan:
    """Plan the removal of a snapshot, of it and its descendants, or of these alone; all others stay loadable.

    Children of one that goes get its parent. Layers that a snapshot that stays, or the domain, still
    stands on are kept; `keep_files` keeps all.
    On failure: NoSuchSnapshotError; UnsupportedError for an internal snapshot whose contents were to go.
    """
    snapshot = view.catalog.find(name)
    descendants = () if scope == "one" else view.catalog.descendants(snapshot)
    gone = descendants if scope == "below" else (snapshot, *descendants)
    internal = [other.name for other in gone if other.is_internal]
    if internal and not keep_files:
        raise UnsupportedError(f"snapshot {internal[0]!r} is an internal one: its state is inside the disk",
                               hint="`virsh snapshot-delete` removes it")
    kept = tuple(other for other in view.catalog.snapshots if other not in gone)
    unneeded = view.unneeded(gone=gone, kept=kept, line=view.files_of_the_line())
    return Plan(
        op="rm", domain=view.name, name=name, steps=(_forget(view, gone),) if gone else (),
        afterwards=() if keep_files else _remove(unneeded),
    )


def _forget(view: View, gone: tuple[Snapshot, ...]) -> ForgetObjects:
    names = {snapshot.object_name for snapshot in gone}
    return ForgetObjects(
        objects=tuple(_kept(snapshot) for snapshot in gone),
        orphans=tuple(
            _kept(other) for other in view.catalog.snapshots
            if other.parent in names and other.object_name not in names
        ),
    )


def _kept(snapshot: Snapshot) -> KeptObject:
    return KeptObject(object_name=snapshot.object_name, xml=snapshot.xml, is_current=snapshot.is_current)


def _remove(unneeded: Unneeded) -> tuple[Step, ...]:
    if not unneeded.paths:
        return ()
    folders = tuple(sorted({str(PurePosixPath(path).parent) for path in unneeded.paths}))
    return (RemoveFiles(paths=unneeded.paths, needed=unneeded.needed, folders=folders),)


# Flatten


def plan_flatten(view: View, *, bases: Mapping[str, Layer]) -> Plan:
    """Plan to shorten the chains under the domain's disks; `bases` gives what each of them shall stand on.

    The disk takes in what the layers between hold, and stands on that file then. It is the
    only file that is written to, and nothing stands on it; so every snapshot stays as it is, byte by byte.
    On failure: UnsupportedError where a chain cannot be followed, or a disk is itself part of a snapshot.
    """
    steps: list[Step] = [] if view.is_persistent else [MakePersistent()]
    disks = view.writable_disks if view.is_active else tuple(
        disk for disk in view.persistent_disks if disk.is_writable
    )
    short: dict[str, str] = {}
    frozen = {path for snapshot in view.catalog.snapshots for path in view.files_of(snapshot) or ()}
    for disk in disks:
        chain = view.chains.get(disk.path or "", ())
        if disk.path is None or not chain:
            raise UnsupportedError(f"{view.name}: the chain of disk {disk.target} cannot be followed")
        if disk.path not in bases or bases[disk.path].path in chain[:2]:
            continue
        if disk.path in frozen or disk.has_block_job:
            raise UnsupportedError(f"{view.name}: disk {disk.target} is part of a snapshot, or in a block job")
        base = bases[disk.path]
        steps.append(PullLayers(target=disk.target, path=disk.path, base_path=base.path, base_format=base.format,
                                layers=chain.index(base.path) - 1, is_active=view.is_active))
        short[disk.target] = disk.path
    if not short:
        return Plan(op="flatten", domain=view.name, name="", steps=())
    # libvirt writes whole chains into the persistent definition: those layers are no longer there.
    steps.append(DefineDomain(xml=on_new_overlays(view.persistent_xml, short), previous_xml=view.persistent_xml))
    line: set[str] = set(view.ram_of_the_line())
    for disk in disks:
        chain = view.chains[disk.path or ""]
        if disk.target in short:
            chain = (chain[0], *chain[chain.index(bases[chain[0]].path):])
        line |= set(chain)
    unneeded = view.unneeded(gone=(), kept=view.catalog.snapshots, line=frozenset(line),
                             abandoned=view.files_of_the_line() or frozenset())
    afterwards = list(_remove(unneeded))
    if not view.is_persistent:
        afterwards.append(MakeTransient())
    return Plan(op="flatten", domain=view.name, name="", steps=tuple(steps), afterwards=tuple(afterwards))


def leftovers(view: View) -> tuple[Snapshot, ...]:
    """Give saves that were to replace another and were cut off before they had its name."""
    return tuple(snapshot for snapshot in view.catalog.snapshots if is_temporary(snapshot.object_name))
