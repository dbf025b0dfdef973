"""A plan is carried out: step after step, timed, taken back when one fails.

`perform` does a step, `undo` takes back one that was begun, whether or not it
got through: an undo looks at what is there and is content with nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import HypervisorError, OperationTimeoutError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host import files as host_files
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import Facts, SavedMemory, read_snapshot, renamed, with_facts
from virtsnap.snapshots.definition import with_metadata
from virtsnap.snapshots.lock import Claim, claim_element


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an operation did: the guest's state after it, seconds by phase, bytes by kind, what did not tidy up."""

    op: str
    domain: str
    name: str
    state: str
    phases_s: Mapping[str, float]
    bytes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """Give the seconds of the whole operation."""
        return sum(self.phases_s.values())


@dataclass(kw_only=True)
class Context:
    """What steps act on, and what is counted while they do."""

    host: Host
    domain: Domain
    claim: Claim
    deadline: float | None = None
    bytes: dict[str, int] = field(default_factory=dict)
    phases_s: dict[str, float] = field(default_factory=dict)

    def remaining_s(self) -> float | None:
        """Give the seconds left; None where there is no limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def require_time(self, doing: str) -> None:
        """Raise OperationTimeoutError when no time is left."""
        left = self.remaining_s()
        if left is not None and left <= 0:
            raise OperationTimeoutError(f"{self.domain.name}: the time ran out before: {doing}")


def run_plan(plan: st.Plan, context: Context, *, watch: Callable[[st.Step], None] | None = None) -> Outcome:
    """Carry out a plan.

    On success: an Outcome; what `afterwards` left undone is in its warnings.
    On failure: the steps begun are undone, last first, and the error is raised. Where the guest had
    been stopped the error says so: the domain is shut off then and boots the disks of before.
    `watch` is called before each step.
    """
    begun: list[st.Step] = []
    stopped = False
    try:
        for step in plan.steps:
            if not stopped:
                context.require_time(step.describe())
            if watch is not None:
                watch(step)
            begun.append(step)
            _timed(step, context)
            stopped = stopped or isinstance(step, st.StopGuest)
    except BaseException as exc:
        # A stop that libvirt answered with an error may have happened all the same.
        stopped = stopped or (any(isinstance(step, st.StopGuest) for step in begun) and _is_off(context.domain))
        problems = _take_back(begun, context)
        if isinstance(exc, VirtsnapError) and (stopped or problems):
            raise _told(exc, context.domain.name, stopped=stopped, problems=problems) from exc
        raise
    warnings: list[str] = []
    for step in plan.afterwards:
        if warnings and isinstance(step, st.RemoveFiles):
            continue  # what could not be forgotten may still need them
        try:
            if watch is not None:
                watch(step)
            _timed(step, context)
        except VirtsnapError as exc:
            warnings.append(exc.message)
    return Outcome(
        op=plan.op, domain=plan.domain, name=plan.name, state=context.domain.power(),
        phases_s={phase: round(seconds, 4) for phase, seconds in context.phases_s.items()},
        bytes=dict(context.bytes), warnings=tuple(warnings),
    )


def _timed(step: st.Step, context: Context) -> None:
    started = time.monotonic()
    try:
        perform(step, context)
    finally:
        seconds = time.monotonic() - started
        context.phases_s[step.phase] = context.phases_s.get(step.phase, 0.0) + seconds


def _take_back(begun: list[st.Step], context: Context) -> list[str]:
    problems: list[str] = []
    for step in reversed(begun):
        if problems and isinstance(step, st.MakeOverlay):
            continue  # what could not be taken back may still stand on it; a file too many harms nobody
        try:
            undo(step, context)
        except VirtsnapError as exc:
            problems.append(f"{exc.message} (while taking back: {step.describe()})")
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
    code = exc.libvirt_code if isinstance(exc, HypervisorError) else None
    return HypervisorError(message, hint=hint, libvirt_code=code)


@singledispatch
def perform(step: st.Step, context: Context) -> None:
    """Do a step. On failure: VirtsnapError, and `undo` can take back what was done of it."""
    raise NotImplementedError(type(step).__name__)


@singledispatch
def undo(step: st.Step, context: Context) -> None:
    """Take back a step that was begun; most have nothing to take back."""


# Preparing


@perform.register
def _(step: st.MakeFolder, context: Context) -> None:
    host_files.make_folder(step.path)


@undo.register
def _(step: st.MakeFolder, context: Context) -> None:
    host_files.remove_folder_if_empty(step.path)


@perform.register
def _(step: st.MakePersistent, context: Context) -> None:
    context.host.define(context.domain.persistent_xml())


@undo.register
def _(step: st.MakePersistent, context: Context) -> None:
    # A shut-off transient domain is none: with its definition would go its snapshots.
    if context.domain.is_active() and context.domain.is_persistent():
        context.domain.undefine()


@perform.register
def _(step: st.MakeTransient, context: Context) -> None:
    if context.domain.is_active():
        context.domain.undefine()


@perform.register
def _(step: st.MakeOverlay, context: Context) -> None:
    owner = None
    if step.owner_like is not None:
        like = host_files.file_facts(step.owner_like)
        owner = None if like is None else (like.uid, like.gid)
    host_files.make_overlay(
        step.path, backing_path=step.backing_path, backing_format=step.backing_format,
        virtual_bytes=step.virtual_bytes, owner=owner,
    )


@undo.register
def _(step: st.MakeOverlay, context: Context) -> None:
    host_files.remove_file(step.path)


# Saving


@perform.register
def _(step: st.TakeSnapshot, context: Context) -> None:
    for path in _new_files(step):
        # libvirt truncates an existing memory file without asking
        if host_files.file_facts(path) is not None:
            raise HypervisorError(f"{path}: exists already")
    with _aborting(context):
        context.domain.take_snapshot(step.xml, disk_only=step.memory_path is None, asked=step.asked)
    if not step.is_active:
        # 9.0 makes the overlays of a shut-off domain readable by all
        for _, path in step.overlays:
            host_files.make_private(path)


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
    taken = {read_snapshot(found.xml).object_name for found in domain.snapshot_objects()}
    if step.object_name in taken:
        domain.forget_snapshot(step.object_name)
    if step.is_active and domain.is_active():
        running_on = {disk.target: disk.path for disk in read_disks(parse_xml(domain.live_xml()))}
        for target, path in step.overlays:
            if running_on.get(target) == path:
                domain.commit_top(target)
    elif not step.is_active or domain.is_persistent():
        now = {disk.target: disk.path for disk in read_disks(parse_xml(domain.persistent_xml()))}
        if any(now.get(target) == path for target, path in step.overlays):
            if step.is_active:
                # QEMU died meanwhile: what it wrote since is in the overlays, which must then stay.
                return
            context.host.define(step.previous_xml)
    for path in _new_files(step):
        host_files.remove_file(path)


@perform.register
def _(step: st.RecordFacts, context: Context) -> None:
    facts = measured(step.facts)
    domain = context.domain
    domain.redefine_snapshot(with_facts(domain.snapshot_xml(step.object_name), facts), current=True)
    if facts.memory is not None:
        context.bytes["memory"] = facts.memory.size_bytes


def measured(facts: Facts) -> Facts:
    """Look up sizes and times of a snapshot's files, now that they are frozen."""
    memory = facts.memory
    if memory is not None:
        found = host_files.file_facts(memory.path)
        if found is None:
            raise HypervisorError(f"{memory.path}: libvirt said it wrote the memory, and there is no file")
        memory = SavedMemory(path=memory.path, size_bytes=found.size_bytes, mtime_ns=found.mtime_ns)
    disks = tuple(
        replace(disk, layers=host_files.read_chain(disk.frozen.path, disk.frozen.format)) for disk in facts.disks
    )
    return replace(facts, memory=memory, disks=disks)


@perform.register
def _(step: st.ForgetObjects, context: Context) -> None:
    # The youngest first, so that libvirt never has to find another parent for one that goes too.
    for kept in reversed(step.objects):
        context.domain.forget_snapshot(kept.object_name)


@undo.register
def _(step: st.ForgetObjects, context: Context) -> None:
    there = {read_snapshot(found.xml).object_name for found in context.domain.snapshot_objects()}
    for kept in (*step.objects, *step.orphans):
        if kept in step.orphans or kept.object_name not in there:
            context.domain.redefine_snapshot(kept.xml, current=kept.is_current)


@perform.register
def _(step: st.RenameObject, context: Context) -> None:
    domain = context.domain
    xml = renamed(domain.snapshot_xml(step.object_name), object_name=step.new_name)
    domain.redefine_snapshot(xml, current=True)
    domain.forget_snapshot(step.object_name)


@undo.register
def _(step: st.RenameObject, context: Context) -> None:
    domain = context.domain
    there = {read_snapshot(found.xml).object_name for found in domain.snapshot_objects()}
    if step.new_name in there:
        if step.object_name not in there:
            xml = renamed(domain.snapshot_xml(step.new_name), object_name=step.object_name)
            domain.redefine_snapshot(xml, current=True)
        domain.forget_snapshot(step.new_name)


# Loading


@perform.register
def _(step: st.StopGuest, context: Context) -> None:
    context.domain.destroy()


@perform.register
def _(step: st.RestoreMemory, context: Context) -> None:
    context.host.restore(step.memory_path, step.xml)


@undo.register
def _(step: st.RestoreMemory, context: Context) -> None:
    context.domain.destroy()


@perform.register
def _(step: st.DefineDomain, context: Context) -> None:
    context.host.define(with_metadata(step.xml, claim_element(context.claim)))


@undo.register
def _(step: st.DefineDomain, context: Context) -> None:
    context.host.define(step.previous_xml)


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
    context.domain.resume()


# Tidying up


@perform.register
def _(step: st.RemoveFiles, context: Context) -> None:
    freed, problems = 0, []
    kept = host_files.same_files(step.paths, step.needed)
    for path in step.paths:
        if path in kept:
            continue
        try:
            found = host_files.file_facts(path)
            if host_files.remove_file(path) and found is not None:
                freed += found.held_bytes
        except VirtsnapError as exc:
            problems.append(exc.message)
    for folder in step.folders:
        host_files.remove_folder_if_empty(folder)
    context.bytes["freed"] = context.bytes.get("freed", 0) + freed
    if problems:
        raise HypervisorError("; ".join(problems))
