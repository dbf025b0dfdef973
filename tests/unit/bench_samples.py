"""Results of a run that never was, for tests of what is made of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from virtsnap.bench.results import Contender, Place, Results
from virtsnap.bench.samples import Sample

PLACE = Place(
    system="Debian", processor="2 × a processor", memory_mib=8000, libvirt=(9, 0), qemu=(7, 2), accelerator="tcg",
    file_system="ext4, without reflinks", begun_at="2026-01-02 03:04 UTC",
)

CONTENDERS = (
    Contender(name="restore", title="virtsnap, engine restore", kind="virtsnap", polls=False, why_not=None),
    Contender(name="libvirt-restore", title="bare calls", kind="libvirt", polls=False, why_not=None),
    Contender(name="virsh-save", title="virsh save", kind="libvirt", polls=False, why_not=None),
    Contender(name="native", title="virtsnap, engine native", kind="virtsnap", polls=False,
              why_not="needs libvirt 9.9"),
)


def cycles(
    engine: str, answers_s: Sequence[float], *, scenario: str = "engines", memory_mib: int = 2048,
    resident_mib: int = 512, save_s: float = 1.0, vms: int = 1,
) -> tuple[Sample, ...]:
    """Give a sample for each time to the first answer."""
    return tuple(
        Sample(scenario=scenario, engine=engine, memory_mib=memory_mib, resident_mib=resident_mib, vms=vms, vm=0,
               cycle=cycle, save_s=save_s, pause_s=save_s / 2, silence_s=save_s / 2, load_s=answer_s,
               answer_s=answer_s, space_bytes=5_000_000, written_bytes=6_000_000)
        for cycle, answer_s in enumerate(answers_s)
    )


def results(*samples: Sample, place: Place = PLACE) -> Results:
    """Give results of these samples."""
    return Results(place=place, contenders=CONTENDERS, samples=samples)


def losing(sample: Sample, *parts: str) -> Sample:
    """Give a sample after whose load `parts` were not as they were saved."""
    return replace(sample, lost=parts)
