"""A request becomes a run: the engines that this host has, the scenarios, the samples, files with a report."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from virtsnap.bench.charts import draw_charts
from virtsnap.bench.engines import EngineRow, Surroundings
from virtsnap.bench.guest import Guest
from virtsnap.bench.measure import run_scenario
from virtsnap.bench.report import markdown, title
from virtsnap.bench.results import Place, Results, contenders_of, results_to_plain
from virtsnap.bench.samples import Sample
from virtsnap.bench.scenarios import Scenario
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host import connect
from virtsnap.host import machine_facts as facts
from virtsnap.host.pauses import PauseWatch


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who is told how a run goes on: before each turn (scenario, engine), and after each sample."""

    turn: Callable[[Scenario, str], None]
    sample: Callable[[Sample], None]


def run_bench(
    rows: Sequence[EngineRow], guest: Guest, uri: str | None, directory: Path,
    plan: Callable[[Sequence[EngineRow]], Sequence[Scenario]], watcher: Watcher, *, minutes: float | None = None,
) -> Results:
    """Measure the engines of `rows` that this host can run, in the scenarios that `plan` makes of them.

    After so many minutes no further turn begins; the rounds being interleaved, what there is stays comparable.
    Guests and snapshots are in a folder of their own in `directory`, which is removed at the end.
    On failure: UnsupportedError for a hypervisor on another machine, and where no engine is left; a single
    engine that fails leaves its error among the samples.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    watch = PauseWatch(uri)  # before any other connection
    try:
        with connect(uri) as host:
            if not host.is_local:
                raise UnsupportedError(f"{host.uri}: the bench needs the hypervisor's files on this machine")
            version = host.libvirt_version
        here = Surroundings(uri=uri, libvirt=version, qemu=facts.qemu_version(guest.words[0]), watch=watch)
        able = [row for row in rows if row.why_not(here) is None]
        if not able:
            raise UnsupportedError("none of these engines can run here: " + "; ".join(
                f"{row.name} {row.why_not(here)}" for row in rows
            ))
        place = Place(
            system=facts.system(), processor=facts.processor(), memory_mib=facts.total_mib(), libvirt=here.libvirt,
            qemu=here.qemu, accelerator=guest.accel, file_system=facts.file_system(directory),
            begun_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        samples: list[Sample] = []
        missing: list[str] = []
        with tempfile.TemporaryDirectory(prefix="virtsnap-bench-", dir=directory) as folder:
            Path(folder).chmod(0o711)  # QEMU's user passes through
            for scenario in plan(able):
                there: list[Sample] = []
                for sample in run_scenario(
                    scenario, here, guest, Path(folder), progress=partial(watcher.turn, scenario),
                    is_over=lambda: deadline is not None and time.monotonic() > deadline,
                ):
                    there.append(sample)
                    watcher.sample(sample)
                samples += there
                done = len({(each.engine, each.cycle) for each in there})
                wanted = scenario.turns_wanted(there)
                if deadline is not None and time.monotonic() > deadline and done < wanted:
                    missing.append(f"{scenario}: {done} of {wanted} turns")
    finally:
        watch.close()
    return Results(place=place, contenders=contenders_of(rows, here), samples=tuple(samples),
                   missing=tuple(missing))


def write_files(results: Results, folder: Path, *, with_charts: bool) -> tuple[Path, ...]:
    """Write samples.json, report.md and the charts into a folder; give their paths.

    The charts' names begin with the versions, so that the reports of several hosts can lie side by side.
    """
    try:
        images = folder / "images"
        images.mkdir(parents=True, exist_ok=True)
        (folder / "samples.json").write_text(json.dumps(results_to_plain(results), indent=1) + "\n")
        prefix = "bench-" + re.sub(r"[^a-z0-9.]+", "-", title(results).lower())
        charts = draw_charts(results, images, prefix=prefix) if with_charts else ()
        (folder / "report.md").write_text(markdown(results, charts=charts, prefix=f"images/{prefix}"))
    except OSError as exc:
        raise HypervisorError(f"{folder}: {exc.strerror}", hint="choose another place with --output") from exc
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
