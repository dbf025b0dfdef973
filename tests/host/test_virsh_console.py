"""One console session sees the guest before and after a load, and ends when the domain does."""

from __future__ import annotations

import re
import termios
import time
from collections.abc import Iterator
from itertools import pairwise

import libvirt
import pytest

from tests.host.guests import GuestFarm, RunningGuest
from tests.host.virsh_calls import FRONT, VIRSH, ConsoleSession, run

# A second device, on which nobody but us reads and writes
SECOND_SERIAL = "<serial type='pty'/>"


@pytest.fixture
def guest(farm: GuestFarm) -> Iterator[RunningGuest]:
    guest = farm.running_guest(extra_devices=SECOND_SERIAL)
    guest.console.check("stty -F /dev/ttyS1 -echo raw")
    yield guest
    guest.console.close()


def say(guest: RunningGuest, text: str) -> None:
    guest.console.check(f"echo {text} > /dev/ttyS1")


def hear(session: ConsoleSession, guest: RunningGuest, text: str) -> None:
    """Have the guest say `text` until the session shows it: a pty that nobody has open drops what comes.

    virsh 9.0 says that it is connected before it is, and so do we there.
    """
    for attempt in range(10):
        say(guest, f"{text}-{attempt}")
        try:
            session.wait_for(f"{text}-{attempt}\n", timeout_s=1)
        except AssertionError:
            continue
        return
    raise AssertionError(f"{text} was never heard: {session.output!r}")


def test_text_before_and_after_a_revert_is_in_one_session(farm: GuestFarm, guest: RunningGuest) -> None:
    with ConsoleSession(guest.uri, guest.name, "serial1") as session:
        session.wait_for(f"Connected to domain '{guest.name}'\r\nEscape character is ^] (Ctrl + ])\r\n")
        hear(session, guest, "before")
        guest.console.check("(while read line; do echo heard $line; done < /dev/ttyS1 > /dev/ttyS1) 2>&1 &")
        session.type("one\n")
        session.wait_for("heard one\n")
        assert run(FRONT, guest.uri, "snapshot-create-as", guest.name, "lastgood").code == 0
        for number in range(3):
            assert run(FRONT, guest.uri, "snapshot-revert", guest.name, "lastgood").code == 0
            say(guest, f"after-{number}")
            session.wait_for(f"after-{number}\n")
            session.type(f"typed-{number}\n")
            session.wait_for(f"heard typed-{number}\n")
        guest.domain.destroy()
        guest.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        farm.leave_unchecked(guest.name, because="libvirt's own undefine leaves the snapshots' files")
        assert session.ends(timeout_s=2) == 0
        assert session.errors().splitlines() == [
            f"virtsnap: {guest.name} has a new QEMU; the console is connected to it"
        ] * 3


def numbers_in(session: ConsoleSession) -> list[int]:
    """Give the numbers of all lines that have come so far."""
    session.read_what_is_there()
    return [int(word) for word in re.findall(rb"line (\d+)\n", session.output)]


def jumps_in(numbers: list[int]) -> list[int]:
    """Give the numbers that do not go on from the one before."""
    return [later for sooner, later in pairwise(numbers) if later <= sooner]


def test_nothing_that_the_guest_says_after_a_revert_is_lost(guest: RunningGuest) -> None:
    with ConsoleSession(guest.uri, guest.name, "--devname", "serial1", on_terminal=False) as session:
        session.wait_for("Escape character is ^]")
        guest.console.check(
            "(n=0; while :; do n=$((n+1)); echo line $n > /dev/ttyS1; sleep 0.02; done) >/dev/null 2>&1 &"
        )
        session.wait_for("line 5\n")
        run(FRONT, guest.uri, "snapshot-create-as", guest.name, "s")
        for reverts in range(1, 4):
            assert run(FRONT, guest.uri, "snapshot-revert", guest.name, "s").code == 0
            deadline = time.monotonic() + 60
            while len(jumps_in(numbers_in(session))) < reverts:
                assert time.monotonic() < deadline, f"{reverts} reverts, {numbers_in(session)}"
                time.sleep(0.1)
        numbers = numbers_in(session)
    jumps = jumps_in(numbers)
    assert len(jumps) == 3, "each revert takes the guest back once"
    assert len(set(jumps)) == 1, "and each time it goes on with the same line"
    assert all(later == sooner + 1 for sooner, later in pairwise(numbers) if later > sooner)


def test_a_session_goes_on_after_a_restart_and_ends_when_it_should(guest: RunningGuest) -> None:
    with ConsoleSession(guest.uri, guest.name, "serial1") as session:
        hear(session, guest, "first")
        with ConsoleSession(guest.uri, guest.name, "serial1") as second:
            assert second.ends() == 1
            assert "Active console session exists for this domain" in second.errors()
        guest.domain.destroy()
        time.sleep(1)
        guest.domain.create()
        guest.console.wait_ready()
        guest.console.check("stty -F /dev/ttyS1 -echo raw")
        hear(session, guest, "again")
        with ConsoleSession(guest.uri, guest.name, "--devname=serial1", "--force") as second:
            hear(second, guest, "to-the-second")
            assert session.ends() == 0, f"somebody took the console over: {session.output[-300:]!r}"
            second.type("\x1d")
            assert second.ends(timeout_s=5) == 0, "the escape character"
    with ConsoleSession(guest.uri, guest.name, "serial1") as session:
        before = termios.tcgetattr(session.terminal)
        hear(session, guest, "third")
        assert termios.tcgetattr(session.terminal) != before
        session.process.terminate()
        assert session.ends(timeout_s=5) == 0
        assert termios.tcgetattr(session.terminal) == before
    with ConsoleSession(guest.uri, guest.name, "serial1") as session:
        hear(session, guest, "fourth")
        guest.domain.destroy()
        assert session.ends(timeout_s=10) == 0


def test_errors_are_virshs(guest: RunningGuest) -> None:
    for words in (["nope"], [guest.name, "--devname", "none"], [guest.name]):
        if words == [guest.name]:
            guest.domain.destroy()
        said = []
        for program in (FRONT, VIRSH):
            with ConsoleSession(guest.uri, *words, program=program) as session:
                said.append((session.ends(), session.errors(), session.output))
        assert said[0] == said[1], words
