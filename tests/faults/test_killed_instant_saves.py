"""kill -9 around every step of a save by `instant`: the guest runs on, the snapshot is whole or gone."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import virtsnap
import virtsnap.host
from tests.faults.guest_with_two import GuestWithTwo
from tests.faults.killed import When
from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import put, tokens
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER

# 7 is the first that is performed when the RAM has been copied.
STEPS, DECISIVE = 10, 7
SAMPLE = {("before", 6), ("after", 6), ("after", 7)}
MATRIX = [
    pytest.param(when, step, id=f"{when}-{step}", marks=() if (when, step) in SAMPLE else pytest.mark.whole)
    for step in range(1, STEPS + 1) for when in ("before", "after")
]


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


def leaves_ram_out(one: GuestWithTwo) -> bool:
    with virtsnap.host.connect(one.guest.uri) as host:
        found = host.domain(one.guest.name).migration_capabilities()
    return found["x-ignore-shared"]


@pytest.mark.parametrize(("when", "step"), MATRIX)
def test_a_killed_save_is_finished_or_taken_back(one: GuestWithTwo, when: When, step: int) -> None:
    code, said = one.command("save", one.guest.name, "c", kill=(when, step))
    assert code == -signal.SIGKILL, said
    code, said = one.command("recover", one.guest.name)
    assert code == 0, said
    assert one.disagreements() == []
    assert not leaves_ram_out(one)
    finished = step >= DECISIVE
    assert ("was finished" if finished else "was undone") in said
    assert tokens(one.guest) == ("now", "now")
    one.assert_all_load({"base": "base", **({"c": "now"} if finished else {})})
    assert [each.facts.engine for each in one.domain.snapshots() if each.facts and each.name == "c"] == (
        ["instant"] if finished else []
    )


def test_every_step_is_in_the_matrix(one: GuestWithTwo) -> None:
    code, said = one.command("save", one.guest.name, "c", kill=("before", STEPS + 1))
    assert code == 0, said


def test_a_guest_that_went_on_before_its_ram_was_copied_gets_no_snapshot(one: GuestWithTwo) -> None:
    one.command("save", one.guest.name, "c", kill=("after", 5))
    one.guest.domain.resume()
    put(one.guest, "later")
    code, said = one.command("recover", one.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert tokens(one.guest) == ("later", "later")
    one.assert_all_load({"base": "base"})
