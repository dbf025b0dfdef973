"""Results become a report, a table and charts; losses are shown as plainly as wins."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.guest.build import CHECKOUT
from tests.unit.bench_samples import PLACE, cycles, losing, results
from virtsnap.bench.charts import draw_charts
from virtsnap.bench.report import CHARTS, cell, markdown, table, title
from virtsnap.bench.run import write_files
from virtsnap.bench.statistics import summarize

PASTE = CHECKOUT / "tools" / "paste-reports"
RUN = results(
    *cycles("restore", [0.5, 0.6, 0.7]), *cycles("libvirt-restore", [0.6]),
    *(losing(each, "disk") for each in cycles("virsh-save", [0.2, 0.3])),
    *cycles("restore", [0.5] * 12, scenario="cycles", memory_mib=256, resident_mib=64),
    *cycles("restore", [0.5], scenario="sizes", memory_mib=6144),
    *cycles("restore", [0.9], scenario="parallel", vms=4),
)


def row_of(report: str, engine: str) -> list[str]:
    line = next(line for line in report.splitlines() if line.startswith(f"| {engine} |"))
    return [part.strip() for part in line.strip("|").split("|")]


def test_a_row_has_median_and_spread() -> None:
    assert "0.60 (0.50–0.70)" in row_of(markdown(RUN, charts=(), prefix="x"), "restore")


def test_a_snapshot_that_is_loaded_again_counts_for_the_loads_alone() -> None:
    first, second = cycles("restore", [0.5, 0.5], scenario="sizes", save_s=1.0)
    again = tuple(
        replace(each, cycle=each.cycle + 2, save_s=None, pause_s=None, silence_s=None, answer_s=0.9)
        for each in (first, second)
    )
    report = markdown(results(first, *again, second), charts=(), prefix="x")
    assert "| restore | 0.70 (0.50–0.90) |" in report, "loads"
    assert "| restore | 0.50 (0.50–0.50) |" in report, "pauses"


def test_what_lost_data_is_named_and_has_no_times() -> None:
    report = markdown(RUN, charts=(), prefix="x")
    cells = row_of(report, "virsh-save")
    assert cells[-1] == "**lost: disk**"
    assert cells[2] == "–"
    assert "`virsh-save`: 2 of 2 loads did not bring back disk" in report


def test_what_failed_is_named_with_its_words() -> None:
    failed = replace(cycles("libvirt-restore", [1.0])[0], error="QEMU is gone")
    report = markdown(results(*cycles("restore", [1.0]), failed), charts=(), prefix="x")
    assert "`libvirt-restore` (engines, 2048 MiB, cycle 0) failed: QEMU is gone" in report
    assert row_of(report, "libvirt-restore")[-1] == "**failed**"


def test_goals_and_engines_that_cannot_run_are_listed() -> None:
    report = markdown(RUN, charts=(), prefix="x")
    assert re.search(r"\| load by restore / the faster .* \| ≤ 1\.20 \| 1\.00 \| met \|", report)
    assert "| native | virtsnap, engine native | needs libvirt 9.9 |" in report


def test_the_place_is_named() -> None:
    report = markdown(RUN, charts=(), prefix="x")
    for word in ("libvirt 9.0", "QEMU 7.2", "TCG", "ext4, without reflinks", "2 × a processor"):
        assert word in report


def test_only_charts_that_were_drawn_are_shown() -> None:
    report = markdown(RUN, charts=("engines",), prefix="bench")
    assert re.findall(r"\((bench-\w+\.svg)\)", report) == ["bench-engines.svg"]


def test_bytes_are_megabytes_and_nothing_is_a_dash() -> None:
    assert cell(summarize([5_000_000, 7_000_000]), "space_bytes") == "6 MB"
    assert cell(None, "save_s") == "–"


def test_a_bar_in_a_cell_does_not_part_it() -> None:
    assert table(("a",), [("x|y",)]).splitlines()[-1] == "| x\\|y |"


def test_all_charts_are_drawn_as_png_and_svg(tmp_path: Path) -> None:
    samples = tuple(replace(each, load_phases_s={"stop": 0.02, "restore": 0.2}) for each in RUN.samples)
    drawn = draw_charts(replace(RUN, samples=samples), tmp_path, prefix="x")
    assert set(drawn) == set(CHARTS)
    wanted = {f"x-{name}.{kind}" for name in CHARTS for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == wanted
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())


def test_a_report_is_pasted_into_a_page_again_and_again(tmp_path: Path) -> None:
    folder, page = tmp_path / "out", tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("# Page\n\n<!-- more -->\n")
    for answer_s in (0.3, 0.7):
        write_files(results(*cycles("restore", [answer_s])), folder, with_charts=True)
        subprocess.run([PASTE, page, folder, tmp_path / "nothing"], check=True, capture_output=True)
    text = page.read_text()
    assert text.count("## libvirt 9.0, QEMU 7.2") == 1
    assert "| 0.70 |" in text
    assert "| 0.30 |" not in text
    shown = re.findall(r"\(images/([^)]+)\)", text)
    assert shown
    assert all((page.parent / "images" / name).exists() for name in shown)


def test_a_run_on_a_file_system_with_reflinks_has_a_title_of_its_own() -> None:
    place = replace(PLACE, file_system="xfs, with reflinks")
    assert title(results(place=place)) == "libvirt 9.0, QEMU 7.2 on xfs"


def test_what_there_was_no_time_for_is_told() -> None:
    assert "for want of time: cycles 256:64: 3 of 200 turns." in markdown(
        replace(RUN, missing=("cycles 256:64: 3 of 200 turns",)), charts=(), prefix="x"
    )
