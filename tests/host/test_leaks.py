"""Cycles of save, load and rm in one process leave no file, process, descriptor or libvirt object behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import virtsnap
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.test_save_and_load import names_in_libvirt, own_files, put, tokens

WARM_UP = 3


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def below(pid: int) -> list[str]:
    """Name the processes below one, by what they run."""
    found, ahead = [], [pid]
    while ahead:
        parent = ahead.pop()
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                ahead.append(int(child))
                found.append(Path(f"/proc/{child}/comm").read_text().strip())
    return sorted(found)


def all_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Footprint:
    """What there is of files, processes, descriptors and libvirt's objects."""

    def __init__(self, farm: GuestFarm, host: PrivateLibvirtd, guest: RunningGuest) -> None:
        gc.collect()
        self.files = {str(path.relative_to(guest.folder)) for path in guest.folder.rglob("*")}
        self.kept_by_libvirt = len(all_files(host.folder / "lib")) + len(all_files(host.run_folder()))
        self.objects = names_in_libvirt(guest)
        self.domains = sorted(domain.name() for domain in farm.connection.listAllDomains())
        self.own_descriptors = descriptors(os.getpid())
        self.daemon_descriptors = descriptors(host.daemon_pid())
        self.own_children = below(os.getpid())


@pytest.mark.parametrize("cycles", [5, pytest.param(200, marks=pytest.mark.whole)])
def test_nothing_is_left_of_many_cycles(farm: GuestFarm, host: PrivateLibvirtd, cycles: int) -> None:
    guest = farm.running_guest(memory_mib=96)
    guest.console.wait_disk()
    with virtsnap.connect(farm.uri) as snapshots:
        domain = snapshots.domain(guest.name)
        put(guest, "one")
        domain.save_snapshot("base")

        def cycle(number: int) -> None:
            domain.save_snapshot(f"s{number}")
            domain.load_snapshot(f"s{number}", keep_newer=True)
            domain.remove_snapshot(f"s{number}")
            domain.load_snapshot("base")

        for number in range(WARM_UP):
            cycle(number)
        before = Footprint(farm, host, guest)
        for number in range(cycles):
            cycle(number)
        after = Footprint(farm, host, guest)
        assert tokens(guest) == ("one", "one")
        # One memory image and one overlay; the overlay has another name after each load.
        assert sorted(name.partition(".")[2] for name in own_files(guest)) == ["mem", "qcow2"]
        assert len(after.files) == len(before.files)
        assert (after.objects, after.domains) == (before.objects, before.domains)
        assert after.own_children == before.own_children
        assert after.own_descriptors == before.own_descriptors
        assert after.daemon_descriptors <= before.daemon_descriptors
        assert after.kept_by_libvirt <= before.kept_by_libvirt
        domain.remove_snapshot("base")
        assert names_in_libvirt(guest) == set()
        # what the line stands on stays
        assert len(own_files(guest)) == 1


def test_connections_close_as_well_in_a_process_that_has_listened_to_events(host_uri: str) -> None:
    program = """if True:
        import os, sys, time
        from virtsnap.host import connect
        from virtsnap.host.pauses import PauseWatch
        PauseWatch(sys.argv[1]).close()

        def counted(most: int | None = None) -> int:
            for _ in range(100):  # closed by the loop's thread
                found = len(os.listdir("/proc/self/fd"))
                if most is None or found <= most:
                    break
                time.sleep(0.05)
            return found

        time.sleep(1)
        before = counted()
        for _ in range(5):
            with connect(sys.argv[1]) as host:
                host.domains()
        print(counted(before) - before)
    """
    done = subprocess.run([sys.executable, "-c", program, host_uri], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
