"""A save or load by `instant` is killed around each step, and libvirt fails it at each call."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import libvirt
import pytest

import virtsnap
import virtsnap.host
from tests.faults.guest_with_two import GuestWithTwo
from tests.faults.killed import When
from tests.faults.test_errors_of_libvirt import Refusing
from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import put, tokens
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER
from virtsnap.errors import VirtsnapError
from virtsnap.snapshots.origin import ORIGIN_NS
from virtsnap.snapshots.tree import connect_tree

# Of a save: 8 is the first that is performed when the RAM has been copied. Of a save "again", of a guest that was
# loaded and has its RAM in private pages: 4 writes what was changed, 5 has libvirt do the disks, 7 makes the
# object; with "more" to be written 7 moves that into a file and 8 makes the object. Of one that does not know of
# what it was loaded ("whole"): 4 is libvirt's snapshot. Of a load: 4 is the stop.
STEPS = {"save": 11, "again": 9, "more": 10, "whole": 7, "load": 8}
DECISIVE: dict[str, tuple[When, int]] = {
    "save": ("before", 8), "again": ("after", 7), "more": ("after", 8), "whole": ("after", 4),
    "load": ("after", 4),
}
KILLED: dict[str, set[tuple[When, int]]] = {
    "save": {("before", 7), ("after", 7), ("after", 8)},
    "again": {("before", 5), ("after", 5), ("after", 6), ("after", 7)}, "more": {("after", 7)},
    "whole": {("after", 4)}, "load": {("before", 4), ("after", 5)},
}
AGAIN = {"again", "more", "whole"}
WHENS: tuple[When, ...] = ("before", "after")
# Up to there a case is like another: "more" like "again", "whole" like a save by another engine
ALIKE = {"more": 5, "whole": 2}
MATRIX = [
    pytest.param(case, when, step, id=f"{case}-{when}-{step}",
                 marks=() if (when, step) in KILLED[case] else pytest.mark.whole)
    for case, steps in STEPS.items() for step in range(ALIKE.get(case, 0) + 1, steps + 1) for when in WHENS
]
# The calls that a save makes at most, and those that the sample has. What comes before FIRST is any save's.
CALLS = {"save": 60, "again": 70}
FIRST = 17
REFUSED = {"save": {25, 34, 39}, "again": {32, 40, 44, 48}}


@pytest.fixture(scope="module")
def booted(module_farm: GuestFarm) -> Iterator[GuestWithTwo]:
    """A guest whose RAM is in a file, with a snapshot whose load brings it back into a shared one."""
    guest = module_farm.running_guest(ram_folder=DEFAULT_FOLDER)
    guest.console.wait_disk()
    with virtsnap.connect(module_farm.uri) as host:
        domain = host.domain(guest.name)
        put(guest, "base")
        domain.save_snapshot("base", engine="libvirt")
        yield GuestWithTwo(guest=guest, domain=domain)


@pytest.fixture
def one(booted: GuestWithTwo) -> Iterator[GuestWithTwo]:
    booted.domain.load_snapshot("base")
    put(booted.guest, "now")
    yield booted
    assert booted.disagreements() == []


def migrates_differently(one: GuestWithTwo) -> bool:
    with virtsnap.host.connect(one.guest.uri) as host:
        monitor = host.domain(one.guest.name).monitor
        found, parameters = monitor.capabilities(), monitor.migration_parameters()
    return found["x-ignore-shared"] or found["return-path"] or parameters["downtime-limit"] != 300


def prepare(one: GuestWithTwo, case: str) -> str:
    """Make what a case needs; give its verb."""
    if case in AGAIN:
        one.domain.save_snapshot("p", engine="instant")
        one.domain.load_snapshot("p")
        if case == "whole":
            one.guest.domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, ORIGIN_NS,
                                         libvirt.VIR_DOMAIN_AFFECT_LIVE)
        if case == "more":
            one.guest.console.check("dd if=/dev/urandom of=/ram/large bs=1M count=80 2>/dev/null")
        put(one.guest, "then")
        return "save"
    if case == "load":
        one.domain.save_snapshot("c", engine="instant")
        put(one.guest, "later")
    return case


@pytest.mark.parametrize(("case", "when", "step"), MATRIX)
def test_what_is_killed_is_finished_or_taken_back(one: GuestWithTwo, case: str, when: When, step: int) -> None:
    verb = prepare(one, case)
    before = tokens(one.guest)[0]
    code, said = one.command(verb, one.guest.name, "c", kill=(when, step))
    assert code == -signal.SIGKILL, said
    code, said = one.command("recover", one.guest.name)
    assert code == 0, said
    assert one.disagreements() == []
    assert not migrates_differently(one)
    decisive_when, decisive = DECISIVE[case]
    finished = step > decisive or (step == decisive and when in (decisive_when, "after"))
    assert ("was finished" if finished else "was undone") in said
    assert set(tokens(one.guest)) == {"now" if verb == "load" and finished else before}
    there = {"base": "base", **({"p": "now"} if case in AGAIN else {})}
    if case == "load":
        there["c"] = "now"
    elif finished:
        there["c"] = before
    one.assert_all_load(there)
    made_by = {each.name: each.facts.engine for each in one.domain.snapshots() if each.facts}
    assert made_by == {name: "libvirt" if name == "base" else "instant" for name in there}


def test_a_save_that_is_killed_while_qemu_sends_pages_is_taken_back(one: GuestWithTwo) -> None:
    prepare(one, "again")
    code, said = one.command("save", one.guest.name, "c", kill=("during", 4))
    assert code == -signal.SIGKILL, said
    code, said = one.command("recover", one.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert not migrates_differently(one)
    assert tokens(one.guest) == ("then", "then")
    code, said = one.command("save", one.guest.name, "c")
    assert code == 0, said
    one.assert_all_load({"base": "base", "p": "now", "c": "then"})


@pytest.mark.parametrize("case", STEPS)
def test_every_step_is_in_the_matrix(one: GuestWithTwo, case: str) -> None:
    verb = prepare(one, case)
    code, said = one.command(verb, one.guest.name, "c", kill=("before", STEPS[case] + 1))
    assert code == 0, said


@pytest.mark.parametrize(("case", "index"), [
    pytest.param(case, index, marks=() if index in REFUSED[case] else pytest.mark.whole)
    for case, calls in CALLS.items() for index in range(FIRST, calls)
])
def test_an_error_at_any_call_of_a_save(one: GuestWithTwo, case: str, index: int) -> None:
    prepare(one, case)
    before = tokens(one.guest)[0]
    with pytest.MonkeyPatch.context() as monkeypatch, connect_tree(one.guest.uri) as host:
        vm = host.tree(one.guest.name)
        refusing = Refusing(monkeypatch, index)
        with contextlib.suppress(VirtsnapError):
            vm.save_snapshot("c", engine="instant")
    code, said = one.command("recover", one.guest.name)
    assert code == 0, said
    assert one.disagreements() == [], refusing.refused
    assert not migrates_differently(one)
    assert set(tokens(one.guest)) == {before}, refusing.refused
    there = {"base": "base", **({"p": "now"} if case in AGAIN else {})}
    one.assert_all_load(there | ({"c": before} if "c" in one.names() else {}))


@pytest.mark.parametrize("case", CALLS)
def test_every_call_of_a_save_is_in_the_matrix(one: GuestWithTwo, case: str) -> None:
    prepare(one, case)
    with pytest.MonkeyPatch.context() as monkeypatch, connect_tree(one.guest.uri) as host:
        vm = host.tree(one.guest.name)
        refusing = Refusing(monkeypatch, -1)
        vm.save_snapshot("c", engine="instant")
    assert CALLS[case] - 10 < refusing.seen <= CALLS[case]
    assert one.names() == {"base", "c"} | ({"p"} if case in AGAIN else set())


def test_a_guest_that_went_on_before_its_ram_was_copied_gets_no_snapshot(one: GuestWithTwo) -> None:
    one.command("save", one.guest.name, "c", kill=("after", 6))
    one.guest.domain.resume()
    put(one.guest, "later")
    code, said = one.command("recover", one.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert tokens(one.guest) == ("later", "later")
    one.assert_all_load({"base": "base"})


def test_a_load_killed_before_the_stop_is_taken_back_though_the_guest_went_off_later(one: GuestWithTwo) -> None:
    prepare(one, "load")
    code, said = one.command("load", one.guest.name, "c", kill=("after", 3))
    assert code == -signal.SIGKILL, said
    one.guest.domain.destroy()
    code, said = one.command("recover", one.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert not one.guest.domain.isActive()
    assert one.names() == {"base", "c"}
    one.assert_all_load({"base": "base", "c": "now"})
