"""Many snapshots of one guest: each can be loaded, on a libvirt that takes no long chains too."""

from __future__ import annotations

import pytest

import virtsnap
from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import put, tokens
from virtsnap.snapshots.depth import most_layers


@pytest.mark.parametrize("number", [24, pytest.param(60, marks=pytest.mark.whole)])
def test_many_snapshots_can_all_be_loaded_and_after_a_flatten_too(farm: GuestFarm, number: int) -> None:
    guest = farm.running_guest(memory_mib=96)
    guest.console.wait_disk()
    names = [f"s{each}" for each in range(number)]
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        most = most_layers(host.libvirt_version)
        pulled = []
        for name in names:
            put(guest, name)
            outcome = domain.save_snapshot(name)
            if "pulled" in outcome.bytes:
                assert outcome.bytes["pulled"] > 0
                assert any(f"more than {most} layers" in warning for warning in outcome.warnings)
                pulled.append(name)
        # One for the image, one a save: the first that would be one too many takes the chain back to two.
        assert len(pulled) == (0 if most is None else (number - most) // (most - 2) + 1)
        put(guest, "now")
        assert domain.flatten().bytes["pulled"] > 0
        assert tokens(guest) == ("now", "now")
        assert not domain.check().remarks
        for name in [*reversed(names)]:
            domain.load_snapshot(name, keep_newer=True)
            assert tokens(guest) == (name, name)
        assert {snapshot.name for snapshot in domain.snapshots()} == set(names)
