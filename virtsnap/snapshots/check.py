"""A domain and its snapshots become a verdict: what stands in the way, and which snapshots are whole.

A look compares presence, headers, sizes, times and chains. A deep check reads
every file and compares its digest with the recorded one; a file that has none
yet gets the one it has now. Hashing is not part of a save (it would double
the time), so the first deep check vouches for what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from virtsnap.errors import VirtsnapError
from virtsnap.host.files import HypervisorFiles
from virtsnap.snapshots.catalog import Facts, Snapshot
from virtsnap.snapshots.depth import SLOW_LAYERS, longest_line
from virtsnap.snapshots.digests import Digests, digest_problems, recorded_digests, with_digests
from virtsnap.snapshots.observe import facts_of
from virtsnap.snapshots.plan import obstacles_to_save
from virtsnap.snapshots.preflight import file_problems
from virtsnap.snapshots.view import View


@dataclass(frozen=True, kw_only=True)
class SnapshotVerdict:
    """What is wrong with a snapshot; `compared` and `recorded` count digests."""

    name: str
    problems: tuple[str, ...]
    compared: int = 0
    recorded: int = 0


@dataclass(frozen=True, kw_only=True)
class Instant:
    """Whether saves are by `instant` (`why_not` is None then), and what that `needs` on this host."""

    why_not: str | None
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What stands in the way of saving, what is worth knowing, and a verdict on each snapshot."""

    domain: str
    obstacles: tuple[str, ...]
    remarks: tuple[str, ...]
    snapshots: tuple[SnapshotVerdict, ...]
    instant: Instant

    @property
    def is_good(self) -> bool:
        """Say whether nothing stands in the way and every snapshot is whole."""
        return not self.obstacles and not any(each.problems for each in self.snapshots)


def obstacles(view: View, *, blockers: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Say what stands in the way of a save; `blockers` are QEMU's reasons against writing the state out."""
    return (*obstacles_to_save(view), *(f"QEMU cannot write its state out: {reason}" for reason in blockers))


def remarks(view: View) -> tuple[str, ...]:
    """Say what does not stand in the way now, and may surprise."""
    found = []
    if view.is_active:
        found += [f"once it is shut off it cannot be saved: {problem}" for problem in view.unreachable]
    longest = longest_line(view)
    if longest > SLOW_LAYERS:
        found.append(f"a chain has {longest} layers, which makes reading slow: `virtsnap flatten {view.name}`")
    return tuple(found)


def check_snapshot(
    files: HypervisorFiles, snapshot: Snapshot, *, uuid: str, digests: Digests | None = None
) -> tuple[SnapshotVerdict, Facts | None]:
    """Judge a snapshot; with `digests` by reading its files, and give facts that hold new digests.

    The facts are None where there is nothing new to record.
    """
    if snapshot.is_internal:
        return SnapshotVerdict(name=snapshot.name, problems=()), None
    try:
        facts = facts_of(files, snapshot, uuid=uuid)
    except VirtsnapError as exc:
        return SnapshotVerdict(name=snapshot.name, problems=(exc.message,)), None
    problems = file_problems(files, facts)
    if problems or digests is None:
        return SnapshotVerdict(name=snapshot.name, problems=tuple(problems)), None
    compared = sum(digest is not None for _, digest in recorded_digests(facts))
    problems = digest_problems(facts, digests)
    if problems:
        return SnapshotVerdict(name=snapshot.name, problems=tuple(problems), compared=compared), None
    new = sum(digest is None for _, digest in recorded_digests(facts)) if snapshot.facts is not None else 0
    verdict = SnapshotVerdict(name=snapshot.name, problems=(), compared=compared, recorded=new)
    return verdict, with_digests(facts, digests) if new else None
