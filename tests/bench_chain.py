"""Sixty saves, then a flatten: how fast a guest reads what lies at the bottom of the chain, beside one of depth 1.

    python -m tests.bench_chain [SAVES]

Two guests run at the same time, read the same 64 KiB blocks of the same base
image in turns, past their own page cache, from a host cache that is warm; one
has one overlay, the other as many as it has been saved. Printed is the median
of the rounds, as a multiple of the first one's in the same round. Exit code 1
where that is over 1.3 after flattening.
"""

from __future__ import annotations

import statistics
import sys

import virtsnap
from tests.guest.build import build_guest
from tests.host.accelerator import domain_type
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.private_libvirtd import PrivateLibvirtd

SAVES = 60
ROUNDS = 9
BLOCKS = 1024
LIMIT = 1.3


def read_s(guest: RunningGuest) -> float:
    """Have the guest read the base image's first blocks; give the seconds that it took, by its own clock."""
    read = f"dd if=/dev/vdb of=/dev/null bs=64k count={BLOCKS} iflag=direct 2>/dev/null"
    told = guest.console.check(f"cat /proc/uptime && {read} && cat /proc/uptime", timeout_s=300)
    began, ended = (float(line.split()[0]) for line in told.splitlines())
    return ended - began


def ratio(deep: RunningGuest, shallow: RunningGuest) -> float:
    """Read with both in turns; give the median of the rounds' ratios."""
    for guest in (shallow, deep):
        read_s(guest)  # warms the host's cache
    found = []
    for number in range(ROUNDS):
        # who comes first changes, so that a machine that grows busier favours nobody
        pair = (shallow, deep) if number % 2 else (deep, shallow)
        seconds = {guest.name: read_s(guest) for guest in pair}
        found.append(seconds[deep.name] / seconds[shallow.name])
    return statistics.median(found)


def new_guest(farm: GuestFarm) -> RunningGuest:
    """Start a guest whose second disk has data in every block that will be read."""
    guest = farm.running_guest(memory_mib=128, extra_disk_sizes=["128M"])
    guest.console.wait_disk()
    guest.console.check(f"dd if=/dev/urandom of=/dev/vdb bs=64k count={BLOCKS} conv=fsync", timeout_s=300)
    return guest


def main(saves: int) -> int:
    """Measure and print; give the exit code."""
    files = build_guest()
    with (
        PrivateLibvirtd() as host,
        GuestFarm(host, files, domain_type(files)) as farm,
        virtsnap.connect(host.uri) as snapshots,
    ):
        shallow, deep = new_guest(farm), new_guest(farm)
        snapshots.domain(shallow.name).save_snapshot("one")
        domain = snapshots.domain(deep.name)
        for number in range(saves):
            domain.save_snapshot(f"s{number}")
        print(f"depth 1 beside depth {saves}: reads take {ratio(deep, shallow):.2f} times as long")
        outcome = domain.flatten()
        after = ratio(deep, shallow)
        pulled = outcome.bytes.get("pulled", 0) / 1e6
        print(f"depth 1 beside flattened:  reads take {after:.2f} times as long; flattening wrote {pulled:.1f} MB "
              f"in {outcome.total_s:.1f} s")
        print(f"limit {LIMIT}: {'kept' if after <= LIMIT else 'EXCEEDED'}")
    return 0 if after <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SAVES))
