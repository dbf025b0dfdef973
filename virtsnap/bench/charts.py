"""Results become charts, each as PNG and SVG: needs matplotlib (the extra `bench`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from virtsnap.bench.engines import Kind
from virtsnap.bench.results import FIGURES, Contender, Results
from virtsnap.bench.samples import good
from virtsnap.errors import UsageError

_COLOURS: Mapping[Kind, str] = {
    "virtsnap": "#1b7f4d", "libvirt": "#3b6fb6", "raw QMP": "#c8651b", "internal": "#8a8a8a",
}
_LINES = ("#1b7f4d", "#7fc49f", "#0b3d25", "#3b6fb6", "#9dbce4", "#c8651b", "#e9b184", "#6b3a11", "#8a8a8a")


def require_matplotlib() -> None:
    """Raise UsageError where charts cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as exc:
        raise UsageError("charts need matplotlib", hint="pip install 'virtsnap[bench]', or --no-charts") from exc


def draw_charts(results: Results, folder: Path, *, prefix: str) -> tuple[str, ...]:
    """Draw what there are samples for as PREFIX-NAME.png and .svg; give the names."""
    import matplotlib

    matplotlib.use("Agg")
    # The same samples give the same file, and text stays text, which keeps an SVG small.
    matplotlib.rcParams.update({
        "svg.hashsalt": "virtsnap", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False,
    })
    import matplotlib.pyplot as plt

    drawn = []
    for name, draw in _DRAWERS.items():
        figure = draw(results, plt)
        if figure is None:
            continue
        figure.tight_layout()
        figure.savefig(folder / f"{prefix}-{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{prefix}-{name}.png", dpi=110)
        plt.close(figure)
        drawn.append(name)
    return tuple(drawn)


def _engines(results: Results, plt: Any) -> Any:
    contenders = [
        each for each in results.measured("engines") if results.summary("engines", each.name, "answer_s")
    ]
    if not contenders:
        return None
    figure, axes = plt.subplots(1, 3, sharey=True, figsize=(9, 1.2 + 0.28 * len(contenders)))
    for axis, what in zip(axes, ("save_s", "pause_s", "answer_s"), strict=True):
        for place, contender in enumerate(contenders):
            found = results.summary("engines", contender.name, what)
            if found is not None:
                axis.barh(place, found.middle, color=_COLOURS[contender.kind], height=0.65)
                axis.plot([found.least, found.most], [place, place], color="black", linewidth=1)
                axis.annotate(f" {found.middle:.2f}", (found.most, place), va="center", fontsize=7)
        axis.set_xlabel(f"{FIGURES[what]}, s")
        axis.margins(x=0.18)
        axis.set_xlim(left=0)
    axes[0].set_yticks(range(len(contenders)), [each.name for each in contenders])
    axes[0].invert_yaxis()
    return figure


def _sizes(results: Results, plt: Any) -> Any:
    sizes, contenders = results.sizes("sizes"), results.measured("sizes")
    if not sizes:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, what in zip(axes, ("pause_s", "answer_s"), strict=True):
        for contender, colour in _coloured(contenders):
            points = [
                (place, found.middle) for place, size in enumerate(sizes)
                if (found := results.summary("sizes", contender.name, what, size=size)) is not None
            ]
            axis.plot(*zip(*points, strict=True), "o-", color=colour, label=contender.name) if points else None
        axis.set_yscale("log")
        axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axis.set_ylabel(f"{FIGURES[what]}, s")
    axes[1].legend(fontsize=7, frameon=False)
    return figure


def _cycles(results: Results, plt: Any) -> Any:
    contenders = results.measured("cycles")
    if not contenders:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, what in zip(axes, ("save_s", "answer_s"), strict=True):
        for contender, colour in _coloured(contenders):
            found = good(results.of("cycles", contender.name))
            axis.plot([each.cycle for each in found], [getattr(each, what) for each in found], ".", color=colour,
                      label=contender.name)
        axis.set_xlabel("cycle")
        axis.set_ylabel(f"{FIGURES[what]}, s")
        axis.set_ylim(bottom=0)
    axes[1].legend(fontsize=7, frameon=False)
    return figure


def _parallel(results: Results, plt: Any) -> Any:
    contenders = results.measured("parallel")
    counts = sorted({each.vms for each in results.samples if each.scenario == "parallel"})
    if not contenders:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, what in zip(axes, ("save_s", "answer_s"), strict=True):
        for contender, colour in _coloured(contenders):
            points = [
                (count, found.middle) for count in counts
                if (found := results.summary("parallel", contender.name, what, vms=count)) is not None
            ]
            axis.plot(*zip(*points, strict=True), "o-", color=colour, label=contender.name) if points else None
        axis.set_xticks(counts)
        axis.set_xlabel("guests at once")
        axis.set_ylabel(f"{FIGURES[what]}, s")
        axis.set_ylim(bottom=0)
    axes[1].legend(fontsize=7, frameon=False)
    return figure


def _phases(results: Results, plt: Any) -> Any:
    rows = []
    for contender in results.measured("engines"):
        found = [each for each in good(results.of("engines", contender.name)) if each.load_phases_s]
        if found:
            names = dict.fromkeys(name for each in found for name in each.load_phases_s)
            rows.append((contender.name, {
                name: median(each.load_phases_s.get(name, 0.0) for each in found) for name in names
            }))
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(9, 1.3 + 0.45 * len(rows)))
    known = list(dict.fromkeys(name for _, phases in rows for name in phases))
    for place, (_, phases) in enumerate(rows):
        left = 0.0
        for name, seconds in phases.items():
            axis.barh(place, seconds * 1000, left=left, color=_LINES[known.index(name) % len(_LINES)], height=0.6,
                      label=name if name not in [text.get_label() for text in axis.containers] else None)
            left += seconds * 1000
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.invert_yaxis()
    axis.set_xlabel("load, ms")
    handles = [plt.Rectangle((0, 0), 1, 1, color=_LINES[place % len(_LINES)]) for place in range(len(known))]
    axis.legend(handles, known, fontsize=7, frameon=False, ncols=len(known), loc="lower center",
                bbox_to_anchor=(0.5, 1.0))
    return figure


def _coloured(contenders: list[Contender]) -> list[tuple[Contender, str]]:
    return [(each, _LINES[place % len(_LINES)]) for place, each in enumerate(contenders)]


_DRAWERS: Mapping[str, Callable[[Results, Any], Any]] = {
    "engines": _engines, "sizes": _sizes, "cycles": _cycles, "parallel": _parallel, "phases": _phases,
}
