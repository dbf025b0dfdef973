"""What one save and load showed: a `Sample`, to JSON and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One cycle of one engine on one guest; None is what was not reached.

    save_s      the call
    pause_s     from QEMU's STOP to its RESUME, by QEMU's clock, summed up over the save
    silence_s   the longest time without the guest's pulse around the save: as its peers see the pause
    load_s      the call
    answer_s    from the beginning of the load to the guest's first answer on its second serial line
    space_bytes    what the guest's folder took more on disk after the save (shared extents count)
    written_bytes  what the whole machine wrote to its disks for it, synced before and after
    lost        what was not as it was saved after the load: RAM, disk
    error       why there is no more; then the engine is not asked again in that scenario

    Where a snapshot is loaded in several cycles, the save's figures are in the first of them.
    """

    scenario: str
    engine: str
    memory_mib: int
    resident_mib: int
    vms: int
    vm: int
    cycle: int
    save_s: float | None = None
    pause_s: float | None = None
    silence_s: float | None = None
    load_s: float | None = None
    answer_s: float | None = None
    space_bytes: int | None = None
    written_bytes: int | None = None
    lost: tuple[str, ...] = ()
    error: str | None = None
    save_phases_s: Mapping[str, float] = field(default_factory=dict)
    load_phases_s: Mapping[str, float] = field(default_factory=dict)


def to_plain(sample: Sample) -> dict[str, Any]:
    """Give a sample for JSON."""
    return {
        name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(sample).items()
    }


def from_plain(plain: Mapping[str, Any]) -> Sample:
    """Read a sample back."""
    known = {each.name for each in fields(Sample)}
    values = {name: value for name, value in plain.items() if name in known}
    return Sample(**{**values, "lost": tuple(values.get("lost", ()))})


def good(samples: Iterable[Sample]) -> list[Sample]:
    """Give those that were saves and loads indeed: no error, nothing lost."""
    return [sample for sample in samples if sample.error is None and not sample.lost]
