"""A scenario becomes samples: guests booted, filled, saved, wrecked, loaded and asked, engine after engine.

The rounds go through the engines, not the engines through the rounds, so that
whatever else the machine does meets all of them; every other round backwards.
All guests are booted first, and paused while they are not in turn. Only where
the machine has no room for all at once does each engine have its rounds in one go.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from virtsnap.bench.console import GuestConsole, GuestSilentError
from virtsnap.bench.engines import OPERATION_TIMEOUT_S, Engine, EngineRow, Machine, Surroundings
from virtsnap.bench.guest import Guest, Workload, wait_for_disk
from virtsnap.bench.pulse import Pulse
from virtsnap.bench.samples import Sample
from virtsnap.bench.scenarios import Scenario
from virtsnap.errors import UsageError, VirtsnapError
from virtsnap.host.machine_facts import available_mib, held_bytes, sync_folder, written_bytes
from virtsnap.host.pauses import paused_s

BOOT_TIMEOUT_S = 120.0
_SOCKET_PATH_BYTES = 107  # unix(7)
Progress = Callable[[str], None]
# What an engine, its guest and its files can fail with
_FAILURES = (VirtsnapError, GuestSilentError, AssertionError, OSError)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Who a cycle is about."""

    scenario: Scenario
    row: EngineRow
    vm: int
    cycle: int

    def sample(self) -> Sample:
        size = self.scenario.size
        return Sample(
            scenario=self.scenario.name, engine=self.row.name, memory_mib=size.memory_mib,
            resident_mib=size.resident_mib, vms=self.scenario.vms, vm=self.vm, cycle=self.cycle,
        )


class Contestant:
    """One engine with one booted guest. What it does happens on one thread of its own."""

    def __init__(self, row: EngineRow, here: Surroundings, guest: Guest, folder: Path, *, memory_mib: int) -> None:
        self._folder = folder
        if len(os.fsencode(folder / "serial")) > _SOCKET_PATH_BYTES:
            raise UsageError(f"{folder}: too long for UNIX sockets in it", hint="choose a shorter --dir")
        folder.mkdir()
        folder.chmod(0o777)  # QEMU may run as another user; the folder above lets nobody list it
        self._engine: Engine = row.make(
            here,
            Machine(name=f"{folder.parent.name}-{folder.name}", folder=folder, guest=guest, memory_mib=memory_mib),
        )
        self._guest = guest
        self._is_loaded_first = row.is_loaded_first
        self._console = GuestConsole(folder / "serial")
        self._workload = Workload(guest, self._console)
        self._pulse: Pulse | None = None
        self._known: str | None = None

    def boot(self, resident_mib: int) -> None:
        """Start the guest and have it hold its share of RAM; it is paused then."""
        self._engine.start()
        self._console.wait_ready(timeout_s=BOOT_TIMEOUT_S)
        wait_for_disk(self._console, self._guest)
        self._workload.fill(resident_mib)
        Pulse.start_in(self._console, self._guest.pulse_tty)
        self._pulse = Pulse(self._folder / "pulse")
        self._pulse.wait_tick(timeout_s=BOOT_TIMEOUT_S)
        if self._is_loaded_first:
            self._engine.save("first")
            self._engine.load("first")
            self._engine.forget("first")
        self._engine.rest()

    def rest(self) -> None:
        """Pause the guest until its next turn."""
        self._engine.rest()

    def wake(self) -> None:
        """Let the guest go on, and forget what happened meanwhile."""
        self._engine.wake()
        assert self._pulse is not None
        self._pulse.wait_tick(timeout_s=60)

    def prepare(self, *, is_checked: bool) -> None:
        """Make everything ready for a save; not measured."""
        if self._known is not None:
            self._engine.forget(self._known)
            self._known = None
        if is_checked:
            self._workload.set_tokens()
        sync_folder(self._folder)
        self._engine.events()
        assert self._pulse is not None
        self._pulse.wait_tick(timeout_s=60)

    def save(self, sample: Sample, name: str) -> Sample:
        """Save, and say how it went."""
        assert self._pulse is not None
        held, written = held_bytes(self._folder), written_bytes()
        begun = time.monotonic()
        self._engine.save(name)
        ended = time.monotonic()
        self._pulse.wait_tick(timeout_s=60)
        silence_s = self._pulse.longest_gap(begun, time.monotonic())
        pause_s = paused_s(self._engine.events())
        sync_folder(self._folder)
        self._known = name
        return replace(
            sample, save_s=ended - begun, pause_s=pause_s, silence_s=silence_s,
            space_bytes=held_bytes(self._folder) - held, written_bytes=written_bytes() - written,
            save_phases_s=self._engine.phases_s(),
        )

    def wreck(self) -> None:
        """Change in the guest what the load has to bring back."""
        self._workload.wreck()
        sync_folder(self._folder)

    def load(self, sample: Sample, name: str, *, is_checked: bool) -> Sample:
        """Load, wait for the guest's first answer, and see whether it is the guest that was saved."""
        assert self._pulse is not None
        self._pulse.ask()
        begun = time.monotonic()
        self._engine.load(name)
        ended = time.monotonic()
        self._pulse.ask_anyone()
        answered = self._pulse.wait_answer(timeout_s=60)
        return replace(
            sample, load_s=ended - begun, answer_s=answered - begun,
            lost=self._workload.lost() if is_checked else (), load_phases_s=self._engine.phases_s(),
        )

    def stop(self) -> None:
        """End the guest and remove its files."""
        if self._pulse is not None:
            self._pulse.close()
        self._console.close()
        try:
            self._engine.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Team:
    """The guests of one engine in one scenario: one, or several that act at the same time."""

    def __init__(self, scenario: Scenario, row: EngineRow, here: Surroundings, guest: Guest, folder: Path) -> None:
        self.scenario, self.row = scenario, row
        self._threads = [ThreadPoolExecutor(1) for _ in range(scenario.vms)]
        self._members: list[Contestant] = []
        self._failure: Exception | None = None
        self._here, self._guest, self._folder = here, guest, folder

    def be_there(self) -> None:
        """Boot all, and pause them; once. On failure: what went wrong, now and each time it is asked for again."""
        if not self._members and self._failure is None:
            try:
                self._boot()
            except _FAILURES as exc:
                self._failure = exc
                with contextlib.suppress(*_FAILURES):
                    self.stop()  # it would take the processors from others
        if self._failure is not None:
            raise self._failure

    def _boot(self) -> None:
        size = self.scenario.size
        for number, thread in enumerate(self._threads):
            place = self._folder.with_name(f"{self._folder.name}-{number}")
            # In that thread: a process's monitor belongs to the thread that made it.
            member = thread.submit(
                Contestant, self.row, self._here, self._guest, place, memory_mib=size.memory_mib
            ).result()
            self._members.append(member)
        self._all(lambda member: member.boot(size.resident_mib))  # each rests then

    def cycle(self, number: int) -> list[Sample]:
        """Save, where this is a turn for it, and load, on all at once; the steps between are taken together."""
        saved_in = self.scenario.saved_in(number)
        name, is_checked = f"s{saved_in}", saved_in % self.scenario.checked_every == 0
        told = [_Told(scenario=self.scenario, row=self.row, vm=vm, cycle=number).sample()
                for vm in range(len(self._members))]
        found = dict(zip(self._members, told, strict=True))
        try:
            if saved_in == number:
                self._all(lambda member: member.prepare(is_checked=is_checked))
                self._each(found, lambda member, sample: member.save(sample, name))
            if is_checked:
                self._all(Contestant.wreck)
            self._each(found, lambda member, sample: member.load(sample, name, is_checked=is_checked))
        except _FAILURES as exc:
            return [replace(sample, error=_in_a_line(exc)) for sample in found.values()]
        return list(found.values())

    def rest(self) -> None:
        """Pause all."""
        self._all(Contestant.rest)

    def wake(self) -> None:
        """Let all go on."""
        self._all(Contestant.wake)

    def stop(self) -> None:
        """End all, whatever state they are in."""
        try:
            self._all(Contestant.stop)
        finally:
            self._members = []
            for thread in self._threads:
                thread.shutdown()

    def _all(self, act: Callable[[Contestant], None]) -> None:
        pairs = zip(self._threads, self._members, strict=False)
        for waiting in [thread.submit(act, member) for thread, member in pairs]:
            waiting.result(timeout=3 * OPERATION_TIMEOUT_S)

    def _each(self, found: dict[Contestant, Sample], act: Callable[[Contestant, Sample], Sample]) -> None:
        pairs = zip(self._threads, self._members, strict=False)
        waiting = {member: thread.submit(act, member, found[member]) for thread, member in pairs}
        for member, each in waiting.items():
            found[member] = each.result(timeout=3 * OPERATION_TIMEOUT_S)


def run_scenario(
    scenario: Scenario, here: Surroundings, guest: Guest, folder: Path, *, progress: Progress,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Sample]:
    """Run a scenario and give its samples as they come; leaves nothing in `folder`.

    An engine that fails gives a sample with the error; it may be done early (`Scenario.end_after`). No turn
    begins once `is_over` says so.
    """
    has_room = scenario.needs_mib() < available_mib() * 0.7
    teams = {(row.name, cycle): _Team(scenario, row, here, guest, folder / f"{row.name}-{cycle}")
             for row, cycle in scenario.starts()}
    ends = {row.name: scenario.cycles for row in scenario.engines}
    try:
        if has_room and not is_over():
            progress("all boot")
            _boot(list(teams.values()), at_once=max(1, (os.cpu_count() or 1) // scenario.vms), is_over=is_over)
        for row, cycle in scenario.turns(has_room=has_room):
            if cycle >= ends[row.name]:
                continue
            if is_over():
                break
            progress(row.name)
            started_in = scenario.started_in(row, cycle)
            team = teams[row.name, started_in]
            for sample in _turn(team, cycle):
                ends[row.name] = min(ends[row.name], scenario.end_after(sample))
                yield sample
            following = cycle + row.every
            if following >= ends[row.name] or scenario.started_in(row, following) != started_in:
                team.stop()
    finally:
        for team in teams.values():
            team.stop()


def _boot(teams: Sequence[_Team], *, at_once: int, is_over: Callable[[], bool]) -> None:
    """Boot guests before any is measured, `at_once` at a time; what fails is told at its turn."""
    def boot(team: _Team) -> None:
        if not is_over():
            team.be_there()

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for booting in [pool.submit(boot, team) for team in teams]:
                with contextlib.suppress(*_FAILURES):
                    booting.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _turn(team: _Team, cycle: int) -> list[Sample]:
    told = _Told(scenario=team.scenario, row=team.row, vm=0, cycle=cycle).sample()
    try:
        team.be_there()
        team.wake()
        found = team.cycle(cycle)
        if not any(sample.error for sample in found):
            team.rest()
    except _FAILURES as exc:
        return [replace(told, error=_in_a_line(exc))]
    return found


def _in_a_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]
