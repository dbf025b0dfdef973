"""What an interrupted operation left becomes a finished operation, or none.

An operation whose deed is done in the world (the snapshot is taken, the old
guest is gone, the object is forgotten) is finished; any other is taken back.
What cannot be finished is taken back too. Either way nothing of it is left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from virtsnap.domain_xml.live import parse_xml, read_disks, writable_paths
from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host import Domain
from virtsnap.host.files import HypervisorFiles
from virtsnap.host.memory_image import memory_image_problem
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.acts.loading import is_of_this_load
from virtsnap.snapshots.acts.native import runs_on_native
from virtsnap.snapshots.acts.objects import object_names
from virtsnap.snapshots.catalog import read_snapshot
from virtsnap.snapshots.journal import Journal, with_passwords_of
from virtsnap.snapshots.run import Context, perform, take_back, tidy_up

How = Literal["finished", "undone"]

_SWITCHES = (
    st.StopGuest, st.ReplaceState, st.RestoreMemory, st.RevertNatively, st.DefineDomain, st.StartGuest,
)
_STARTS = (st.StopGuest, st.ReplaceState, st.RestoreMemory, st.RevertNatively, st.StartGuest)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What was done about the interrupted `op` on the snapshot `name`."""

    op: str
    name: str
    how: How
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say it in a sentence."""
        return f"the interrupted {self.op} of {self.name!r} was {self.how}"


def recover(left: Journal, context: Context) -> Recovered:
    """Finish or take back an operation whose owner is gone.

    Needs: the domain is held (`Lock`), and `context.journal` keeps the journal on.
    On success: the journal is gone, unless tidying up failed for the first time. On failure: HypervisorError,
    and the journal stays for another try.
    """
    with context.held:
        return _recover(left, context)


def _recover(left: Journal, context: Context) -> Recovered:
    assert context.journal is not None
    journal = Journal(
        plan=with_passwords_of(left.plan, context.domain.persistent_xml()), begun=left.begun,
        direction=left.direction,
    )
    context.journal.open(journal)
    plan, why = journal.plan, ""
    started = time.monotonic()
    try:
        remaining = steps_to_finish(journal, context.domain, context.host.files)
        if remaining is not None:
            for step in remaining:
                if step.is_noted and step in plan.steps:
                    context.journal.note(max(journal.begun, plan.reach(plan.steps.index(step) + 1)))
                perform(step, context)
            warnings = tidy_up(plan, context, is_again=left.is_tidying)
            return Recovered(op=plan.op, name=plan.name, how="finished", warnings=tuple(warnings))
    except VirtsnapError as exc:
        why = f"it could not be finished ({exc.message}); "
    finally:
        context.phases_s["recover"] = time.monotonic() - started
    problems = take_back(journal.begun_steps, context)
    if problems:
        raise HypervisorError(
            f"{context.domain.name}: the interrupted {plan.op} of {plan.name!r} could not be taken back: "
            + why + "; ".join(problems), hint=f"`virtsnap recover {context.domain.name}` tries again",
        )
    return Recovered(op=plan.op, name=plan.name, how="undone", warnings=(why.removesuffix("; "),) if why else ())


def steps_to_finish(journal: Journal, domain: Domain, files: HypervisorFiles) -> tuple[st.Step, ...] | None:
    """Give the steps that are left of an operation, those that can be done again included.

    None where it has to be taken back.
    """
    steps = journal.plan.steps
    if journal.direction == "back":
        return None
    if journal.is_tidying:
        return ()
    for at, step in enumerate(journal.begun_steps):
        if isinstance(step, st.TakeSnapshot):
            if _is_without_ram(journal, files) or not _is_complete(step, domain, files):
                return None
            # What comes before the last that was noted is done for sure.
            noted = max((n for n, each in enumerate(journal.begun_steps) if each.is_noted), default=0)
            return steps[max(at + 1, noted):]
        if isinstance(step, _SWITCHES):
            return _rest_of_load(steps[at:], journal, domain, files)
        if isinstance(step, (st.ForgetObjects, st.PullLayers)):
            return steps[at:]
    return None


def _is_without_ram(journal: Journal, files: HypervisorFiles) -> bool:
    """Say whether the snapshot's RAM was to be copied and may not have been, while the guest was paused for it.

    Or was, and is gone: taking the save back got as far as that, and no further.
    """
    copied = next((step for step in journal.plan.steps if isinstance(step, st.CopyRam)), None)
    if copied is None:
        return False
    is_past = any(isinstance(step, st.TakeRamIn) for step in journal.begun_steps)
    return not is_past or not files.exists(copied.path)


def _is_complete(step: st.TakeSnapshot, domain: Domain, files: HypervisorFiles) -> bool:
    """Say whether libvirt took the snapshot: an object of it, its memory, and the disks on the overlays."""
    objects = {found.object_name for each in domain.snapshot_objects() if (found := read_snapshot(each.xml))}
    if step.object_name not in objects:
        # A later step renames it; by then it was complete.
        return any(path in each.xml for _, path in step.overlays for each in domain.snapshot_objects())
    if step.memory_path is not None:
        try:
            if memory_image_problem(files, step.memory_path) is not None:
                return False
        except VirtsnapError:
            return False
    xml = domain.live_xml() if step.is_active and domain.is_active() else domain.persistent_xml()
    now = {disk.target: disk.path for disk in read_disks(parse_xml(xml))}
    return all(now.get(target) == path for target, path in step.overlays)


def _rest_of_load(
    rest: tuple[st.Step, ...], journal: Journal, domain: Domain, files: HypervisorFiles
) -> tuple[st.Step, ...] | None:
    if any(isinstance(step, st.ResumeGuest) for step in journal.begun_steps):
        return _rest_of_a_load_that_ran(rest, domain)
    overlays = {step.path for step in journal.plan.steps if isinstance(step, st.MakeOverlay)}
    native = next((step for step in rest if isinstance(step, st.RevertNatively)), None)
    is_active = domain.is_active()
    is_ours = is_of_this_load(domain, overlays) if native is None else runs_on_native(domain, native)
    if is_active and not is_ours:
        return None  # the old guest was not stopped, or somebody started it again
    if is_ours and domain.power() == "running":
        # Somebody let it run: from here on its overlays belong to it, and nothing starts it anew.
        return tuple(step for step in _but_done(rest, domain) if not isinstance(step, (*_STARTS, st.ResumeGuest)))
    made = {*overlays, *(step.path for step in journal.plan.steps if isinstance(step, st.CloneRam))}
    if not is_active and not all(files.exists(path) for path in made):
        return None  # there was no guest to stop, and it was killed before its files were made
    # Redone from the stop: nothing ran on the overlays. libvirt's own revert makes others each time.
    again = (st.StopGuest(),) if is_ours and not isinstance(rest[0], st.StopGuest) else ()
    return (*again, *rest)


def _rest_of_a_load_that_ran(rest: tuple[st.Step, ...], domain: Domain) -> tuple[st.Step, ...]:
    """Give what is left where the new guest may have run: its line is the domain's, whatever became of it since.

    The definition was written: the note that the guest may run is in it, or came after it. Somebody may have
    switched the guest off, given it other disks, or removed the snapshot.
    """
    there, power = object_names(domain), domain.power()
    return tuple(
        step for step in rest
        if (isinstance(step, st.MakeCurrent) and step.object_name in there)
        or (isinstance(step, st.ResumeGuest) and power == "paused")
    )


def _but_done(rest: tuple[st.Step, ...], domain: Domain) -> tuple[st.Step, ...]:
    """Leave out a definition that is there, as its disks tell: somebody may have changed it in something else."""
    there = writable_paths(domain.persistent_xml())
    return tuple(
        step for step in rest
        if not (isinstance(step, st.DefineDomain) and there and writable_paths(step.xml) == there)
    )
