"""Results become a Markdown report: where, goals, tables, what lost data, what could not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from virtsnap.bench.goals import Judged, judge
from virtsnap.bench.results import FIGURES, Results
from virtsnap.bench.samples import Sample
from virtsnap.bench.statistics import Summary, growth

# Charts, by the name of their file, and what to say under them; `charts` draws those for which there are samples.
CHARTS: Mapping[str, str] = {
    "engines": "Every engine at one size; the bar is the median, the line reaches from the least to the greatest.",
    "sizes": "The same by RAM : resident, in MiB; the scale is logarithmic.",
    "cycles": "Guests saved and loaded again and again: a dot for each cycle.",
    "parallel": "Several guests saved and loaded at the same time: the median of all.",
    "phases": "Where the time of a load goes, by virtsnap's engines: medians of the phases of `load --json`.",
}


def markdown(results: Results, *, charts: Sequence[str], prefix: str) -> str:
    """Write the report. `charts` were drawn as PREFIX-NAME.svg, a path from the report on."""
    parts = [_heading(results), _goals(judge(results)), _comparison(results), _picture("engines", charts, prefix)]
    parts += [_lost(results)]
    if results.sizes("sizes"):
        parts += ["### By size", _by_size(results, "answer_s"), _by_size(results, "pause_s"),
                  _picture("sizes", charts, prefix)]
    if results.measured("cycles"):
        parts += ["### Again and again", _cycles(results), _picture("cycles", charts, prefix)]
    if results.measured("parallel"):
        parts += ["### Several guests at once", _parallel(results), _picture("parallel", charts, prefix)]
    parts += ["### Where a load's time goes" if "phases" in charts else "", _picture("phases", charts, prefix),
              _not_measured(results), _missing(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(results: Results) -> str:
    place = results.place
    facts = (
        f"libvirt {_version(place.libvirt)}, QEMU {_version(place.qemu)}, {place.accelerator.upper()}",
        place.system, f"{place.processor}, {place.memory_mib} MiB", place.file_system, place.begun_at,
    )
    return f"## {title(results)}\n\nMeasured on: {'; '.join(facts)}."


def title(results: Results) -> str:
    """Name a run by what two runs on one machine differ in."""
    place = results.place
    where = f" on {place.file_system.partition(',')[0]}" if place.has_reflinks else ""
    return f"libvirt {_version(place.libvirt)}, QEMU {_version(place.qemu)}{where}"


def _goals(judged: Sequence[Judged]) -> str:
    rows = [
        (each.what, f"≤ {each.limit:.2f}", "–" if each.found is None else f"{each.found:.2f}", _mark(each.verdict))
        for each in judged
    ]
    return "### Goals\n\n" + table(("ratio of medians", "goal", "found", ""), rows)


def _mark(verdict: str) -> str:
    return f"**{verdict}**" if verdict == "not met" else verdict


def _comparison(results: Results) -> str:
    size = results.size_of_the_comparison()
    if size is None:
        return ""
    rows = []
    for contender in results.measured("engines"):
        cells = [
            cell(results.summary("engines", contender.name, figure, size=size), figure) for figure in FIGURES
        ]
        rows.append((contender.name, contender.title, *cells, _kept(results.of("engines", contender.name))))
    rounds = max((sample.cycle for sample in results.samples if sample.scenario == "engines"), default=0) + 1
    return (
        f"### Every engine, {size.memory_mib} MiB with {size.resident_mib} MiB resident\n\n"
        f"Medians of up to {rounds} rounds, with the least and the greatest; times in seconds.\n\n"
        + table(("engine", "what it is", *FIGURES.values(), "after the load"), rows)
    )


def _kept(samples: Sequence[Sample]) -> str:
    lost = sorted({part for sample in samples for part in sample.lost})
    if lost:
        return f"**lost: {', '.join(lost)}**"
    return "**failed**" if any(sample.error for sample in samples) else "all there"


def _lost(results: Results) -> str:
    lines = []
    for contender in results.contenders:
        samples = [sample for sample in results.samples if sample.engine == contender.name]
        lost = [sample for sample in samples if sample.lost]
        if lost:
            what = sorted({part for sample in lost for part in sample.lost})
            lines.append(
                f"- `{contender.name}`: {len(lost)} of {len(samples)} loads did not bring back "
                f"{' and '.join(what)}. Its times are left out: it did something else."
            )
        lines += [
            f"- `{contender.name}` ({sample.scenario}, {sample.memory_mib} MiB, cycle {sample.cycle}) "
            f"failed: {sample.error}" for sample in samples if sample.error is not None and sample.vm == 0
        ]
    return "### What lost data, and what failed\n\n" + "\n".join(lines) if lines else ""


def _by_size(results: Results, figure: str) -> str:
    sizes = results.sizes("sizes")
    rows = [
        (contender.name, *(
            cell(results.summary("sizes", contender.name, figure, size=size), figure) for size in sizes
        ))
        for contender in results.measured("sizes")
    ]
    return table((f"{FIGURES[figure]} by MiB of RAM : resident", *(str(size) for size in sizes)), rows)


def _cycles(results: Results) -> str:
    rows = []
    for contender in results.measured("cycles"):
        for figure in ("save_s", "answer_s"):
            values = list(results.over_cycles(contender.name, figure).values())
            grown = growth(values)
            rows.append((
                contender.name, FIGURES[figure], str(len(values)),
                cell(results.summary("cycles", contender.name, figure), figure),
                "–" if grown is None else f"{grown:+.0%}",
            ))
    return table(("engine", "", "cycles", "median", "growth from first to last"), rows)


def _parallel(results: Results) -> str:
    counts = sorted({sample.vms for sample in results.samples if sample.scenario == "parallel"})
    rows = [
        (contender.name, FIGURES[figure], *(
            cell(results.summary("parallel", contender.name, figure, vms=count), figure) for count in counts
        ))
        for contender in results.measured("parallel") for figure in ("save_s", "answer_s")
    ]
    return table(("engine", "", *(f"{count} at once" for count in counts)), rows)


def _not_measured(results: Results) -> str:
    rows = [(each.name, each.title, each.why_not) for each in results.contenders if each.why_not is not None]
    return "### Not on this host\n\n" + table(("engine", "what it is", "why"), rows) if rows else ""


def _missing(results: Results) -> str:
    return "Not finished for want of time: " + "; ".join(results.missing) + "." if results.missing else ""


def _picture(name: str, charts: Sequence[str], prefix: str) -> str:
    return f"![{CHARTS[name]}]({prefix}-{name}.svg)\n\n{CHARTS[name]}" if name in charts else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    """Write a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join((text or "").replace("|", "\\|") for text in row) + " |" for row in rows]
    return "\n".join(lines)


def cell(summary: Summary | None, figure: str, *, spread: bool = True) -> str:
    """Write a median, with its spread where there are several: seconds, or bytes in MB."""
    if summary is None:
        return "–"
    if figure.endswith("_bytes"):
        return f"{summary.middle / 1e6:.0f} MB"
    if summary.count == 1 or not spread:
        return f"{summary.middle:.2f}"
    return f"{summary.middle:.2f} ({summary.least:.2f}–{summary.most:.2f})"




def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
