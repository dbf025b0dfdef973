"""Steps are done in order, taken back in reverse, and what is told afterwards is true."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from virtsnap.errors import BusyError, HypervisorError, OperationTimeoutError
from virtsnap.host import Domain, Host
from virtsnap.snapshots import acts as _acts  # noqa: F401 - it makes `run` know its steps
from virtsnap.snapshots.lock import Claim, this_process
from virtsnap.snapshots.run import Context, perform, run_plan, undo
from virtsnap.snapshots.steps import Plan, RemoveFiles, Step, StopGuest

done: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Noted(Step):
    """Writes down that it was done and undone."""

    phase = "prepare"
    word: str
    fails: Exception | None = None
    undo_fails: bool = False

    def describe(self) -> str:
        return self.word


@perform.register
def _(step: Noted, context: Context) -> None:
    done.append(step.word)
    if step.fails:
        raise step.fails


@undo.register
def _(step: Noted, context: Context) -> None:
    done.append(f"-{step.word}")
    if step.undo_fails:
        raise HypervisorError("stuck")


@pytest.fixture
def context() -> Context:
    done.clear()
    domain = MagicMock(spec=Domain)
    domain.name = "sut"
    domain.is_active.return_value = False
    domain.power.return_value = "running"
    return Context(
        host=cast(Host, MagicMock(spec=Host)), domain=cast(Domain, domain),
        claim=Claim(token="0000000a", op="load", owner=this_process()),
    )


def plan(*steps: Step, afterwards: tuple[Step, ...] = ()) -> Plan:
    return Plan(op="load", domain="sut", name="s", steps=steps, afterwards=afterwards)


def test_what_was_begun_is_taken_back_last_first_and_the_error_stays_what_it_was(context: Context) -> None:
    error = BusyError("no")
    with pytest.raises(BusyError) as caught:
        run_plan(plan(Noted(word="a"), Noted(word="b", fails=error), Noted(word="c")), context)
    assert caught.value is error
    assert done == ["a", "b", "-b", "-a"]


def test_after_the_stop_the_error_says_what_is_left(context: Context) -> None:
    with pytest.raises(HypervisorError, match=r"no\. sut had been stopped by then and is shut off now") as caught:
        run_plan(plan(Noted(word="a"), StopGuest(), Noted(word="b", fails=BusyError("no"))), context)
    assert "boots the disks of before" in str(caught.value.hint)
    assert isinstance(caught.value.__cause__, BusyError)


def test_what_cannot_be_taken_back_is_told(context: Context) -> None:
    steps = (Noted(word="a", undo_fails=True), Noted(word="b", fails=HypervisorError("no")))
    with pytest.raises(HypervisorError, match="stuck"):
        run_plan(plan(*steps), context)


def test_an_interrupt_takes_back_too(context: Context) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan(Noted(word="a"), Noted(word="b", fails=cast(Any, KeyboardInterrupt()))), context)
    assert done == ["a", "b", "-b", "-a"]


def test_time_that_ran_out_counts_before_the_stop_only(context: Context) -> None:
    context.deadline = time.monotonic() - 1
    with pytest.raises(OperationTimeoutError):
        run_plan(plan(Noted(word="a")), context)
    assert done == []

    def late(step: Step) -> None:
        context.deadline = None if not isinstance(step, StopGuest) else time.monotonic() - 1

    context.deadline = None
    run_plan(plan(StopGuest(), Noted(word="b")), context, watch=late)
    assert done == ["b"]


def test_what_fails_afterwards_is_a_warning_and_spares_the_files(context: Context) -> None:
    afterwards = (
        Noted(word="x", fails=HypervisorError("odd")),
        RemoveFiles(paths=("/nonexistent/f",), needed=frozenset(), folders=()),
        Noted(word="y"),
    )
    outcome = run_plan(plan(Noted(word="a"), afterwards=afterwards), context)
    assert outcome.warnings == (
        "odd", "the next operation tries again to tidy up, or `virtsnap recover sut` does",
    )
    assert done == ["a", "x", "y"]
    assert "freed" not in outcome.bytes
