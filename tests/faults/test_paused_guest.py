"""A save of a paused guest fails once libvirt has taken its snapshot: QEMU then merges none of its disks."""

from __future__ import annotations

import subprocess
import sys

import pytest

import virtsnap
from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import disk_files, own_files, put, tokens
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER
from virtsnap.errors import HypervisorError


@pytest.mark.parametrize("ram_folder", [None, DEFAULT_FOLDER])
def test_a_paused_guest_whose_save_fails_stays_paused_on_its_overlays(
    farm: GuestFarm, ram_folder: str | None
) -> None:
    guest = farm.running_guest(ram_folder=ram_folder, extra_disk_sizes=["16M"])
    guest.console.wait_disk()
    put(guest, "one")
    guest.domain.suspend()
    with virtsnap.connect(guest.uri) as host:
        domain = host.domain(guest.name)
        words = ["-c", guest.uri, "save", guest.name, "s"]
        failed = subprocess.run(
            [sys.executable, "-m", "tests.faults.failing", "redefine_snapshot", *words],
            capture_output=True, text=True, check=False,
        )
        # Nothing that could not be taken back
        assert (failed.returncode, failed.stderr.strip()) == (8, "error: injected")
        for _ in range(2):
            assert domain.state() == "paused"
            assert domain.snapshots() == ()
            assert [name.rpartition(".")[2] for name in own_files(guest)] == ["qcow2"] * 2
            assert disk_files(guest, live=True) == disk_files(guest, live=False)
            assert farm.disagreements() == []
            # QEMU writes the state of such a guest out once; that changes nothing either.
            with pytest.raises(HypervisorError) as refused:
                domain.save_snapshot("s")
            assert "once it has run since" in str(refused.value.hint)
        guest.domain.resume()
        assert tokens(guest) == ("one", "one")
        put(guest, "two")
        domain.save_snapshot("s")
        put(guest, "three")
        domain.load_snapshot("s")
        assert tokens(guest) == ("two", "two")
        domain.remove_snapshot("s")
        domain.flatten()
        assert tokens(guest) == ("two", "two")
        assert sum(name.endswith(".qcow2") for name in own_files(guest)) == 2
