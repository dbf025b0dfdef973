"""One guest for a module of faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import virtsnap
from tests.faults.guest_with_two import GuestWithTwo
from tests.guest.build import GuestFiles
from tests.host.accelerator import DomainType
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd


@pytest.fixture(scope="module")
def module_farm(
    host: PrivateLibvirtd, guest_files: GuestFiles, accelerator: DomainType
) -> Iterator[GuestFarm]:
    """Makes domains on `host`, and removes them after the module."""
    with GuestFarm(host, guest_files, accelerator) as farm:
        yield farm


@pytest.fixture(scope="module")
def booted(module_farm: GuestFarm) -> Iterator[GuestWithTwo]:
    """A guest that runs, without snapshots yet."""
    guest = module_farm.running_guest()
    guest.console.wait_disk()
    with virtsnap.connect(module_farm.uri) as host:
        yield GuestWithTwo(guest=guest, domain=host.domain(guest.name))


@pytest.fixture
def two(booted: GuestWithTwo) -> Iterator[GuestWithTwo]:
    """A guest with the snapshots a and b, and a present; what it is left with has to agree."""
    booted.reset()
    yield booted
    assert booted.disagreements() == []
