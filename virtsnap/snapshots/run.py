"""A plan is carried out: step after step, timed, taken back when one fails.

`perform` does a step, `undo` takes back one that was begun, whether or not it
got through: an undo looks at what is there and is content with nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from pathlib import PurePosixPath

from lxml import etree

from virtsnap.domain_xml.endpoints import Endpoint
from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.domain_xml.quick_start import start_as_always
from virtsnap.errors import HypervisorError, OperationTimeoutError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host.chains import read_chain
from virtsnap.host.files import HypervisorFiles
from virtsnap.host.guest_ram import BegunCopy
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import (
    Facts,
    SavedMemory,
    SavedState,
    read_snapshot,
    renamed,
    to_text,
    with_facts,
)
from virtsnap.snapshots.definition import (
    as_metadata,
    our_metadata,
    with_metadata_in_snapshot,
    with_our_metadata,
    with_revert_disks,
)
from virtsnap.snapshots.digests import Digests, with_digests
from virtsnap.snapshots.journal import Journal, Keeper
from virtsnap.snapshots.lock import Claim, claim_element
from virtsnap.snapshots.places import is_native_overlay

# What libvirt's revert is told to remove; it is content when there is nothing.
_NO_FILE = "/nonexistent/virtsnap"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an operation did: the guest's state after it, seconds by phase, bytes by kind, what did not tidy up.

    `reopen` is what has to be opened again, because another QEMU has it now.
    """

    op: str
    domain: str
    name: str
    state: str
    phases_s: Mapping[str, float]
    bytes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reopen: tuple[Endpoint, ...] = ()

    @property
    def total_s(self) -> float:
        """Give the seconds of the whole operation."""
        return sum(self.phases_s.values())


@dataclass(kw_only=True)
class Context:
    """What steps act on, and what is counted while they do. `journal` None keeps none."""

    host: Host
    domain: Domain
    claim: Claim
    journal: Keeper | None = None
    deadline: float | None = None
    bytes: dict[str, int] = field(default_factory=dict)
    phases_s: dict[str, float] = field(default_factory=dict)
    # What is let go when the operation is over
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    begun_copy: BegunCopy | None = None

    def remaining_s(self) -> float | None:
        """Give the seconds left; None where there is no limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def define(self, xml: str) -> None:
        """Replace the persistent definition; claim and journal go on in the new one."""
        self.host.define(with_our_metadata(xml, self.elements()))

    def elements(self) -> tuple[etree._Element, ...]:
        """Give what every persistent definition carries while the operation runs."""
        return (claim_element(self.claim), *(() if self.journal is None else self.journal.elements()))

    def is_late(self) -> bool:
        """Say whether there is a limit, and no time left."""
        left = self.remaining_s()
        return left is not None and left <= 0


def run_plan(plan: st.Plan, context: Context, *, watch: Callable[[st.Step], None] | None = None) -> Outcome:
    """Carry out a plan.

    On success: an Outcome; what `afterwards` left undone is in its warnings.
    On failure: the steps begun are undone, last first, and the error is raised. Where the guest had
    been stopped the error says so: the domain is shut off then and boots the disks of before.
    `watch` is called before each step.
    """
    with context.held:
        return _run(plan, context, watch)


def _run(plan: st.Plan, context: Context, watch: Callable[[st.Step], None] | None) -> Outcome:
    begun: list[st.Step] = []
    stopped = False
    try:
        _open_journal(plan, context)
        for step in plan.steps:
            if not stopped and context.is_late():
                raise _out_of_time(plan, step)
            if watch is not None:
                watch(step)
            begun.append(step)
            if step.is_noted:
                _note(plan.reach(len(begun)), context)
            _timed(step, context)
            stopped = stopped or isinstance(step, st.StopGuest)
    except BaseException as exc:
        # A stop that libvirt answered with an error may have happened all the same.
        stopped = stopped or (any(isinstance(step, st.StopGuest) for step in begun) and _is_off(context.domain))
        problems = take_back(begun, context)
        if isinstance(exc, VirtsnapError) and (stopped or problems):
            raise _told(exc, context.domain.name, stopped=stopped, problems=problems) from exc
        raise
    # What comes after a load's point of no return is not cut short: it would leave the domain shut off.
    late = stopped and context.is_late()
    warnings = [_FINISHED_LATE] if late else []
    warnings += tidy_up(plan, context, watch=watch)
    with _counted("forget", context):
        context.held.close()
    return Outcome(
        op=plan.op, domain=plan.domain, name=plan.name, state=_state(context.domain),
        phases_s={phase: round(seconds, 4) for phase, seconds in context.phases_s.items()},
        bytes=dict(context.bytes), warnings=tuple(warnings),
    )


_FINISHED_LATE = "the time ran out after the point of no return (the old guest's stop), so the load was finished"


def _out_of_time(plan: st.Plan, step: st.Step) -> OperationTimeoutError:
    has_stop = any(isinstance(each, st.StopGuest) for each in plan.steps)
    side = "before the point of no return: " if has_stop else ""
    return OperationTimeoutError(
        f"{plan.domain}: the time ran out {side}before it came to: {step.describe()}",
        hint="the guest goes on as before; nothing has changed",
    )


def _state(domain: Domain) -> str:
    """Give the guest's state; what was done is done, whether or not it can be read."""
    try:
        return domain.power()
    except VirtsnapError:
        return "unknown"


def tidy_up(
    plan: st.Plan, context: Context, *, watch: Callable[[st.Step], None] | None = None, is_again: bool = False
) -> list[str]:
    """Do what `afterwards` says, which can be done again, and close the journal; say what failed.

    The journal stays where something did, for the next operation to try again; not where this `is_again`.
    """
    warnings: list[str] = []
    try:
        if plan.afterwards:
            _note(len(plan.steps) + 1, context)
        for step in plan.afterwards:
            if warnings and isinstance(step, st.RemoveFiles):
                continue  # what could not be forgotten may still need them
            try:
                if watch is not None:
                    watch(step)
                _timed(step, context)
            except VirtsnapError as exc:
                warnings.append(exc.message)
        if warnings and not is_again:
            warnings.append(f"the next operation tries again to tidy up, or `virtsnap recover {plan.domain}` does")
        else:
            close_journal(context)
    except VirtsnapError as exc:
        warnings.append(exc.message)
    return warnings


def _open_journal(plan: st.Plan, context: Context) -> None:
    if context.journal is not None:
        with _counted("journal", context):
            context.journal.open(Journal(plan=plan, begun=plan.reach(0)))


def _note(begun: int, context: Context) -> None:
    if context.journal is not None:
        with _counted("journal", context):
            context.journal.note(begun)


def close_journal(context: Context) -> None:
    """Take the journal out: the operation is over."""
    if context.journal is not None:
        with _counted("journal", context):
            context.journal.close()


def _timed(step: st.Step, context: Context) -> None:
    with _counted(step.phase, context):
        perform(step, context)


@contextlib.contextmanager
def _counted(phase: str, context: Context) -> Iterator[None]:
    """Add the seconds of the block to a phase, also where it fails."""
    started = time.monotonic()
    try:
        yield
    finally:
        context.phases_s[phase] = context.phases_s.get(phase, 0.0) + time.monotonic() - started


def take_back(begun: Sequence[st.Step], context: Context) -> list[str]:
    """Undo steps, last first, and close the journal where all went well; say what did not."""
    problems: list[str] = []
    if context.journal is not None:
        # Where it cannot be noted, a recovery may go forward instead; it looks at what is there.
        with contextlib.suppress(VirtsnapError):
            context.journal.note(len(begun), direction="back")
    for step in reversed(begun):
        if problems and isinstance(step, st.MakeOverlay):
            continue  # what could not be taken back may still stand on it; a file too many harms nobody
        try:
            undo(step, context)
        except VirtsnapError as exc:
            problems.append(f"{exc.message} (while taking back: {step.describe()})")
    if not problems:
        try:
            close_journal(context)
        except VirtsnapError as exc:
            problems.append(exc.message)
    return problems


def _is_off(domain: Domain) -> bool:
    try:
        return not domain.is_active()
    except VirtsnapError:
        return True


def _told(exc: VirtsnapError, name: str, *, stopped: bool, problems: list[str]) -> VirtsnapError:
    """Give the error with what the caller has to know about the state it leaves behind."""
    message = exc.message
    hint = exc.hint
    if stopped:
        message += f". {name} had been stopped by then and is shut off now"
        hint = "its snapshots can be loaded, and a start boots the disks of before the load"
    if problems:
        message += ". Not everything could be taken back: " + "; ".join(problems)
        hint = f"`virtsnap recover {name}` tries again" + (f"; {hint}" if hint else "")
    code = exc.libvirt_code if isinstance(exc, HypervisorError) else None
    return HypervisorError(message, hint=hint, libvirt_code=code)


@singledispatch
def perform(step: st.Step, context: Context) -> None:
    """Do a step. On failure: VirtsnapError, and `undo` can take back what was done of it."""
    raise NotImplementedError(type(step).__name__)


@singledispatch
def undo(step: st.Step, context: Context) -> None:
    """Take back a step that was begun; most have nothing to take back."""


def _object_names(domain: Domain) -> set[str]:
    return {read_snapshot(found.xml).object_name for found in domain.snapshot_objects()}


# Preparing


@perform.register
def _(step: st.MakeFolder, context: Context) -> None:
    context.host.files.make_folder(step.path)


@undo.register
def _(step: st.MakeFolder, context: Context) -> None:
    context.host.files.remove_folder_if_empty(step.path)


@perform.register
def _(step: st.MakePersistent, context: Context) -> None:
    # libvirt remembers the definition of the time when a transient domain was last persistent.
    context.define(context.domain.persistent_xml())


@undo.register
def _(step: st.MakePersistent, context: Context) -> None:
    _make_transient(context)


@perform.register
def _(step: st.MakeTransient, context: Context) -> None:
    _make_transient(context)


def _make_transient(context: Context) -> None:
    """Take the persistent definition away, with nothing of ours in what libvirt remembers of it."""
    domain = context.domain
    # A shut-off transient domain is none: with its definition would go its snapshots.
    if not domain.is_active() or not domain.is_persistent():
        return
    for text, prefix, uri in map(as_metadata, context.elements()):
        domain.set_metadata(text, prefix=prefix, uri=uri, live=True, persistent=False)
    for prefix, uri in our_metadata(domain.persistent_xml()):
        domain.set_metadata(None, prefix=prefix, uri=uri, live=False, persistent=True)
    domain.undefine()


@perform.register
def _(step: st.MakeOverlay, context: Context) -> None:
    files, owner, size = context.host.files, None, step.virtual_bytes
    if step.owner_like is not None:
        like = files.facts_of(step.owner_like)
        owner = None if like is None else (like.uid, like.gid)
    if size is None:
        size = read_chain(files, step.backing_path, step.backing_format)[0].virtual_bytes
    files.make_overlay(
        step.path, backing_path=step.backing_path, backing_format=step.backing_format, virtual_bytes=size,
        owner=owner,
    )


@undo.register
def _(step: st.MakeOverlay, context: Context) -> None:
    context.host.files.remove(step.path)


# Saving


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
    if step.object_name in _object_names(domain):
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
    if ram is not None:
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


@perform.register
def _(step: st.ForgetObjects, context: Context) -> None:
    # The youngest first, so that libvirt never has to find another parent for one that goes too.
    there = _object_names(context.domain)
    for kept in reversed(step.objects):
        if kept.object_name in there:
            context.domain.forget_snapshot(kept.object_name)


@undo.register
def _(step: st.ForgetObjects, context: Context) -> None:
    there = _object_names(context.domain)
    for kept in (*step.objects, *step.orphans):
        if kept in step.orphans or kept.object_name not in there:
            context.domain.redefine_snapshot(kept.xml, current=kept.is_current)


@perform.register
def _(step: st.RenameObject, context: Context) -> None:
    domain = context.domain
    if step.object_name in _object_names(domain):
        xml = renamed(domain.snapshot_xml(step.object_name), object_name=step.new_name)
        domain.redefine_snapshot(xml, current=True)
        domain.forget_snapshot(step.object_name)


@undo.register
def _(step: st.RenameObject, context: Context) -> None:
    domain = context.domain
    there = _object_names(domain)
    if step.new_name in there:
        if step.object_name not in there:
            xml = renamed(domain.snapshot_xml(step.new_name), object_name=step.object_name)
            domain.redefine_snapshot(xml, current=True)
        domain.forget_snapshot(step.new_name)


# Loading


@perform.register
def _(step: st.StopGuest, context: Context) -> None:
    context.domain.stop(is_local=context.host.is_local, held=context.held if step.frees_ram_later else None)


@perform.register
def _(step: st.ReplaceState, context: Context) -> None:
    if not context.host.files.is_taken(step.before):  # else one that died replaced what is there
        context.host.files.pack_state(step.places, step.before)
    if step.archive is not None:
        context.host.files.unpack_state(step.archive, step.places)


@undo.register
def _(step: st.ReplaceState, context: Context) -> None:
    if context.host.files.is_taken(step.before) and not context.domain.is_active():
        context.host.files.unpack_state(step.before, step.places)
    context.host.files.remove_state(step.before)


@perform.register
def _(step: st.RestoreMemory, context: Context) -> None:
    try:
        context.host.restore(step.memory_path, step.xml)
    except VirtsnapError:
        # Not every libvirt may know the capability, or start every CPU without it.
        domain = parse_xml(step.xml)
        if not start_as_always(domain) or not _is_off(context.domain):
            raise
        context.host.restore(step.memory_path, to_text(domain))


@undo.register
def _(step: st.RestoreMemory, context: Context) -> None:
    restored = _writable_paths(step.xml)
    # Somebody may have started the domain on the disks of before meanwhile: that guest stays.
    if runs_on(context.domain, restored):
        context.domain.destroy()
    _put_back_refused(restored, context)


def _put_back_refused(restored: set[str | None], context: Context) -> None:
    """Make the persistent definition the domain's again where libvirt refused a restore before QEMU was started.

    The refused definition is the domain's then, also for a start, and the persistent one waits for the end of a
    guest that never was (virDomainObjAssignDef; seen on 9.0 and 11.3). Only that end brings it back: so a guest
    is started on the disks of before, stopped at reset, and ended.
    """
    domain = context.domain
    if domain.is_active() or not domain.is_persistent() or _writable_paths(domain.live_xml()) != restored:
        return
    persistent = domain.persistent_xml()
    if _writable_paths(persistent) == restored:
        return
    context.define(persistent)
    domain.start(paused=True)
    try:
        context.define(persistent)
    finally:
        domain.destroy()


def _writable_paths(xml: str) -> set[str | None]:
    return {disk.path for disk in read_disks(parse_xml(xml)) if disk.is_writable}


def runs_on(domain: Domain, paths: Iterable[str | None]) -> bool:
    """Say whether there is a guest whose disks are these (or that has none where `paths` is empty)."""
    if not domain.is_active():
        return False
    return _writable_paths(domain.live_xml()) == set(paths)


@perform.register
def _(step: st.RevertNatively, context: Context) -> None:
    domain, kept = context.domain, step.snapshot
    # The revert replaces both definitions by those in the snapshot object: so claim and journal go in there.
    marked = with_metadata_in_snapshot(kept.xml, context.elements())
    # It also removes the files under the guest that it takes for abandoned, without looking who stands on them:
    # the current snapshot's <revertDisks>, else its overlays (qemuSnapshotRevertExternalFinish, 9.9 to 11.3).
    marked = with_revert_disks(marked, [target for target, _ in step.frozen], path=_NO_FILE)
    domain.redefine_snapshot(marked, current=True)
    _await_a_new_second(step, context.host.files)
    domain.revert(kept.object_name, paused=step.has_memory)
    if domain.is_active():
        for prefix, uri in our_metadata(domain.live_xml()):
            domain.set_metadata(None, prefix=prefix, uri=uri, live=True, persistent=False)
    overlays = native_overlays(step, domain.persistent_xml())
    for path in overlays:
        context.host.files.make_private(path)
    _remove_native(step, context.host.files, but=overlays)
    domain.redefine_snapshot(kept.xml, current=True)


@undo.register
def _(step: st.RevertNatively, context: Context) -> None:
    domain = context.domain
    if runs_on_native(domain, step):
        domain.destroy()
    if native_overlays(step, domain.persistent_xml()):
        context.define(step.previous_xml)
    domain.redefine_snapshot(step.snapshot.xml, current=step.snapshot.is_current)
    if not domain.is_active():
        _remove_native(step, context.host.files)


def _await_a_new_second(step: st.RevertNatively, files: HypervisorFiles) -> None:
    """Wait while there is an overlay of this second's name: libvirt would refuse to make another."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and any(
        is_native_overlay(path, frozen, since_s=int(time.time()))
        for _, frozen in step.frozen for path in files.files_in(_folder_of(frozen))
    ):
        time.sleep(0.05)


def _remove_native(step: st.RevertNatively, files: HypervisorFiles, *, but: tuple[str, ...] = ()) -> None:
    """Remove what this revert made and left: a try that failed, or was cut off."""
    for _, frozen in step.frozen:
        for path in files.files_in(_folder_of(frozen)):
            ours = path not in step.there and is_native_overlay(path, frozen, since_s=step.since_s)
            if ours and path not in but:
                files.remove(path)


def _folder_of(path: str) -> str:
    return str(PurePosixPath(path).parent)


def native_overlays(step: st.RevertNatively, xml: str) -> tuple[str, ...]:
    """Give the disks of a definition that are overlays of this revert."""
    now = {disk.target: disk.path for disk in read_disks(parse_xml(xml))}
    return tuple(
        path for target, frozen in step.frozen
        if (path := now.get(target)) is not None and path not in step.there
        and is_native_overlay(path, frozen, since_s=step.since_s)
    )


def runs_on_native(domain: Domain, step: st.RevertNatively) -> bool:
    """Say whether there is a guest that this revert started."""
    return domain.is_active() and len(native_overlays(step, domain.live_xml())) == len(step.frozen)


@perform.register
def _(step: st.DefineDomain, context: Context) -> None:
    context.define(step.xml)


@undo.register
def _(step: st.DefineDomain, context: Context) -> None:
    context.define(step.previous_xml)


@perform.register
def _(step: st.StartGuest, context: Context) -> None:
    context.domain.start(paused=True)


@undo.register
def _(step: st.StartGuest, context: Context) -> None:
    context.domain.destroy()


@perform.register
def _(step: st.MakeCurrent, context: Context) -> None:
    xml = context.domain.snapshot_xml(step.object_name)
    context.domain.redefine_snapshot(xml, current=True)


@undo.register
def _(step: st.MakeCurrent, context: Context) -> None:
    if step.previous is not None:
        context.domain.redefine_snapshot(context.domain.snapshot_xml(step.previous), current=True)


@perform.register
def _(step: st.ResumeGuest, context: Context) -> None:
    try:
        context.domain.resume()
    except VirtsnapError:
        if context.domain.power() != "running":  # else whoever was killed had done it
            raise


# Flattening


@perform.register
def _(step: st.PullLayers, context: Context) -> None:
    files = context.host.files
    chain = read_chain(files, step.path, "qcow2")
    if chain[1].path == step.base_path:
        return  # done before this process took over
    before = files.facts_of(step.path)
    if step.is_active and context.domain.is_active():
        context.domain.pull_layers(step.target, base=step.base_path, timeout_s=context.remaining_s())
    else:
        files.rebase(step.path, base=step.base_path, base_format=step.base_format)
    after = files.facts_of(step.path)
    if before is not None and after is not None:
        grown = max(0, after.held_bytes - before.held_bytes)
        context.bytes["pulled"] = context.bytes.get("pulled", 0) + grown


# Tidying up


@perform.register
def _(step: st.RemoveFiles, context: Context) -> None:
    freed, problems = 0, []
    files = context.host.files
    kept = files.same_files(step.paths, step.needed)
    for path in step.paths:
        if path in kept:
            continue
        try:
            found = files.facts_of(path)
            if files.remove(path) and found is not None:
                freed += found.held_bytes
        except VirtsnapError as exc:
            problems.append(exc.message)
    for folder in step.folders:
        files.remove_folder_if_empty(folder)
    context.bytes["freed"] = context.bytes.get("freed", 0) + freed
    if problems:
        raise HypervisorError("; ".join(problems))
