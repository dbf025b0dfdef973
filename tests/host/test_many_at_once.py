"""Eight domains are saved and loaded by eight processes at once, and none gets another's state."""

from __future__ import annotations

import os
import subprocess

from tests.host.guests import GuestFarm
from tests.host.test_save_and_load import put, tokens
from tests.host.virsh_calls import VIRTSNAP

DOMAINS = 8


def all_at_once(farm: GuestFarm, names: list[str], verb: str, *words: str) -> None:
    """Run a verb on every domain, each in a process of its own, started together."""
    environment = {**os.environ, "LIBVIRT_DEFAULT_URI": farm.uri}
    processes = [
        subprocess.Popen([*VIRTSNAP, verb, name, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, env=environment)
        for name in names
    ]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said


def test_eight_domains_are_saved_and_loaded_by_eight_processes(farm: GuestFarm) -> None:
    guests = [farm.running_guest(memory_mib=128) for _ in range(DOMAINS)]
    names = [guest.name for guest in guests]
    for guest in guests:
        guest.console.wait_disk(timeout_s=90)
    for snapshot in ("one", "two"):
        for guest in guests:
            put(guest, f"{guest.name}-{snapshot}")
        all_at_once(farm, names, "save", snapshot)
    for snapshot in ("one", "two", "one"):
        for guest in guests:
            put(guest, "wrong")
        all_at_once(farm, names, "load", snapshot, "--keep-newer")
        for guest in guests:
            assert tokens(guest) == (f"{guest.name}-{snapshot}",) * 2
    all_at_once(farm, names, "rm", "two")
    all_at_once(farm, names, "load", "one")
    for guest in guests:
        assert tokens(guest) == (f"{guest.name}-one",) * 2
        assert {snapshot.getName() for snapshot in guest.domain.listAllSnapshots()} == {"one"}
