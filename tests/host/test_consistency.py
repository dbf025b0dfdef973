"""What the checker that runs after each test sees: it has to be able to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import virtsnap
from tests.host.guests import GuestFarm, RunningGuest


@pytest.fixture
def guest(farm: GuestFarm) -> RunningGuest:
    """A guest with one snapshot."""
    guest = farm.running_guest()
    with virtsnap.connect(farm.uri) as host:
        host.domain(guest.name).save_snapshot("s")
    assert farm.disagreements() == []
    return guest


def folder_of(guest: RunningGuest) -> Path:
    (folder,) = guest.folder.glob("virtsnap-*")
    return folder


def test_a_test_that_leaves_a_file_or_damage_behind_fails_and_is_cleared_up_after(
    farm: GuestFarm, guest: RunningGuest
) -> None:
    (folder_of(guest) / "0badc0de.mem").touch()
    (memory,) = (path for path in folder_of(guest).glob("*.mem") if path.stat().st_size)
    memory.unlink()
    (guest.folder / "virtsnap-of-nobody").mkdir()
    found = "\n".join(farm.disagreements())
    for said in (r"0badc0de.mem is needed by nothing", f"{memory} is missing", "of-nobody belongs to no domain"):
        assert said in found
    with pytest.raises(AssertionError, match=r"0badc0de\.mem is needed by nothing"):
        farm.clear()
    assert not guest.folder.exists()
    assert farm.connection.listAllDomains() == []


def test_a_snapshot_object_that_went_leaves_files_that_nothing_needs(
    farm: GuestFarm, guest: RunningGuest
) -> None:
    guest.domain.snapshotLookupByName("s").delete(2)  # the metadata alone
    (said,) = farm.disagreements()
    assert ".mem is needed by nothing" in said
    with virtsnap.connect(farm.uri) as host:
        host.collect_garbage(only=guest.name)


def test_what_a_test_damages_on_purpose_is_left_out_by_name(farm: GuestFarm, guest: RunningGuest) -> None:
    (folder_of(guest) / "0badc0de.mem").touch()
    (guest.folder / "virtsnap-of-nobody").mkdir()
    farm.leave_unchecked(guest.name, because="a file of nobody's is in its folder")
    assert farm.disagreements() == []
