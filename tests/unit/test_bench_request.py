"""What the user asks of `bench` becomes guests and scenarios, or an error that says what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.bench_samples import cycles
from virtsnap.bench.engines import EngineRow, Surroundings, engine_rows
from virtsnap.bench.goals import GOALS, GrowthGoal
from virtsnap.bench.guest import built_in_guest, guest_from_words
from virtsnap.bench.pulse import Pulse
from virtsnap.bench.scenarios import Scenario, Size, choose, parse_numbers, parse_sizes, plan_scenarios
from virtsnap.cli.main import main
from virtsnap.errors import UsageError

ROWS = engine_rows()


def here(libvirt: tuple[int, int], qemu: tuple[int, int]) -> Surroundings:
    return Surroundings(uri=None, libvirt=libvirt, qemu=qemu, watch=cast(Any, None))


def test_sizes_are_read() -> None:
    assert parse_sizes("2048:512, 6144:4096") == (
        Size(memory_mib=2048, resident_mib=512), Size(memory_mib=6144, resident_mib=4096)
    )
    assert parse_sizes("") == ()


@pytest.mark.parametrize("text", ["2048", "a:b", "512:500", "1024:-1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse_sizes(text)


@pytest.mark.parametrize("text", ["1,x", "0", "-1"])
def test_what_is_no_number_of_guests_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_numbers(text)


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        choose(ROWS, ["nothing"])
    assert "restore" in (caught.value.hint or "")


def test_names_of_engines_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("libvirt", "qemu", "able", "unable"), [
    ((9, 0), (7, 2), {"restore", "raw-compress", "libvirt-restore"}, {"native", "libvirt-revert", "raw-mapped"}),
    ((11, 3), (10, 0), {"native", "libvirt-revert", "raw-mapped", "raw-plain"}, {"raw-compress"}),
    ((12, 8), (11, 1), {"raw-mapped"}, {"raw-plain", "raw-compress-polling"}),
])
def test_engines_run_where_their_means_are(
    libvirt: tuple[int, int], qemu: tuple[int, int], able: set[str], unable: set[str]
) -> None:
    reasons = {row.name: row.why_not(here(libvirt, qemu)) for row in ROWS}
    assert {name for name in able if reasons[name] is not None} == set()
    assert {name for name in unable if reasons[name] is None} == set()


def names(rows: tuple[EngineRow, ...]) -> set[str]:
    return {row.name for row in rows}


def test_all_engines_are_compared_and_the_quick_ones_looked_at_further() -> None:
    size, small = Size(memory_mib=2048, resident_mib=512), Size(memory_mib=256, resident_mib=64)
    found = plan_scenarios(ROWS, size=size, rounds=5, sizes=[small], cycles=100, parallel=(1, 4), small=small)
    assert [(scenario.name, scenario.cycles, scenario.vms) for scenario in found] == [
        ("engines", 5, 1), ("cycles", 100, 1), ("sizes", 5, 1), ("parallel", 2, 1), ("parallel", 1, 4),
    ]
    assert names(found[0].engines) == names(tuple(ROWS)) - {"restore-young"}
    assert names(found[1].engines) == {"restore", "restore-young"}
    assert "internal-virsh" not in names(found[2].engines)


def test_guests_that_hold_much_are_saved_once_and_loaded_in_each_round() -> None:
    size, much = Size(memory_mib=1024, resident_mib=512), Size(memory_mib=6144, resident_mib=4096)
    found = plan_scenarios(ROWS, size=size, rounds=3, sizes=[much, size], cycles=0, parallel=(1,), small=size)
    assert [(scenario.name, scenario.size, scenario.cycles, scenario.loads) for scenario in found] == [
        ("engines", size, 3, 1), ("sizes", much, 3, 3), ("sizes", size, 3, 1), ("parallel", size, 2, 1),
    ]
    found = plan_scenarios(ROWS, size=size, rounds=3, sizes=[much, size], cycles=9, parallel=(1,), small=size,
                           loads=2)
    assert [(scenario.name, scenario.cycles, scenario.loads) for scenario in found] == [
        ("engines", 3, 1), ("cycles", 9, 1), ("sizes", 3, 3), ("sizes", 3, 2), ("parallel", 2, 1),
    ]


def test_a_guest_that_is_booted_anew_for_each_round_takes_the_room_of_several() -> None:
    size = Size(memory_mib=1024, resident_mib=1000)
    anew, once = choose(ROWS, ["instant"])[0], choose(ROWS, ["restore"])[0]
    scenario = Scenario(name="sizes", engines=(anew, once), size=size, cycles=4, loads=2, vms=2)
    assert scenario.starts() == ((anew, 0), (anew, 2), (once, 0))
    assert [scenario.saved_in(cycle) for cycle in range(4)] == [0, 0, 2, 2]
    assert scenario.needs_mib() == 3 * 2 * 1200 + 2 * 3000


def test_a_young_guest_is_booted_anew_now_and_then() -> None:
    old, young = choose(ROWS, ["restore", "restore-young"])
    scenario = Scenario(name="cycles", engines=(old, young), cycles=50, size=Size(memory_mib=256, resident_mib=64))
    assert scenario.starts() == ((old, 0), (young, 0), (young, 20), (young, 40))
    assert [scenario.started_in(young, cycle) for cycle in (0, 19, 20, 39, 49)] == [0, 0, 20, 20, 40]
    assert [replace(scenario, loads=3).started_in(young, cycle) for cycle in (20, 21)] == [0, 21], "where it saves"


def test_every_other_round_goes_through_the_engines_backwards() -> None:
    first, second = choose(ROWS, ["instant", "restore"])
    size = Size(memory_mib=1024, resident_mib=512)
    scenario = Scenario(name="sizes", engines=(first, second), cycles=3, size=size)
    assert scenario.turns(has_room=True) == (
        (first, 0), (second, 0), (second, 1), (first, 1), (first, 2), (second, 2),
    )
    assert [row for row, _ in scenario.turns(has_room=False)] == [first] * 3 + [second] * 3


def test_who_is_there_for_the_picture_has_fewer_rounds() -> None:
    often, seldom = choose(ROWS, ["restore", "internal-qmp"])
    size = Size(memory_mib=1024, resident_mib=512)
    scenario = Scenario(name="engines", engines=(often, seldom), cycles=3, size=size)
    assert scenario.turns(has_room=True) == ((often, 0), (seldom, 0), (often, 1), (often, 2), (seldom, 2))
    assert scenario.turns(has_room=False) == ((often, 0), (often, 1), (often, 2), (seldom, 0), (seldom, 2))
    assert scenario.turns_wanted([]) == 5
    assert scenario.turns_wanted([replace(cycles("internal-qmp", [1.0])[0], lost=("RAM",))]) == 4


def test_who_has_fewer_rounds_is_no_part_of_a_goal() -> None:
    seldom = {row.name for row in ROWS if row.every > 1}
    judged = {goal.engine for goal in GOALS}
    for goal in GOALS:
        judged.update([goal.against] if isinstance(goal, GrowthGoal) else goal.against or ())
    assert seldom
    assert judged >= {"instant", "raw-plain", "raw-mapped", "libvirt-revert"}
    assert not seldom & judged
    assert {row.scenarios for row in ROWS if row.every > 1} == {("engines",)}, "elsewhere not each round saves"


@pytest.mark.parametrize(("told", "end"), [
    ({"save_s": 5.0, "load_s": 9.0}, 6),
    ({"save_s": 9.0, "load_s": 9.0}, 4),  # the loads of that snapshot are still wanted
    ({"load_s": 16.0}, 4),
    ({"load_s": 1.0, "lost": ("disk",)}, 4),
    ({"error": "QEMU is gone"}, 4),
])
def test_an_engine_that_fails_or_is_slow_is_done_early(told: dict[str, Any], end: int) -> None:
    scenario = Scenario(name="sizes", engines=choose(ROWS, ["restore", "raw-plain"]), cycles=6, loads=2,
                        size=Size(memory_mib=1024, resident_mib=512))
    cycle = 2 if "save_s" in told else 3
    sample = replace(cycles("restore", [1.0])[0], **{"save_s": None, **told, "cycle": cycle})
    assert scenario.end_after(sample) == end
    assert scenario.turns_wanted([sample]) == end + 6


def test_nothing_more_is_planned_for_engines_that_are_only_compared() -> None:
    size = Size(memory_mib=2048, resident_mib=512)
    chosen = choose(ROWS, ["virsh-save"])
    found = plan_scenarios(chosen, size=size, rounds=1, sizes=[size], cycles=9, parallel=(4,), small=size)
    assert [scenario.name for scenario in found] == ["engines"]


def test_the_holes_of_a_command_line_are_filled(tmp_path: Path) -> None:
    words = ["qemu", "-m", "{memory_mib}", "-hda", "{disk}", "-serial", "unix:{serial}", "-serial", "unix:{pulse}"]
    guest = guest_from_words(words, disk=tmp_path / "base", accel="tcg", in_ram="/ram", on_disk="/mnt")
    assert guest.argv(tmp_path, tmp_path / "disk", memory_mib=512) == [
        "qemu", "-m", "512", "-hda", f"{tmp_path}/disk", "-serial", f"unix:{tmp_path}/serial",
        "-serial", f"unix:{tmp_path}/pulse",
    ]


def test_a_missing_hole_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\{pulse\}"):
        guest_from_words(["qemu", "{memory_mib}", "{disk}", "{serial}"], disk=tmp_path, accel="tcg", in_ram="/ram",
                         on_disk="/mnt")


def test_the_built_in_machine_has_all_holes(tmp_path: Path) -> None:
    guest = built_in_guest(kernel=tmp_path, initrd=tmp_path, disk=tmp_path, append="quiet", accel="tcg",
                           in_ram="/ram", on_disk="/mnt")
    assert guest_from_words(guest.words, disk=tmp_path, accel="tcg", in_ram="/ram", on_disk="/mnt") == guest
    assert not [word for word in guest.argv(tmp_path, tmp_path, memory_mib=1) if "{" in word]


@pytest.mark.parametrize(("words", "said"), [
    ([], "no guest was given"),
    (["--kernel", "DISK", "--initrd", "DISK", "--size", "7"], "MEMORY:RESIDENT"),
    (["--kernel", "DISK", "--", "qemu"], "exclude each other"),
    (["--", "qemu", "-m", "512"], "{memory_mib}"),
])
def test_bench_refuses_what_it_cannot_measure(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    assert main(["bench", "--disk", str(disk), *(str(disk) if word == "DISK" else word for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_a_gap_in_the_pulse_is_found(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "nobody")
    try:
        pulse._ticks.extend([1.0, 1.01, 1.51, 1.52, 5.0])
        assert pulse.longest_gap(1.0, 2.0) == pytest.approx(0.5)
        assert pulse.longest_gap(6.0, 7.0) == 0.0
    finally:
        pulse.close()
