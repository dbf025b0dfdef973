"""The verb `bench`: one guest and one workload through every way to save and load, compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from virtsnap.bench import run
from virtsnap.bench.charts import require_matplotlib
from virtsnap.bench.engines import engine_rows
from virtsnap.bench.goals import judge
from virtsnap.bench.guest import Guest, built_in_guest, guest_from_words
from virtsnap.bench.report import cell
from virtsnap.bench.results import FIGURES, Results, results_to_plain
from virtsnap.bench.samples import Sample
from virtsnap.bench.scenarios import Scenario, Size, choose, parse_numbers, parse_sizes, plan_scenarios
from virtsnap.cli.answer import answer, print_json
from virtsnap.cli.command_source import CommandLineCommand, read_one, words_after_dashes
from virtsnap.cli.main import Settings, end_in_order
from virtsnap.cli.snapshot_verbs import refuse_readonly
from virtsnap.errors import UsageError

_existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(cls=CommandLineCommand)
@click.option("--kernel", type=_existing, help="The guest's kernel, for the built-in machine.")
@click.option("--initrd", type=_existing, help="Its initial RAM disk.")
@click.option("--append", default="console=ttyS0 quiet", show_default=True, help="Its kernel's command line.")
@click.option("--disk", type=_existing, required=True, help="The image below the guests' overlays; only read.")
@click.option("--accel", type=click.Choice(["kvm", "tcg"]), default="tcg", show_default=True,
              help="How the guest runs.")
@click.option("--in-ram", default="/ram", show_default=True, metavar="FOLDER",
              help="A tmpfs in the guest, which is filled.")
@click.option("--on-disk", default="/mnt", show_default=True, metavar="FOLDER",
              help="Where the guest has mounted the disk.")
@click.option("--engine", "engines", multiple=True, metavar="NAME",
              help="Measure this engine; may be given again. Default: all that this host can run.")
@click.option("--size", default="2048:512", show_default=True, metavar="MIB:MIB",
              help="RAM and how much of it is filled, for the comparison of all engines.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True,
              help="How often each engine saves and loads in the comparison.")
@click.option("--sizes", default="", metavar="LIST", help="More sizes, for the quick engines: 1024:512,6144:4096.")
@click.option("--loads", type=click.IntRange(min=1), default=1, show_default=True,
              help="At --sizes, save in one round of so many and load in all; 2 GiB and more are saved once.")
@click.option("--cycles", type=click.IntRange(min=0), default=0, show_default=True,
              help="Saves and loads in a row by restore, in turn with a guest booted anew now and then.")
@click.option("--parallel", default="", metavar="LIST", help="Numbers of guests at the same time: 1,4,8.")
@click.option("--small", default="256:64", show_default=True, metavar="MIB:MIB",
              help="The size for --cycles and --parallel.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True),
              help="Begin nothing more after so long; what was measured until then is told.")
@click.option("--dir", "directory", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Where guests and snapshots lie meanwhile; default: the current folder.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write samples.json, report.md and charts there.")
@click.option("--charts/--no-charts", default=True, show_default=True, help="Draw them; needs matplotlib.")
@click.argument("files", nargs=-1, metavar="[FILE | -]")
@click.pass_obj
def bench(
    settings: Settings, kernel: Path | None, initrd: Path | None, append: str, disk: Path, accel: str,
    in_ram: str, on_disk: str, engines: tuple[str, ...], size: str, rounds: int, sizes: str, loads: int,
    cycles: int, parallel: str, small: str, minutes: float | None, directory: Path, output: Path | None,
    charts: bool, files: tuple[str, ...],
) -> int:
    """Save and load the same guest in every way, in turn, and compare.

    The guest is a plain machine around --kernel and --initrd, or a QEMU command line (FILE, `-`, or the
    words after `--`) with the holes {memory_mib}, {disk}, {serial} and {pulse}. On its first serial line
    it answers commands as virtsnap's test guest does; the second one is its pulse.
    After each load, what was in RAM and on disk is compared: an engine that loses data is named.
    The exit code is 1 where one of virtsnap's own engines failed or lost data.
    """
    refuse_readonly(settings)
    guest = _guest(kernel, initrd, append, disk, accel, in_ram, on_disk, files)
    if output is not None and charts:
        require_matplotlib()
    chosen = choose(engine_rows(), engines)
    more, counts = parse_sizes(sizes), parse_numbers(parallel)
    usual, little = _one(size), _one(small)
    end_in_order()
    with _progress(settings) as watcher:
        results = run.run_bench(
            chosen, guest, settings.uri, directory.absolute(),
            lambda able: plan_scenarios(able, size=usual, rounds=rounds, sizes=more, loads=loads, cycles=cycles,
                                        parallel=counts, small=little),
            watcher, minutes=minutes,
        )
    written = () if output is None else run.write_files(results, output, with_charts=charts)
    if settings.json:
        print_json(answer("bench", **results_to_plain(results), files=[str(path) for path in written]))
    else:
        _print(results)
        if output is not None:
            click.echo(f"written: {output}/report.md and {len(written) - 1} more files")
    own = {row.name for row in chosen if row.kind == "virtsnap"}
    return int(any(sample.engine in own and (sample.lost or sample.error) for sample in results.samples))


def _guest(
    kernel: Path | None, initrd: Path | None, append: str, disk: Path, accel: str, in_ram: str, on_disk: str,
    files: Sequence[str],
) -> Guest:
    has_words = bool(files) or words_after_dashes() is not None
    if has_words and (kernel or initrd):
        raise UsageError("--kernel and a command line exclude each other", hint="give one of them")
    if has_words:
        words = read_one(files).words.argv
        return guest_from_words(words, disk=disk.absolute(), accel=accel, in_ram=in_ram, on_disk=on_disk)
    if kernel is None or initrd is None:
        raise UsageError("no guest was given", hint="--kernel and --initrd, or a QEMU command line with holes")
    return built_in_guest(kernel=kernel.absolute(), initrd=initrd.absolute(), disk=disk.absolute(), append=append,
                          accel=accel, in_ram=in_ram, on_disk=on_disk)


def _one(text: str) -> Size:
    sizes = parse_sizes(text)
    if len(sizes) != 1:
        raise UsageError(f"{text}: one size is wanted here", hint="as in 2048:512")
    return sizes[0]


@contextmanager
def _progress(settings: Settings) -> Iterator[run.Watcher]:
    """Show on stderr what is measured, and what came out last; with --quiet nothing."""
    from rich.console import Console

    if settings.quiet:
        yield run.Watcher(turn=lambda _scenario, _engine: None, sample=lambda _sample: None)
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("") as status:
        def turn(scenario: Scenario, engine: str) -> None:
            status.update(f"{scenario}: {engine}")

        def sample(found: Sample) -> None:
            if found.vm == 0:
                console.print(_line(found), markup=False)

        yield run.Watcher(turn=turn, sample=sample)


def _line(sample: Sample) -> str:
    head = f"{sample.scenario} {sample.memory_mib}:{sample.resident_mib} {sample.cycle + 1:3d} {sample.engine:22}"
    if sample.error is not None:
        return f"{head} failed: {sample.error}"
    told = f"{head} save {_s(sample.save_s)}  paused {_s(sample.pause_s)}  load to answer {_s(sample.answer_s)}"
    return told + (f"  LOST: {', '.join(sample.lost)}" if sample.lost else "")


def _s(seconds: float | None) -> str:
    return "   –  " if seconds is None else f"{seconds:5.2f} s"


def _print(results: Results) -> None:
    from rich.console import Console
    from rich.table import Table

    place = results.place
    terminal = Console(highlight=False, markup=False)
    # A log file has no width to ask for.
    console = terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=150)
    size = results.size_of_the_comparison()
    shown = Table(
        "engine", *FIGURES.values(), "after the load", box=None, pad_edge=False, title_justify="left",
        title=f"libvirt {'.'.join(map(str, place.libvirt))}, QEMU {'.'.join(map(str, place.qemu))}, "
              f"{place.accelerator}, {place.file_system}; {size} MiB; medians in seconds",
    )
    for contender in results.measured("engines"):
        samples = results.of("engines", contender.name)
        lost = sorted({part for sample in samples for part in sample.lost})
        failed = any(sample.error for sample in samples)
        shown.add_row(
            contender.name,
            *(cell(results.summary("engines", contender.name, each), each, spread=False) for each in FIGURES),
            f"LOST {', '.join(lost)}" if lost else "failed" if failed else "all there",
            style="red" if lost or failed else None,
        )
    console.print(shown)
    goals = Table("ratio of medians", "goal", "found", "", box=None, pad_edge=False, title="Goals",
                  title_justify="left")
    for each in judge(results):
        goals.add_row(each.what, f"≤ {each.limit:.2f}", "–" if each.found is None else f"{each.found:.2f}",
                      each.verdict, style={"met": "green", "not met": "red"}.get(each.verdict))
    console.print(goals)
    for text in results.missing:
        console.print(f"no time for {text}")
    for contender in results.contenders:
        if contender.why_not is not None:
            console.print(f"not here: {contender.name} {contender.why_not}")


