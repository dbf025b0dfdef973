"""What the user asked for becomes scenarios: which engines, how large a guest, how many, how often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from virtsnap.bench.engines import EngineRow, ScenarioName
from virtsnap.bench.samples import Sample
from virtsnap.errors import UsageError

# A save of so much takes as long as the disk does
MUCH_MIB = 2048
# An engine whose save and load take longer saves once, which says enough about it.
SLOW_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """A guest's RAM, and how much of it holds something, in MiB."""

    memory_mib: int
    resident_mib: int

    def __str__(self) -> str:
        return f"{self.memory_mib}:{self.resident_mib}"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Some engines in turn, in `cycles` rounds.

    In a round each loads once, on `vms` guests at once, and in one of `checked_every` it is looked whether
    RAM and disk are as they were saved. In one of `loads`, the first, it saves before.
    """

    name: str
    engines: tuple[EngineRow, ...]
    size: Size
    cycles: int
    vms: int = 1
    checked_every: int = 1
    loads: int = 1

    def __str__(self) -> str:
        return f"{self.name} {self.size}" + (f", {self.vms} at once" if self.vms > 1 else "")

    def starts(self) -> tuple[tuple[EngineRow, int], ...]:
        """Give the engines, and the rounds before which their guests are booted."""
        return tuple(
            (row, cycle) for row in self.engines for cycle in range(self.cycles)
            if self.started_in(row, cycle) == cycle
        )

    def turns(self, *, has_room: bool) -> tuple[tuple[EngineRow, int], ...]:
        """Give engines and rounds in their order; without room for all guests each has its rounds in one go."""
        if not has_room:
            return tuple((row, cycle) for row in self.engines for cycle in range(0, self.cycles, row.every))
        # There and back: who follows whom decides about the memory that a save finds.
        return tuple(
            (row, cycle) for cycle in range(self.cycles) for row in self.engines[::-1 if cycle % 2 else 1]
            if cycle % row.every == 0
        )

    def saved_in(self, cycle: int) -> int:
        """Give the round in which the snapshot was saved that is loaded in this one."""
        return cycle - cycle % self.loads

    def started_in(self, row: EngineRow, cycle: int) -> int:
        """Give the round before which the engine's guest was booted that it has in this one.

        A guest that is booted anew is so in a round that saves.
        """
        if row.boots_every is None:
            return 0
        between = math.ceil(row.boots_every / self.loads) * self.loads
        return cycle - cycle % between

    def end_after(self, sample: Sample) -> int:
        """Give the round before which its engine is done: early where it failed, lost something, or is slow."""
        if sample.error is not None or sample.lost or (sample.load_s or 0.0) > SLOW_S:
            return sample.cycle + 1
        if (sample.save_s or 0.0) + (sample.load_s or 0.0) > SLOW_S:
            return min(self.saved_in(sample.cycle) + self.loads, self.cycles)
        return self.cycles

    def turns_wanted(self, samples: Sequence[Sample]) -> int:
        """Count the turns of all engines, those that these samples make needless left out."""
        ends = dict.fromkeys((row.name for row in self.engines), self.cycles)
        for sample in samples:
            ends[sample.engine] = min(ends[sample.engine], self.end_after(sample))
        return sum(cycle < ends[row.name] for row, cycle in self.turns(has_room=True))

    def needs_mib(self) -> int:
        """Estimate the memory of the host that all engines' guests take when none is ended between its turns.

        A guest's pages and QEMU's own for each, and the page cache of a snapshot under way.
        """
        guests = len(self.starts()) * self.vms
        return guests * (self.size.resident_mib + 200) + 3 * self.size.resident_mib * self.vms


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Read `2048:512,6144:4096`; UsageError where it is no such list."""
    sizes = []
    for part in filter(None, text.split(",")):
        memory, colon, resident = part.strip().partition(":")
        if not (colon and memory.isdigit() and resident.isdigit()):
            raise UsageError(f"{part}: it is not MEMORY:RESIDENT in MiB", hint="as in 2048:512,6144:4096")
        size = Size(memory_mib=int(memory), resident_mib=int(resident))
        if size.resident_mib > size.memory_mib * 0.8:
            raise UsageError(f"{part}: the guest cannot hold so much", hint="RESIDENT may be 80 % of MEMORY")
        sizes.append(size)
    return tuple(sizes)


def parse_numbers(text: str) -> tuple[int, ...]:
    """Read `1,4,8`; UsageError where it is no list of numbers above 0."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{text}: it is not a list of numbers", hint="as in 1,4,8")
    return tuple(int(part) for part in parts)


def choose(rows: Sequence[EngineRow], names: Sequence[str]) -> tuple[EngineRow, ...]:
    """Give the rows of these names, all where there is none; UsageError for a name that no row has."""
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no engine {name}", hint=f"there are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else tuple(rows)


def plan_scenarios(
    engines: Sequence[EngineRow], *, size: Size, rounds: int, sizes: Sequence[Size], cycles: int,
    parallel: Sequence[int], small: Size, loads: int = 1,
) -> tuple[Scenario, ...]:
    """Plan a run: all engines at one size, then those that are for it over cycles, sizes and numbers of guests.

    At those sizes it is saved in one round of `loads`; guests that hold much, whose saves take long, in the first.
    """
    rows: dict[ScenarioName, tuple[EngineRow, ...]] = {
        name: tuple(row for row in engines if name in row.scenarios) for name in get_args(ScenarioName)
    }
    found = [Scenario(name="engines", engines=rows["engines"], size=size, cycles=rounds)]
    if cycles:
        found.append(Scenario(name="cycles", engines=rows["cycles"], size=small, cycles=cycles, checked_every=10))
    found += [
        Scenario(name="sizes", engines=rows["sizes"], size=each, cycles=rounds,
                 loads=rounds if each.resident_mib >= MUCH_MIB else loads)
        for each in sizes
    ]
    found += [
        # Each guest gives a sample, so that many need few rounds.
        Scenario(name="parallel", engines=rows["parallel"], size=small, cycles=2 if vms < 4 else 1, vms=vms)
        for vms in parallel
    ]
    return tuple(scenario for scenario in found if scenario.engines)
