"""Sixty snapshots of one guest: each can be loaded, before and after its chain was flattened."""

from __future__ import annotations

import pytest

import virtsnap
import virtsnap.host
from tests.host.consistency import disagreements
from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import put, tokens

SNAPSHOTS = 60


@pytest.mark.whole
def test_sixty_snapshots_can_all_be_loaded_and_after_a_flatten_too(farm: GuestFarm) -> None:
    guest = farm.running_guest(memory_mib=96)
    guest.console.wait_disk()
    names = [f"s{number}" for number in range(SNAPSHOTS)]
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        for name in names:
            put(guest, name)
            domain.save_snapshot(name)
        put(guest, "now")
        assert any("60 layers" in remark or "61 layers" in remark for remark in domain.check().remarks)
        outcome = domain.flatten()
        assert outcome.bytes["pulled"] > 0
        assert tokens(guest) == ("now", "now")
        assert not domain.check().remarks
        for name in [*reversed(names)]:
            domain.load_snapshot(name, keep_newer=True)
            assert tokens(guest) == (name, name)
        assert {snapshot.name for snapshot in domain.snapshots()} == set(names)
    with virtsnap.host.connect(farm.uri) as plain:
        assert disagreements(plain, guest.name, beside=guest.folder) == []
