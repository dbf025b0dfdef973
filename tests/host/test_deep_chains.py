"""Many snapshots of one guest: the chain stays short, and each can be loaded."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

import virtsnap
import virtsnap.host
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.test_save_and_load import disk_files, put, tokens
from virtsnap.errors import HypervisorError
from virtsnap.host import Domain
from virtsnap.host.chains import read_chain
from virtsnap.snapshots.depth import KEPT_LAYERS, MOST_LAYERS, is_limited


def depth(guest: RunningGuest) -> int:
    """Count the files under the guest's disk, the one that it writes to included."""
    top, = disk_files(guest, live=True)
    with virtsnap.host.connect(guest.uri) as host:
        return len(read_chain(host.files, top, "qcow2"))


@pytest.mark.parametrize("number", [24, pytest.param(60, marks=pytest.mark.whole)])
def test_many_snapshots_can_all_be_loaded_and_after_a_flatten_too(farm: GuestFarm, number: int) -> None:
    guest = farm.running_guest(memory_mib=96)
    guest.console.wait_disk()
    names = [f"s{each}" for each in range(number)]
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        own = before = depth(guest)
        for name in names:
            put(guest, name)
            outcome = domain.save_snapshot(name)
            now = depth(guest)
            if before < MOST_LAYERS:
                assert (now, outcome.warnings) == (before + 1, ())
            else:
                assert now <= KEPT_LAYERS + 1
                assert outcome.bytes["pulled"] > 0
                assert any(f"had {MOST_LAYERS} layers and was shortened" in each for each in outcome.warnings)
                assert tokens(guest) == (name, name)
            before = now
        put(guest, "now")
        assert domain.flatten().bytes["pulled"] > 0
        assert depth(guest) == own + 1
        assert tokens(guest) == ("now", "now")
        assert not domain.check().remarks
        for name in [*reversed(names)]:
            domain.load_snapshot(name, keep_newer=True)
            assert tokens(guest) == (name, name)
        assert {snapshot.name for snapshot in domain.snapshots()} == set(names)


def test_a_chain_that_cannot_be_shortened_is_told_of_or_refused(farm: GuestFarm, mocker: MockerFixture) -> None:
    guest = farm.running_guest(memory_mib=96)
    guest.console.wait_disk()
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        while depth(guest) < MOST_LAYERS:
            domain.save_snapshot(f"s{depth(guest)}")
        put(guest, "one")
        mocker.patch.object(Domain, "pull_layers", side_effect=HypervisorError("injected"))
        if is_limited(host.libvirt_version):
            with pytest.raises(HypervisorError, match="injected"):
                domain.save_snapshot("last")
            assert depth(guest) == MOST_LAYERS
            mocker.stopall()
            domain.save_snapshot("last")
        else:
            outcome = domain.save_snapshot("last")
            assert any("could not be shortened: injected" in each for each in outcome.warnings)
            assert depth(guest) == MOST_LAYERS + 1
        put(guest, "two")
        domain.load_snapshot("last")
        assert tokens(guest) == ("one", "one")
