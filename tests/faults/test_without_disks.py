"""A guest that has no disk: nothing but its state tells the one before a load from the one after it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import libvirt
import pytest

import virtsnap
from tests.faults.forked import run_verb
from tests.faults.killed import When
from tests.host.engines import require_native_engine
from tests.host.guests import GuestFarm, RunningGuest
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER
from virtsnap.host import Domain
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.engines import EngineName

Vm = tuple[RunningGuest, SnapshotDomain]
ENGINES: tuple[EngineName, ...] = ("restore", "native", "instant")
# Of a load: 1 is the stop, and what comes then starts the guest
STARTED = 2
RESUMED = {"restore": 4, "native": 3, "instant": 4}


@pytest.fixture(scope="module", params=ENGINES)
def booted(module_farm: GuestFarm, request: pytest.FixtureRequest) -> Iterator[tuple[Vm, EngineName]]:
    """A guest that was loaded once, and what its loads are by."""
    engine: EngineName = request.param
    if engine == "native":
        require_native_engine(module_farm.uri)
    guest = module_farm.running_guest(has_disk=False, ram_folder=DEFAULT_FOLDER if engine == "instant" else None)
    with virtsnap.connect(module_farm.uri) as host:
        yield (guest, host.domain(guest.name)), engine


@pytest.fixture
def vm(booted: tuple[Vm, EngineName]) -> Iterator[Vm]:
    """The guest with the snapshot `a`, of a guest that had been loaded itself."""
    (guest, domain), _ = booted
    if not guest.domain.isActive():
        start(guest)
    for snapshot in domain.snapshots():
        domain.remove_snapshot(snapshot.name)
    save(booted, "first")
    domain.load_snapshot("first")
    put(guest, "a")
    save(booted, "a")
    domain.remove_snapshot("first")
    put(guest, "now")
    yield guest, domain
    for snapshot in domain.snapshots():
        domain.remove_snapshot(snapshot.name)


def save(booted: tuple[Vm, EngineName], name: str) -> None:
    (guest, domain), engine = booted
    domain.save_snapshot(name, directory=str(guest.folder), engine="instant" if engine == "instant" else "libvirt")


def start(guest: RunningGuest) -> None:
    guest.domain.create()
    guest.console.wait_ready()


def put(guest: RunningGuest, token: str) -> None:
    guest.console.check(f"echo {token} > /run/token")


def token(guest: RunningGuest) -> str:
    return guest.console.check("cat /run/token")


def load(booted: tuple[Vm, EngineName], *, kill: tuple[When, int]) -> None:
    (guest, _), engine = booted
    code, said = run_verb(("-c", guest.uri, "load", guest.name, "a", "--engine", engine), kill=kill)
    assert code == -signal.SIGKILL, said


def recover(guest: RunningGuest) -> str:
    code, said = run_verb(("-c", guest.uri, "recover", guest.name))
    assert code == 0, said
    return said


def collect_ram_of_first(guest: RunningGuest) -> None:
    """Remove the RAM file that the guest had which was stopped: a load that is taken back leaves it."""
    with virtsnap.connect(guest.uri) as host:
        host.collect_garbage(directories=[str(guest.folder)])


def test_a_guest_that_was_loaded_is_saved_and_loaded_again(vm: Vm, booted: tuple[Vm, EngineName]) -> None:
    guest, domain = vm
    domain.load_snapshot("a")
    assert token(guest) == "a"
    put(guest, "b")
    save(booted, "b")
    for name in ("a", "b", "a"):
        domain.load_snapshot(name, keep_newer=True)
        assert token(guest) == name


def test_a_load_killed_before_the_stop_is_taken_back(vm: Vm, booted: tuple[Vm, EngineName]) -> None:
    guest, domain = vm
    put(guest, "later")
    save(booted, "later")
    number = guest.domain.ID()
    load(booted, kill=("before", 1))
    assert "was undone" in recover(guest)
    assert (guest.domain.ID(), token(guest)) == (number, "later")
    assert {each.name for each in domain.snapshots()} == {"a", "later"}
    domain.load_snapshot("a", keep_newer=True)
    assert token(guest) == "a"


def test_a_load_killed_after_the_stop_leaves_a_guest_that_somebody_started(
    vm: Vm, booted: tuple[Vm, EngineName]
) -> None:
    guest, domain = vm
    load(booted, kill=("after", 1))
    start(guest)
    put(guest, "theirs")
    number = guest.domain.ID()
    assert "was undone" in recover(guest)
    assert (guest.domain.ID(), token(guest)) == (number, "theirs")
    domain.load_snapshot("a")
    assert token(guest) == "a"
    collect_ram_of_first(guest)


def test_a_load_killed_once_its_guest_was_there_is_finished(vm: Vm, booted: tuple[Vm, EngineName]) -> None:
    guest, domain = vm
    load(booted, kill=("after", STARTED))
    assert "was finished" in recover(guest)
    assert token(guest) == "a"
    domain.load_snapshot("a")
    assert token(guest) == "a"


def test_a_load_asked_to_end_while_it_lets_its_guest_run_ends_that_guest(
    vm: Vm, booted: tuple[Vm, EngineName], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, domain = vm

    def resume_and_be_asked(self: Domain) -> None:
        resume(self)
        raise KeyboardInterrupt

    resume = Domain.resume
    monkeypatch.setattr(Domain, "resume", resume_and_be_asked)
    before = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    with pytest.raises(KeyboardInterrupt):
        domain.load_snapshot("a", engine=booted[1])
    monkeypatch.undo()
    assert not guest.domain.isActive()
    assert guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
    domain.load_snapshot("a")
    assert token(guest) == "a"
    collect_ram_of_first(guest)


def test_a_load_killed_once_its_guest_runs_leaves_it_running(vm: Vm, booted: tuple[Vm, EngineName]) -> None:
    guest, _ = vm
    load(booted, kill=("after", RESUMED[booted[1]]))
    assert token(guest) == "a"
    put(guest, "on")
    number = guest.domain.ID()
    assert "was finished" in recover(guest)
    assert (guest.domain.ID(), token(guest)) == (number, "on")
