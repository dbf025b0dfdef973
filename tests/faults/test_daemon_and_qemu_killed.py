"""libvirtd and QEMU die in the midst of a save and of a load; the daemon comes back by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

import virtsnap
from tests.faults.guest_with_two import GuestWithTwo
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.test_save_and_load import own_files, tokens


@pytest.fixture
def fresh(module_farm: GuestFarm, booted: GuestWithTwo, host: PrivateLibvirtd) -> Iterator[GuestWithTwo]:
    """The module's guest over connections of its own: a daemon that was killed takes all others with it."""
    with reconnected(booted) as two:
        two.reset()
        yield two


@contextlib.contextmanager
def reconnected(two: GuestWithTwo) -> Iterator[GuestWithTwo]:
    """Give the same guest over new connections, once a daemon answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = libvirt.open(two.guest.uri)
            domain = connection.lookupByName(two.guest.name)
            domain.info()
            break
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    with contextlib.closing(connection), virtsnap.connect(two.guest.uri) as opened:
        yield GuestWithTwo(guest=replace(two.guest, domain=domain), domain=opened.domain(two.guest.name))


def qemu_pids(name: str) -> set[int]:
    """Find the QEMU of a domain, by PIDs as this side sees them."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"guest={name},".encode() in place.read_bytes():
                found.add(int(place.parent.name))
    return found


def interrupted(
    two: GuestWithTwo, verb: str, name: str, moment: Callable[[], bool], kill: Callable[[], None]
) -> str:
    """Run a verb, kill something at a moment, and give what it said; it must end by itself."""
    program = "import sys; from virtsnap.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", program, "-c", two.guest.uri, verb, two.guest.name, name]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        deadline = time.monotonic() + 60
        while not moment() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        kill()
        said, _ = process.communicate(timeout=120)
    return f"{process.returncode}: {said}"


def settle(two: GuestWithTwo, said: str) -> None:
    """Recover, and find that everything agrees and all complete snapshots load."""
    code, recovered = two.command("recover", two.guest.name)
    assert code == 0, said + recovered
    assert two.disagreements() == [], said + recovered
    if not two.guest.domain.isActive():
        assert two.on_disk() in ("now", "a", "b")
    expected = {"a": "a", "b": "b", **({"c": "now"} if "c" in two.names() else {})}
    two.assert_all_load({name: token for name, token in expected.items() if name in two.names()})
    assert {"a"} <= two.names()


@pytest.mark.parametrize("who", ["libvirtd", "qemu"])
def test_a_save(fresh: GuestWithTwo, host: PrivateLibvirtd, who: str) -> None:
    before = own_files(fresh.guest)

    def kill() -> None:
        for pid in [host.daemon_pid()] if who == "libvirtd" else qemu_pids(fresh.guest.name):
            os.kill(pid, signal.SIGKILL)

    def writing() -> bool:
        return any(name.endswith(".mem") for name in own_files(fresh.guest) - before)

    said = interrupted(fresh, "save", "c", writing, kill)
    with reconnected(fresh) as two:
        settle(two, said)


@pytest.mark.parametrize("who", ["libvirtd", "qemu"])
def test_a_load(fresh: GuestWithTwo, host: PrivateLibvirtd, who: str) -> None:
    old = qemu_pids(fresh.guest.name)

    def kill() -> None:
        for pid in [host.daemon_pid()] if who == "libvirtd" else qemu_pids(fresh.guest.name) - old:
            os.kill(pid, signal.SIGKILL)

    said = interrupted(fresh, "load", "a", lambda: bool(qemu_pids(fresh.guest.name) - old), kill)
    with reconnected(fresh) as two:
        settle(two, said)
        assert tokens(two.guest)[0] in ("a", "b")
