"""A load stops the old guest at once, and libvirt records what it records of any stop; a guest that hangs too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import libvirt
import pytest

import virtsnap
from tests.host.guests import GuestFarm, RunningGuest
from virtsnap.host import connect
from virtsnap.host.qemu_process import find_qemu

DESTROYED = [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED]


@pytest.fixture
def guest(farm: GuestFarm) -> RunningGuest:
    return farm.running_guest()


def qemu_of(guest: RunningGuest) -> int:
    pid = find_qemu(guest.domain.UUIDString())
    assert pid is not None
    return pid


def test_a_stop_ends_the_process_and_reads_like_a_destroy(guest: RunningGuest) -> None:
    pid = qemu_of(guest)
    with connect(guest.uri) as host:
        host.domain(guest.name).stop(is_local=True)
        assert not Path(f"/proc/{pid}").exists()
        assert guest.domain.state() == DESTROYED
        host.domain(guest.name).stop(is_local=True)  # it is no error when there is none
    guest.domain.create()
    guest.console.wait_ready()


def test_a_guest_that_hangs_is_stopped_as_well(guest: RunningGuest) -> None:
    os.kill(qemu_of(guest), signal.SIGSTOP)
    with connect(guest.uri) as host:
        host.domain(guest.name).stop(is_local=True)
    assert guest.domain.state() == DESTROYED


def test_a_load_over_a_qemu_that_hangs_works(guest: RunningGuest) -> None:
    with virtsnap.connect(guest.uri) as host:
        domain = host.domain(guest.name)
        guest.console.check("echo one > /run/token")
        domain.save_snapshot("s")
        os.kill(qemu_of(guest), signal.SIGSTOP)
        assert domain.load_snapshot("s").state == "running"
        assert guest.console.check("cat /run/token") == "one"
