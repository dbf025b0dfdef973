"""A plan is carried out: step after step, timed, taken back when one fails.

What each kind of step does is in `virtsnap.snapshots.acts`. `perform` does a
step, `undo` takes back one that was begun, whether or not it got through: an
undo looks at what is there and is content with nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch

from lxml import etree

from virtsnap.domain_xml.endpoints import Endpoint
from virtsnap.errors import HypervisorError, OperationTimeoutError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host.guest_ram import BegunCopy
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.definition import with_our_metadata
from virtsnap.snapshots.journal import Journal, Keeper
from virtsnap.snapshots.lock import Claim, claim_element


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
    # This process has let the guest of a load run, or was about to: until it ends, that one is nobody else's
    let_run: bool = False

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
            elif isinstance(step, st.DefineDomain) and step.notes_ahead and context.journal is not None:
                context.journal.expect(plan.reach_ahead(len(begun)))
            _timed(step, context)
            stopped = stopped or isinstance(step, st.StopGuest)
    except BaseException as exc:
        # A stop that libvirt answered with an error may have happened all the same.
        stopped = stopped or (any(isinstance(step, st.StopGuest) for step in begun) and is_off(context.domain))
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


def is_off(domain: Domain) -> bool:
    """Say whether no guest runs; a domain that is gone or out of reach has none."""
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
