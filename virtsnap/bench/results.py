"""Samples, engines and the machine they were taken on: all that a report is made of, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from virtsnap.bench.engines import EngineRow, Kind, Surroundings, Version
from virtsnap.bench.samples import SCHEMA, Sample, from_plain, good, to_plain
from virtsnap.bench.scenarios import Size
from virtsnap.bench.statistics import Summary, summarize

FIGURES: Mapping[str, str] = {
    "save_s": "save",
    "pause_s": "guest paused",
    "silence_s": "guest silent",
    "load_s": "load call",
    "answer_s": "load to first answer",
    "written_bytes": "written",
    "space_bytes": "disk space",
}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What a reader has to know of an engine: `why_not` says why it was not measured."""

    name: str
    title: str
    kind: Kind
    polls: bool
    why_not: str | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it was measured. `begun_at` is a date and time of day."""

    system: str
    processor: str
    memory_mib: int
    libvirt: Version
    qemu: Version
    accelerator: str
    file_system: str
    begun_at: str

    @property
    def has_reflinks(self) -> bool:
        """Say whether files can share their blocks there."""
        return self.file_system.endswith("with reflinks")


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole run. `missing` says what there was no time for."""

    place: Place
    contenders: tuple[Contender, ...]
    samples: tuple[Sample, ...]
    missing: tuple[str, ...] = ()

    def of(self, scenario: str, engine: str, *, size: Size | None = None, vms: int | None = None) -> list[Sample]:
        """Give the samples of an engine in a scenario."""
        return [
            sample for sample in self.samples
            if sample.scenario == scenario and sample.engine == engine
            and (size is None or (sample.memory_mib, sample.resident_mib) == (size.memory_mib, size.resident_mib))
            and (vms is None or sample.vms == vms)
        ]

    def summary(
        self, scenario: str, engine: str, figure: str, *, size: Size | None = None, vms: int | None = None
    ) -> Summary | None:
        """Sum up a figure; what lost data or failed does not count."""
        found = good(self.of(scenario, engine, size=size, vms=vms))
        return summarize([getattr(sample, figure) for sample in found])

    def over_cycles(self, engine: str, figure: str) -> dict[int, float]:
        """Give a figure of the scenario "cycles" by the cycle's number, in their order."""
        found = sorted(good(self.of("cycles", engine)), key=lambda sample: sample.cycle)
        return {
            sample.cycle: value for sample in found if (value := getattr(sample, figure)) is not None
        }

    def measured(self, scenario: str) -> list[Contender]:
        """Give those that have samples in a scenario, in the table's order."""
        names = {sample.engine for sample in self.samples if sample.scenario == scenario}
        return [contender for contender in self.contenders if contender.name in names]

    def sizes(self, scenario: str) -> list[Size]:
        """Give the sizes of a scenario in the order of the run."""
        return list(dict.fromkeys(
            Size(memory_mib=sample.memory_mib, resident_mib=sample.resident_mib)
            for sample in self.samples if sample.scenario == scenario
        ))

    def size_of_the_comparison(self) -> Size | None:
        """Give the size at which all engines were compared."""
        return next(iter(self.sizes("engines")), None)


def contenders_of(rows: Sequence[EngineRow], here: Surroundings) -> tuple[Contender, ...]:
    """Describe engines for the reader."""
    return tuple(
        Contender(name=row.name, title=row.title, kind=row.kind, polls=row.polls, why_not=row.why_not(here))
        for row in rows
    )


def results_to_plain(results: Results) -> dict[str, Any]:
    """Give results for JSON."""
    return {
        "schema": SCHEMA, "place": asdict(results.place),
        "engines": [asdict(contender) for contender in results.contenders],
        "samples": [to_plain(sample) for sample in results.samples], "missing": list(results.missing),
    }


def results_from_plain(plain: Mapping[str, Any]) -> Results:
    """Read results back."""
    place = dict(plain["place"])
    return Results(
        place=Place(**{**place, "libvirt": tuple(place["libvirt"]), "qemu": tuple(place["qemu"])}),
        contenders=tuple(Contender(**each) for each in plain["engines"]),
        samples=tuple(from_plain(each) for each in plain["samples"]), missing=tuple(plain.get("missing", ())),
    )
