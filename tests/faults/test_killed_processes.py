"""kill -9 before and after every step: `recover` finishes the operation or takes it back."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field

import libvirt
import pytest

import virtsnap
from tests.faults.forked import run_verb
from tests.faults.guest_with_two import GuestWithTwo, token_on
from tests.faults.killed import When
from tests.host.engines import require_native_engine
from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import disk_files, put, tokens
from virtsnap.errors import NoSuchDomainError


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A verb on a guest that runs on from `b`, after `a`.

    `steps` are those that are performed, tidying up included; once the step `decisive` is done (where it is
    `forward`: begun) the operation is finished by a recovery. `left` are the snapshots then, with their
    tokens, `present` is the guest's; `booted` cannot be loaded without a boot, which other tests do. `since` is
    the first libvirt that can do it.
    """

    verb: str
    words: tuple[str, ...] = ()
    steps: int
    decisive: int
    forward: bool = False
    left: dict[str, str]
    present: str = "now"
    booted: str | None = None
    since: tuple[int, int] = (9, 0)
    sample: frozenset[tuple[When, int]] = field(default=frozenset())

    def require(self, two: GuestWithTwo) -> None:
        """Skip the test where libvirt cannot do this."""
        if self.since > (9, 0):
            require_native_engine(two.guest.uri)

    @property
    def text(self) -> str:
        return "-".join((self.verb, *self.words))

    def is_finished(self, when: When, step: int) -> bool:
        return step > self.decisive or (step == self.decisive and (self.forward or when == "after"))


_TWO = {"a": "a", "b": "b"}
OPERATIONS = (
    Operation(verb="save", words=("c",), steps=4, decisive=3, left={**_TWO, "c": "now"},
              sample=frozenset({("before", 3)})),
    Operation(verb="save", words=("b",), steps=7, decisive=3, left={"a": "a", "b": "now"},
              sample=frozenset({("after", 3), ("after", 5)})),
    Operation(verb="load", words=("a",), steps=10, decisive=4, left={"a": "a"}, present="a",
              sample=frozenset({("before", 5), ("after", 5)})),
    Operation(verb="load", words=("b",), steps=8, decisive=4, left=_TWO, present="b"),
    Operation(verb="load", words=("a", "--engine", "native"), steps=6, decisive=1, left={"a": "a"}, present="a",
              since=(9, 9), sample=frozenset({("after", 2)})),
    Operation(verb="rm", words=("a",), steps=2, decisive=1, forward=True, left={"b": "b"},
              sample=frozenset({("before", 1)})),
    Operation(verb="rm", words=("b",), steps=2, decisive=1, forward=True, left={"a": "a"}),
    Operation(verb="flatten", steps=2, decisive=1, forward=True, left=_TWO, sample=frozenset({("after", 1)})),
    # virsh's verbs
    Operation(verb="snapshot-create-as", words=("c",), steps=4, decisive=3, left={**_TWO, "c": "now"}),
    Operation(verb="snapshot-create-as", words=("c", "--disk-only"), steps=4, decisive=3,
              left={**_TWO, "c": "now"}, booted="c"),
    Operation(verb="snapshot-revert", words=("a",), steps=9, decisive=4, left=_TWO, present="a",
              sample=frozenset({("after", 4)})),
    Operation(verb="snapshot-delete", words=("a",), steps=2, decisive=1, forward=True, left={"b": "b"}),
    Operation(verb="snapshot-delete", words=("a", "--children"), steps=2, decisive=1, forward=True, left={}),
    Operation(verb="snapshot-delete", words=("a", "--children-only"), steps=2, decisive=1, forward=True,
              left={"a": "a"}, sample=frozenset({("after", 1)})),
)
_WHENS: tuple[When, ...] = ("before", "after")
MATRIX = [
    pytest.param(operation, when, step, id=f"{operation.text}-{when}-{step}",
                 marks=() if (when, step) in operation.sample else pytest.mark.whole)
    for operation in OPERATIONS for step in range(1, operation.steps + 1) for when in _WHENS
]


@pytest.mark.parametrize(("operation", "when", "step"), MATRIX)
def test_a_killed_operation_is_finished_or_taken_back(
    two: GuestWithTwo, operation: Operation, when: When, step: int
) -> None:
    operation.require(two)
    name = two.guest.name
    code, said = two.command(operation.verb, name, *operation.words, kill=(when, step))
    assert code == -signal.SIGKILL, said
    assert "urn:virtsnap:journal" in two.guest.domain.XMLDesc(2)
    code, said = two.command("save", name, "x", "--dry-run")
    assert (code, "virtsnap recover" in said) == (9, True), said
    code, said = two.command("recover", name)
    assert code == 0, said
    assert two.disagreements() == []
    finished = operation.is_finished(when, step)
    assert ("was finished" if finished else "was undone") in said
    assert tokens(two.guest) == ((operation.present if finished else "now"),) * 2
    if two.is_untouched():
        assert not finished
        return
    expected = operation.left if finished else _TWO
    if operation.booted in expected:
        assert two.names() == expected.keys()
        two.domain.remove_snapshot(operation.booted)
        expected = {name: token for name, token in expected.items() if name != operation.booted}
    two.assert_all_load(expected)


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.text for operation in OPERATIONS])
def test_every_step_is_in_the_matrix(two: GuestWithTwo, operation: Operation) -> None:
    operation.require(two)
    beyond: tuple[When, int] = ("before", operation.steps + 1)
    code, said = two.command(operation.verb, two.guest.name, *operation.words, kill=beyond)
    assert code == 0, f"{operation.text} has more than {operation.steps} steps: {said}"


def test_a_recovery_that_is_killed_is_recovered(two: GuestWithTwo) -> None:
    name = two.guest.name
    assert two.command("load", name, "a", kill=("after", 5))[0] == -signal.SIGKILL
    for step in (1, 2, 3):
        code, said = two.command("recover", name, kill=("after", step))
        assert code == -signal.SIGKILL, said
    code, said = two.command("recover", name)
    assert code == 0, said
    assert tokens(two.guest) == ("a", "a")
    two.assert_all_load({"a": "a"})


def test_the_next_operation_recovers_first_and_says_so(two: GuestWithTwo) -> None:
    two.command("save", two.guest.name, "b", kill=("after", 3))
    put(two.guest, "later")
    code, said = two.command("save", two.guest.name, "c")
    assert code == 0, said
    assert "the interrupted save of 'b' was finished first" in said
    two.assert_all_load({"a": "a", "b": "now", "c": "later"})


def test_a_load_whose_guest_was_started_by_somebody_else_is_taken_back(two: GuestWithTwo) -> None:
    two.command("load", two.guest.name, "a", kill=("after", 4))
    assert not two.guest.domain.isActive()
    two.start()
    assert two.guest.console.check("cat /mnt/token") == "now"
    number = two.guest.domain.ID()
    code, said = two.command("recover", two.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert two.guest.domain.ID() == number
    two.assert_all_load({"a": "a", "b": "b"})


def test_a_load_whose_guest_ran_on_and_got_a_snapshot_of_plain_virsh_is_finished(two: GuestWithTwo) -> None:
    two.command("load", two.guest.name, "a", kill=("after", 8))
    put(two.guest, "on")
    above = two.guest.folder / "above.qcow2"
    two.guest.domain.snapshotCreateXML(
        f"<domainsnapshot><disks><disk name='vda'><source file='{above}'/></disk></disks></domainsnapshot>",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
    )
    number = two.guest.domain.ID()
    code, said = two.command("recover", two.guest.name)
    assert (code, "was finished" in said) == (0, True), said
    assert (two.guest.domain.ID(), tokens(two.guest)) == (number, ("on", "on"))
    assert two.disagreements() == []
    two.assert_all_load({"a": "a"})
    above.unlink()


def test_a_load_whose_guest_went_off_before_it_ran_is_finished_without_one(two: GuestWithTwo) -> None:
    two.command("load", two.guest.name, "a", kill=("after", 6))  # the definition, which says that it may have run
    assert two.guest.domain.info()[0] == libvirt.VIR_DOMAIN_PAUSED
    two.guest.domain.destroy()
    code, said = two.command("recover", two.guest.name)
    assert (code, "was finished" in said) == (0, True), said
    assert not two.guest.domain.isActive()
    assert two.disagreements() == []
    assert two.on_disk() == "a"
    two.assert_all_load({"a": "a"})


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_guest_that_runs_on_the_disks_of_before_stays_where_a_boot_was_under_way(
    two: GuestWithTwo, when: When
) -> None:
    two.guest.domain.destroy()
    two.domain.save_snapshot("off")
    two.start()
    # Around the stop; what comes next would define the domain and boot it.
    two.command("load", two.guest.name, "off", kill=(when, 4))
    assert bool(two.guest.domain.isActive()) is (when == "before")
    if when == "after":
        two.start()
    number = two.guest.domain.ID()
    code, said = two.command("recover", two.guest.name)
    assert (code, "was undone" in said) == (0, True), said
    assert two.guest.domain.ID() == number
    assert two.guest.console.check("cat /mnt/token") == "now"
    two.domain.remove_snapshot("off")
    two.assert_all_load({"a": "a", "b": "b"})


def test_recover_without_an_interrupted_operation_says_so(two: GuestWithTwo) -> None:
    code, said = two.command("recover", two.guest.name)
    assert (code, "nothing was interrupted" in said) == (0, True)
    assert two.command("recover", "no-such-vm")[0] == 3


def test_the_journal_of_an_operation_that_is_over_does_not_come_back(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    guest.console.wait_disk()
    guest.domain.undefine()
    with virtsnap.connect(guest.uri) as host:
        domain = host.domain(guest.name)
        for name in ("a", "b"):
            put(guest, name)
            domain.save_snapshot(name)
        domain.load_snapshot("a")  # and forget b
        assert "urn:virtsnap" not in guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        put(guest, "b again")
        domain.save_snapshot("b")
    # Killed once the domain has been made persistent for it
    code, said = run_verb(["-c", guest.uri, "save", guest.name, "c"], kill=("after", 1))
    assert code == -signal.SIGKILL, said
    assert guest.domain.isPersistent()
    code, said = run_verb(["-c", guest.uri, "recover", guest.name])
    assert (code, "the interrupted save of 'c' was undone" in said) == (0, True), said
    assert not guest.domain.isPersistent()
    with virtsnap.connect(guest.uri) as host:
        domain = host.domain(guest.name)
        assert [each.name for each in domain.snapshots()] == ["a", "b"]
        put(guest, "wrong")
        domain.load_snapshot("b")
        assert tokens(guest) == ("b again", "b again")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_undefine_that_is_killed_loses_nothing(module_farm: GuestFarm, when: When) -> None:
    guest = module_farm.running_guest()
    with virtsnap.connect(guest.uri) as host:
        domain = host.domain(guest.name)
        put(guest, "a")
        domain.save_snapshot("a")
        put(guest, "now")
        guest.domain.destroy()
        # Around the call of the real virsh: in `leave`, and before what it left is merged.
        place, name = ("front", "_pass_on") if when == "before" else ("leaving", "clear_up")
        program = (
            "import os\nfrom virtsnap.cli.virsh import front\nfrom virtsnap.snapshots import leaving\n"
            f"{place}.{name} = lambda *_, **__: os.kill(os.getpid(), 9)\nfront.main()"
        )
        top, = disk_files(guest, live=False)
        done = subprocess.run(
            [sys.executable, "-c", program, "-c", guest.uri, "undefine", guest.name, "--snapshots-metadata"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )
        assert done.returncode == -signal.SIGKILL, done
        if when == "before":
            assert domain.recover() is None
            assert GuestWithTwo(guest=guest, domain=domain).disagreements() == []
            domain.load_snapshot("a")
            assert tokens(guest) == ("a", "a")
        else:
            module_farm.leave_unchecked(guest.name, because="what its guest wrote is still in the domain's folder")
            with pytest.raises(NoSuchDomainError):
                host.domain(guest.name)
            # What docs/snapshots.md says to do
            subprocess.run(["qemu-img", "commit", "-q", "-b", guest.disks[0], top], check=True)
            assert token_on(guest.disks[0], work=guest.folder) == "now"
