"""The steps of a save: what is beside the disks kept, libvirt's snapshot taken, its facts recorded."""

from __future__ import annotations

import threading
from dataclasses import replace

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import HypervisorError, OperationTimeoutError, VirtsnapError
from virtsnap.host import Domain
from virtsnap.host.chains import read_chain
from virtsnap.host.files import HypervisorFiles
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.acts.objects import object_names
from virtsnap.snapshots.catalog import Facts, SavedMemory, SavedState, with_facts
from virtsnap.snapshots.digests import Digests, with_digests
from virtsnap.snapshots.run import Context, perform, undo


@perform.register
def _(step: st.RequireAbsent, context: Context) -> None:
    for path in step.paths:
        # libvirt truncates an existing memory file without asking
        if context.host.files.is_taken(path):
            raise HypervisorError(f"{path}: exists already")


@perform.register
def _(step: st.KeepState, context: Context) -> None:
    context.host.files.pack_state(step.places, step.archive)


@undo.register
def _(step: st.KeepState, context: Context) -> None:
    context.host.files.remove_state(step.archive)


@perform.register
def _(step: st.TakeSnapshot, context: Context) -> None:
    with _aborting(context):
        context.domain.take_snapshot(step.xml, disk_only=step.memory_path is None, asked=step.asked)
    if step.is_paused:
        require_paused(context.domain)


def require_paused(domain: Domain) -> None:
    """Raise HypervisorError where a guest runs whose state was written: what is saved after it does not fit it.

    One that had crashed is still that.
    """
    power = domain.power()
    if power not in ("paused", "crashed"):
        raise HypervisorError(f"{domain.name}: was paused to be saved, and is {power} now",
                              hint="nothing has changed; save again")


def _new_files(step: st.TakeSnapshot) -> tuple[str, ...]:
    overlays = tuple(path for _, path in step.overlays)
    return overlays if step.memory_path is None else (step.memory_path, *overlays)


class _aborting:
    """Cancel libvirt's job when the time runs out, and say so instead of what libvirt then says."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._over = threading.Event()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self._context.deadline is not None:
            self._thread = threading.Thread(target=self._wait, daemon=True)
            self._thread.start()

    def _wait(self) -> None:
        left = self._context.remaining_s() or 0.0
        if not self._done.wait(max(left, 0.0)):
            self._over.set()
            # The job may not have begun yet: ask again until the call is back.
            while not self._done.is_set():
                self._context.domain.abort_job()
                self._done.wait(0.05)

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if isinstance(exc, VirtsnapError) and self._over.is_set():
            raise OperationTimeoutError(f"{self._context.domain.name}: the save was cancelled, its time ran out",
                                        hint="the guest goes on as before") from exc


@undo.register
def _(step: st.TakeSnapshot, context: Context) -> None:
    domain = context.domain
    if step.object_name in object_names(domain):
        domain.forget_snapshot(step.object_name)
    staying: set[str] = set()
    if step.is_active and domain.is_active():
        running_on = {disk.target: disk.path for disk in read_disks(parse_xml(domain.live_xml()))}
        staying = {
            path for target, path in step.overlays
            if running_on.get(target) == path and not _merged(domain, target)
        }
    elif not step.is_active or domain.is_persistent():
        now = {disk.target: disk.path for disk in read_disks(parse_xml(domain.persistent_xml()))}
        if any(now.get(target) == path for target, path in step.overlays):
            if step.is_active:
                # QEMU died meanwhile: what it wrote since is in the overlays.
                staying = {path for _, path in step.overlays}
            else:
                context.define(step.previous_xml)
    for path in _new_files(step):
        if path not in staying:
            context.host.files.remove(path)


def _merged(domain: Domain, target: str) -> bool:
    """Merge the top layer of a disk into the file under it; False where a paused guest's QEMU does not.

    One that wrote its memory out and did not go on has its block nodes inactive ("Block node is read-only"), and
    until 10.0 only running the guest changes that. The layer, on which it shows what it showed, then stays.
    """
    try:
        domain.commit_top(target)
    except HypervisorError:
        if domain.power() != "paused":
            raise
        return False
    return True


@perform.register
def _(step: st.SyncFiles, context: Context) -> None:
    context.host.files.sync(step.paths)


@perform.register
def _(step: st.RecordFacts, context: Context) -> None:
    facts = measured(context.host.files, step.facts)
    if step.with_digests:
        facts = with_digests(facts, Digests(context.host.files))
    domain = context.domain
    domain.redefine_snapshot(with_facts(domain.snapshot_xml(step.object_name), facts), current=True)
    if facts.memory is not None:
        context.bytes["memory"] = facts.memory.size_bytes + context.bytes.get("memory", 0)


def measured(files: HypervisorFiles, facts: Facts) -> Facts:
    """Look up sizes and times of a snapshot's files, now that they are frozen."""
    memory, ram, beside = facts.memory, facts.ram, facts.beside
    if memory is not None:
        size, mtime = _size_and_time(files, memory.path)
        memory = SavedMemory(path=memory.path, size_bytes=size, mtime_ns=mtime)
    if ram is not None and facts.has_own_ram:  # else it is frozen since an older save
        size, mtime = _size_and_time(files, ram.path)
        ram = SavedMemory(path=ram.path, size_bytes=size, mtime_ns=mtime)
    if beside is not None:
        size, mtime = _size_and_time(files, beside.path)
        beside = SavedState(path=beside.path, size_bytes=size, mtime_ns=mtime)
    disks = tuple(
        replace(disk, layers=read_chain(files, disk.frozen.path, disk.frozen.format)) for disk in facts.disks
    )
    return replace(facts, memory=memory, ram=ram, disks=disks, beside=beside)


def _size_and_time(files: HypervisorFiles, path: str) -> tuple[int, int]:
    found = files.facts_of(path)
    if found is None:
        raise HypervisorError(f"{path}: it was written, and there is no file")
    return found.size_bytes, found.mtime_ns
