"""Samples become medians, slopes and verdicts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.bench_samples import PLACE, cycles, losing, results
from virtsnap.bench.goals import GOALS, Goal, GrowthGoal, judge
from virtsnap.bench.results import results_from_plain, results_to_plain
from virtsnap.bench.scenarios import Size
from virtsnap.bench.statistics import growth, summarize
from virtsnap.host.pauses import RunEvent, paused_s


def test_summary_is_of_what_was_measured() -> None:
    found = summarize([3.0, None, 1.0, 2.0])
    assert found is not None
    assert (found.count, found.least, found.middle, found.most) == (3, 1.0, 2.0, 3.0)
    assert summarize([None]) is None


def test_a_slope_is_told_from_noise_and_an_outlier() -> None:
    flat = [1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0, 9.0, 1.0, 1.01]
    assert growth(flat) == pytest.approx(0, abs=0.03)
    assert growth([1 + 0.1 * n for n in range(11)]) == pytest.approx(2 / 3)
    assert growth([1.0] * 7) is None


def stops(*times: tuple[float, bool]) -> list[RunEvent]:
    return [RunEvent(at_s=at_s, runs=runs) for at_s, runs in times]


def test_pauses_are_summed_up() -> None:
    assert paused_s(stops((10.0, False), (10.5, True), (11.0, False), (11.2, True))) == pytest.approx(0.7)
    assert paused_s(stops((10.0, False), (10.1, False), (10.5, True))) == pytest.approx(0.5)


def test_a_pause_that_has_not_ended_is_no_number() -> None:
    assert paused_s(stops((10.0, False), (10.5, True), (11.0, False))) is None
    assert paused_s([]) is None


GOAL = Goal(what="load", figure="answer_s", engine="restore", against=("raw-plain", "libvirt-restore"), limit=1.2)


@pytest.mark.parametrize(("ours_s", "found", "verdict"), [(1.0, 2.0, "not met"), (0.6, 1.2, "met")])
def test_the_fastest_of_the_others_is_what_counts(ours_s: float, found: float, verdict: str) -> None:
    run = results(*cycles("restore", [ours_s]), *cycles("raw-plain", [0.5, 0.5]),
                  *cycles("libvirt-restore", [3.0]))
    judged, = judge(run, [GOAL])
    assert judged.found == pytest.approx(found)
    assert judged.verdict == verdict


def test_who_loses_data_is_no_standard() -> None:
    run = results(*cycles("restore", [1.0]), *(losing(each, "disk") for each in cycles("raw-plain", [0.1])))
    judged, = judge(run, [GOAL])
    assert judged.verdict == "not measured"


def test_a_goal_for_newer_libvirt_is_not_shown_on_an_older_one() -> None:
    goal = replace(GOAL, since=(9, 9))
    assert judge(results(), [goal]) == ()
    assert len(judge(results(place=replace(PLACE, libvirt=(11, 3))), [goal])) == 1


def test_a_goal_for_reflinks_needs_them() -> None:
    goal = replace(GOAL, reflinks=True)
    assert judge(results(), [goal]) == ()
    assert len(judge(results(place=replace(PLACE, file_system="xfs, with reflinks")), [goal])) == 1


def test_an_engine_is_compared_with_itself_at_another_size() -> None:
    small, large = Size(memory_mib=1024, resident_mib=512), Size(memory_mib=6144, resident_mib=512)
    goal = Goal(what="constant", figure="answer_s", engine="restore", limit=1.3, at=large, against_at=small)
    run = results(*cycles("restore", [1.5], scenario="sizes", memory_mib=6144),
                  *cycles("restore", [1.0], scenario="sizes", memory_mib=1024))
    assert judge(run, [goal])[0].found == pytest.approx(1.5)


GROWTH = GrowthGoal(what="growth", figure="answer_s", engine="restore", against="restore-young", limit=0.1)


def growing(share: float) -> list[float]:
    """Give the times of 20 cycles that grow by this share of their median."""
    return [1 + share * (cycle / 19 - 0.5) for cycle in range(20)]


def test_growth_over_the_cycles_is_judged() -> None:
    young = cycles("restore-young", growing(0), scenario="cycles")
    steady = results(*cycles("restore", growing(0.05), scenario="cycles"), *young)
    slower = results(*cycles("restore", growing(0.15), scenario="cycles"), *young)
    assert judge(steady, [GROWTH])[0].found == pytest.approx(0.05)
    assert judge(steady, [GROWTH])[0].verdict == "met"
    assert judge(slower, [GROWTH])[0].found == pytest.approx(0.15)
    assert judge(slower, [GROWTH])[0].verdict == "not met"


def test_what_a_young_guest_grows_by_too_is_no_growth() -> None:
    drifting = results(*cycles("restore", growing(0.4), scenario="cycles"),
                       *cycles("restore-young", growing(0.4), scenario="cycles"))
    assert judge(drifting, [GROWTH])[0].found == pytest.approx(0)
    hidden = results(*cycles("restore", growing(0), scenario="cycles"),
                     *cycles("restore-young", growing(-0.4), scenario="cycles"))
    assert judge(hidden, [GROWTH])[0].verdict == "not met"


def test_growth_is_of_rounds_in_which_both_had_their_turn() -> None:
    ours = cycles("restore", growing(0.4), scenario="cycles")
    theirs = cycles("restore-young", growing(0.4), scenario="cycles")
    lost = (losing(theirs[0], "disk"), *theirs[1:])
    assert judge(results(*ours, *reversed(lost)), [GROWTH])[0].found == pytest.approx(0)
    assert judge(results(*ours, *theirs[:7]), [GROWTH])[0].verdict == "not measured"
    assert judge(results(*ours), [GROWTH])[0].verdict == "not measured"


def test_every_goal_of_ours_can_be_judged() -> None:
    assert {goal.figure for goal in GOALS} <= {"save_s", "pause_s", "answer_s"}
    assert judge(results())


def test_results_survive_json() -> None:
    run = results(*cycles("restore", [1.0, 2.0]), losing(cycles("virsh-save", [1.0])[0], "disk"))
    assert results_from_plain(json.loads(json.dumps(results_to_plain(run)))) == run
