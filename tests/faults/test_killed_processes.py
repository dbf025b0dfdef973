"""kill -9 before and after every step: `recover` finishes the operation or takes it back."""

from __future__ import annotations

import signal

import pytest

from tests.faults.guest_with_two import GuestWithTwo
from tests.host.test_save_and_load import put, tokens

# Verb and snapshot, the number of its steps (tidying up included), and the step from which on it is finished.
OPERATIONS = {
    "save c": (4, 3),
    "save b": (7, 3),
    "load a": (10, 4),
    "load b": (8, 4),
    "rm a": (2, 1),
    "rm b": (2, 1),
}
# What `make test` runs of it: around the step that makes the difference.
SAMPLE = {("save b", "after", 3), ("save b", "after", 5), ("load a", "before", 5), ("load a", "after", 5),
          ("save c", "before", 3), ("rm a", "before", 1)}

MATRIX = [
    pytest.param(words, when, step, id=f"{words.replace(' ', '-')}-{when}-{step}",
                 marks=() if (words, when, step) in SAMPLE else pytest.mark.whole)
    for words, (steps, _) in OPERATIONS.items() for step in range(1, steps + 1) for when in ("before", "after")
]


@pytest.mark.parametrize(("words", "when", "step"), MATRIX)
def test_a_killed_operation_is_finished_or_taken_back(two: GuestWithTwo, words: str, when: str, step: int) -> None:
    verb, name = words.split()
    killed = ("-m", "tests.faults.killed", when, str(step))
    code, said = two.command(verb, two.guest.name, name, program=killed)
    assert code == -signal.SIGKILL, said
    assert "urn:virtsnap:journal" in two.guest.domain.XMLDesc(2)
    code, said = two.command(verb, two.guest.name, name, "--dry-run")
    assert (code, "virtsnap recover" in said) == (9, True), said
    code, said = two.command("recover", two.guest.name)
    assert code == 0, said
    assert two.disagreements() == []
    _, decisive = OPERATIONS[words]
    finished = step > decisive or (step == decisive and when == "after") or (verb == "rm" and step == decisive)
    assert ("was finished" if finished else "was undone") in said
    expected = {"a": "a", "b": "b"}
    present = ("now", "now")
    if finished and verb == "save":
        expected[name] = "now"
    elif finished and verb == "rm":
        del expected[name]
    elif finished:
        present = (name, name)
        if name == "a":
            del expected["b"]
    assert tokens(two.guest) == present
    two.assert_all_load(expected)


def test_every_step_is_in_the_matrix(two: GuestWithTwo) -> None:
    for words, (steps, _) in OPERATIONS.items():
        two.reset()
        verb, name = words.split()
        beyond = ("-m", "tests.faults.killed", "before", str(steps + 1))
        code, said = two.command(verb, two.guest.name, name, program=beyond)
        assert code == 0, f"{words} has more than {steps} steps: {said}"


def test_a_recovery_that_is_killed_is_recovered(two: GuestWithTwo) -> None:
    name = two.guest.name
    killed = "-m", "tests.faults.killed"
    assert two.command("load", name, "a", program=(*killed, "after", "5"))[0] == -signal.SIGKILL
    for step in ("1", "2", "3"):
        code, said = two.command("recover", name, program=(*killed, "after", step))
        assert code == -signal.SIGKILL, said
    code, said = two.command("recover", name)
    assert code == 0, said
    assert tokens(two.guest) == ("a", "a")
    two.assert_all_load({"a": "a"})


def test_the_next_operation_recovers_first_and_says_so(two: GuestWithTwo) -> None:
    killed = ("-m", "tests.faults.killed", "after", "3")
    two.command("save", two.guest.name, "b", program=killed)
    put(two.guest, "later")
    code, said = two.command("save", two.guest.name, "c")
    assert code == 0, said
    assert "the interrupted save of 'b' was finished first" in said
    two.assert_all_load({"a": "a", "b": "now", "c": "later"})


def test_a_load_whose_guest_was_started_by_somebody_else_is_taken_back(two: GuestWithTwo) -> None:
    killed = ("-m", "tests.faults.killed", "after", "4")
    two.command("load", two.guest.name, "a", program=killed)
    assert not two.guest.domain.isActive()
    assert two.on_disk() == "now"
    number = two.guest.domain.ID()
    code, said = two.command("recover", two.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert two.guest.domain.ID() == number
    two.assert_all_load({"a": "a", "b": "b"})


def test_recover_without_an_interrupted_operation_says_so(two: GuestWithTwo) -> None:
    code, said = two.command("recover", two.guest.name)
    assert (code, "nothing was interrupted" in said) == (0, True)
    assert two.command("recover", "no-such-vm")[0] == 3
