"""What the project wants to reach, as rows; with results each becomes a ratio, and met or not met.

All are ratios within one run, of medians: a number of seconds would say more
about the machine than about the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from virtsnap.bench.results import Results
from virtsnap.bench.scenarios import Size
from virtsnap.bench.statistics import growth

Verdict = Literal["met", "not met", "not measured"]

SMALL = Size(memory_mib=1024, resident_mib=512)
USUAL = Size(memory_mib=2048, resident_mib=512)
LARGE = Size(memory_mib=6144, resident_mib=512)
FULL = Size(memory_mib=6144, resident_mib=4096)

RAW = ("raw-plain", "raw-compress", "raw-mapped")
BARE = ("libvirt-revert", "libvirt-restore")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A figure of `engine` at `at`, divided by the least of `against` at `against_at`, shall be at most `limit`.

    `against` None compares the engine with itself at another size; `before` and `since` are versions of
    libvirt that it is about; `reflinks` is one that holds only where the file system has them.
    """

    what: str
    figure: str
    engine: str
    limit: float
    at: Size = USUAL
    against: tuple[str, ...] | None = None
    against_at: Size | None = None
    before: tuple[int, int] = (99, 0)
    since: tuple[int, int] = (0, 0)
    reflinks: bool = False


@dataclass(frozen=True, kw_only=True)
class GrowthGoal:
    """A figure of `engine`, divided by that of `against` in the same round, shall grow by at most `limit` of it.

    `against` does the same on a guest that has not been at it for long, in turn with it: what
    only the machine's drift makes slower or faster does it to both.
    """

    what: str
    figure: str
    engine: str
    against: str
    limit: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A goal, what was found, and whether that is enough. `found` None: it was not measured."""

    what: str
    limit: float
    found: float | None
    verdict: Verdict


GOALS: tuple[Goal | GrowthGoal, ...] = (
    Goal(what="load by instant / raw QMP's fastest, 2 GiB with 0.5 GiB resident", figure="answer_s",
         engine="instant", against=RAW, limit=1.0),
    Goal(what="load by instant / raw QMP's fastest, 6 GiB with 4 GiB resident", figure="answer_s",
         engine="instant", against=RAW, at=FULL, limit=1 / 5),
    Goal(what="load by instant, 6 GiB / 1 GiB, 0.5 GiB resident", figure="answer_s", engine="instant",
         at=LARGE, against_at=SMALL, limit=1.3),
    Goal(what="load by instant / destroy + restore, libvirt before 9.9", figure="answer_s", engine="instant",
         against=("libvirt-restore",), limit=1 / 3, before=(9, 9)),
    Goal(what="load by instant / libvirt's own revert", figure="answer_s", engine="instant",
         against=("libvirt-revert",), limit=1 / 5, since=(9, 9)),
    Goal(what="guest paused by a save, instant / raw QMP's shortest", figure="pause_s", engine="instant",
         against=RAW, limit=0.7),
    Goal(what="guest paused by a save by instant, 6 GiB / 1 GiB, on reflinks", figure="pause_s", engine="instant",
         at=LARGE, against_at=SMALL, limit=1.5, reflinks=True),
    Goal(what="load by instant after a save of a guest that was loaded / the first", figure="answer_s",
         engine="instant-again", against=("instant",), limit=1.5),
    Goal(what="save by instant of a guest that was loaded / save by the libvirt engine", figure="save_s",
         engine="instant-again", against=("restore",), limit=1.0),
    Goal(what="save by restore / libvirt's bare snapshot call", figure="save_s", engine="restore", against=BARE,
         limit=1.3),
    Goal(what="load by restore / the faster of libvirt's revert and destroy + restore", figure="answer_s",
         engine="restore", against=BARE, limit=1.2),
    GrowthGoal(what="save by restore / that of a young guest, growth over cycles", figure="save_s",
               engine="restore", against="restore-young", limit=0.1),
    GrowthGoal(what="load by restore / that of a young guest, growth over cycles", figure="answer_s",
               engine="restore", against="restore-young", limit=0.1),
)


def judge(results: Results, goals: Sequence[Goal | GrowthGoal] = GOALS) -> tuple[Judged, ...]:
    """Compare with all goals that are about this host."""
    return tuple(
        _judged(goal, _grown(goal, results) if isinstance(goal, GrowthGoal) else _ratio(goal, results))
        for goal in goals if _applies(goal, results)
    )


def _applies(goal: Goal | GrowthGoal, results: Results) -> bool:
    if isinstance(goal, GrowthGoal):
        return True
    place = results.place
    return goal.since <= place.libvirt < goal.before and (place.has_reflinks or not goal.reflinks)


def _judged(goal: Goal | GrowthGoal, found: float | None) -> Judged:
    verdict: Verdict = "not measured" if found is None else "met" if found <= goal.limit else "not met"
    return Judged(what=goal.what, limit=goal.limit, found=found, verdict=verdict)


def _ratio(goal: Goal, results: Results) -> float | None:
    ours = _least(results, (goal.engine,), goal.figure, goal.at)
    theirs = _least(results, goal.against or (goal.engine,), goal.figure, goal.against_at or goal.at)
    return None if ours is None or not theirs else ours / theirs


def _least(results: Results, engines: Sequence[str], figure: str, size: Size) -> float | None:
    """Give the least median: of the comparison where that was at this size, so that like loads are compared."""
    for scenario in ("engines", "sizes"):
        found = [
            summary.middle for engine in engines
            if (summary := results.summary(scenario, engine, figure, size=size)) is not None
        ]
        if found:
            return min(found)
    return None


def _grown(goal: GrowthGoal, results: Results) -> float | None:
    ours, theirs = (results.over_cycles(engine, goal.figure) for engine in (goal.engine, goal.against))
    return growth([ours[cycle] / theirs[cycle] for cycle in sorted(ours.keys() & theirs.keys())])
