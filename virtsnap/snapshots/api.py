"""Python's way in: `connect(uri)` → `host.domain(name)` → save, load, list, remove.

Each operation is: hold the domain, look at it, plan, look at the files, act.
The command line calls these methods and nothing below them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from virtsnap.domain_xml.endpoints import Endpoint, read_endpoints
from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.ram_file import can_leave_pages_out, read_ram_file
from virtsnap.errors import BusyError, ExistsError, HypervisorError, UnsupportedError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host import connect as connect_host
from virtsnap.host.asked_ram import PagesRefusedError
from virtsnap.host.chains import read_chain
from virtsnap.host.confinement import needs_of_ram_in_files, read_confinement
from virtsnap.host.files import Layer
from virtsnap.host.guest_ram import can_share_blocks, ram_problem
from virtsnap.host.private_pages import private_pages
from virtsnap.snapshots import acts as _acts  # noqa: F401 - it makes `run` know its steps
from virtsnap.snapshots import plan as planning
from virtsnap.snapshots.catalog import Snapshot, with_facts
from virtsnap.snapshots.check import Instant, SnapshotVerdict, Verdict, check_snapshot, obstacles, remarks
from virtsnap.snapshots.depth import MOST_LAYERS, base_to_stand_on, is_limited, longest_line
from virtsnap.snapshots.digests import Digests, require_verified
from virtsnap.snapshots.engines import EngineName, SaveEngineName, choose_engine
from virtsnap.snapshots.engines.instant import PROTECTS_FILES, InstantSave, moves_changes, obstacle
from virtsnap.snapshots.gc import Garbage, find_garbage
from virtsnap.snapshots.journal import Keeper, journal_in
from virtsnap.snapshots.lock import Lock, definitions_of
from virtsnap.snapshots.observe import facts_of, observe, observe_catalog
from virtsnap.snapshots.origin import read_origin
from virtsnap.snapshots.places import new_token
from virtsnap.snapshots.preflight import require_files_of, require_loadable, require_places, require_room_for
from virtsnap.snapshots.recover import Recovered, recover
from virtsnap.snapshots.run import Context, Outcome, run_plan
from virtsnap.snapshots.steps import Plan, PullLayers, Step, TakeSnapshot
from virtsnap.snapshots.view import View

Watch = Callable[[Step], None]


class _ChainTooLongError(Exception):
    """The chain has to be shortened before it gets one more layer."""


def _added(first: Mapping[str, float], then: Mapping[str, float]) -> dict[str, float]:
    """Add up seconds by phase, in the order in which the phases came."""
    return {phase: round(first.get(phase, 0.0) + then.get(phase, 0.0), 4) for phase in {**first, **then}}


def _left(timeout_s: float | None, *, since: float) -> float | None:
    """Give what is left of a time that began at `since` of the monotonic clock."""
    return None if timeout_s is None else since + timeout_s - time.monotonic()


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    plan: Plan
    read_bytes: int = 0


class SnapshotHost:
    """A connection to a hypervisor; a context manager that closes it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._host.close()

    @property
    def uri(self) -> str:
        """Give the URI in use."""
        return self._host.uri

    @property
    def is_local(self) -> bool:
        """Say whether the hypervisor's files are this machine's."""
        return self._host.is_local

    @property
    def libvirt_version(self) -> tuple[int, int]:
        """Give the daemon's version, as in (9, 0)."""
        return self._host.libvirt_version

    def domain(self, name: str) -> SnapshotDomain:
        """Find a domain by name or UUID.

        On failure: NoSuchDomainError.
        """
        return SnapshotDomain(self._host, self._host.domain(name))

    def collect_garbage(
        self, *, directories: Sequence[str] = (), only: str | None = None, dry_run: bool = False
    ) -> Garbage:
        """Remove the files of ours that nothing refers to; say which (they *would* be with `dry_run`).

        Looked into are the folders where any domain's disks or snapshots lie, and `directories`, which are
        absolute; `only` is a domain's name. Folders of domains that this hypervisor does not know are cleared,
        so name none that another hypervisor's domains use. On failure: HypervisorError, BusyError.
        """
        files = self._host.files
        views: dict[str, View] = {}
        chosen = None if only is None else self._host.domain(only).uuid
        with ExitStack() as held:
            for domain in self._host.domains():
                if not dry_run:
                    held.enter_context(SnapshotDomain(self._host, domain)._held("gc"))
                views[domain.uuid] = observe(self._host, domain, refuse_managed_save=False)
            garbage = find_garbage(files, views, directories, only=chosen)
            if not dry_run:
                for path in garbage.paths:
                    if not files.same_files((path,), garbage.needed):
                        files.remove(path)
                for folder in garbage.folders:
                    files.remove_folder_if_empty(folder)
        files.release()
        return garbage

    def create(self, xml: str, *, name: str) -> SnapshotDomain:
        """Define a new domain from `xml`, in which it is called `name`, and start it.

        On failure: ExistsError where the name is taken; where the start fails the definition is gone again.
        """
        if self._host.has_domain(name):
            raise ExistsError(f"there is a domain {name!r} already", hint="choose another with --name")
        domain = self._host.define(xml)
        try:
            domain.start(paused=False)
        except VirtsnapError:
            domain.undefine()
            raise
        return SnapshotDomain(self._host, domain)


class SnapshotDomain:
    """A domain whose disk and memory can be saved under names and brought back."""

    def __init__(self, host: Host, domain: Domain) -> None:
        self._host = host
        self._domain = domain
        self._gives_pages = True

    @property
    def name(self) -> str:
        """Give the domain's name."""
        return self._domain.name

    @property
    def uuid(self) -> str:
        """Give the domain's UUID."""
        return self._domain.uuid

    def state(self) -> str:
        """Say `running`, `paused`, `crashed` or `shutoff`."""
        return self._domain.power()

    def progress(self, step: Step) -> tuple[int, int] | None:
        """Give bytes done and in all of a step that another thread performs; None where libvirt does not say.

        A flatten's layers are counted, and the memory of a save on this machine, whose total is the guest's RAM:
        the most that it can be. libvirt's statistics know nothing of a snapshot's memory, nor of a restore's.
        """
        if isinstance(step, PullLayers):
            return self._domain.pull_progress(step.target)
        if isinstance(step, TakeSnapshot) and step.memory_path is not None and self._host.is_local:
            # Not a call of libvirt's: while it writes the memory it answers none about the domain.
            found = self._host.files.facts_of(step.memory_path)
            return None if found is None or not step.ram_bytes else (found.size_bytes, step.ram_bytes)
        return None

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Give all snapshots, oldest first; those that plain virsh made too."""
        return observe_catalog(self._domain, with_secrets=False).snapshots

    # Save

    def save_snapshot(
        self, name: str, *, directory: str | None = None, description: str | None = None,
        with_digests: bool = False, durable: bool = False, engine: SaveEngineName | None = None,
        timeout_s: float | None = None, watch: Watch | None = None,
    ) -> Outcome:
        """Save disks and memory from one pause under `name`; a shut-off domain's disks alone.

        `engine` forces a way to save; None is `instant` where the domain's RAM is in a file that can be
        copied, else `libvirt`.

        Needs: writable disks that are raw or qcow2 files, and room beside the first one or in `directory`.
        On success: the guest goes on; a snapshot that had the name is gone, and was there until the new
        one was complete. `with_digests` also reads all of its files and records digests of them;
        `durable` has everything on the disks before it returns, which a crash of the machine then leaves.
        On failure: everything is as it was. UsageError (the name), UnsupportedError (the domain),
        BusyError, OperationTimeoutError, HypervisorError.
        """

        def prepare(view: View) -> _Prepared:
            if durable and not self._host.is_local:
                self._host.files.sync(())  # refused, before anything is touched
            plan = self._plan_save(view, name, directory, description, with_digests, durable, engine)
            require_room_for(self._host.files, plan)
            return _Prepared(plan=plan)

        return self._save("save", prepare, timeout_s=timeout_s, watch=watch)

    def _save(
        self, op: str, prepare: Callable[[View], _Prepared], *, timeout_s: float | None, watch: Watch | None
    ) -> Outcome:
        """Save; where QEMU does not give single pages of its RAM, save again with all of it, and warn."""
        started = time.monotonic()
        try:
            return self._save_on_a_short_chain(op, prepare, timeout_s=timeout_s, watch=watch)
        except PagesRefusedError as exc:
            if not self._domain.is_active():
                raise
            self._gives_pages = False
            left_s = _left(timeout_s, since=started)
            saved = self._save_on_a_short_chain(op, prepare, timeout_s=left_s, watch=watch)
            said = f"{exc.message}: all of it was written, which takes longer"
            return replace(saved, warnings=(*saved.warnings, said))

    def _save_on_a_short_chain(
        self, op: str, prepare: Callable[[View], _Prepared], *, timeout_s: float | None, watch: Watch | None
    ) -> Outcome:
        """Save; where one more layer would be too many, shorten the chain first.

        A warning says so, and `bytes["pulled"]` of the outcome what it cost. Where it cannot be shortened the
        save is made all the same, unless this libvirt could not start a guest on the chain.
        """
        started = time.monotonic()

        def prepare_if_short(view: View) -> _Prepared:
            prepared = prepare(view)
            if longest_line(view) >= MOST_LAYERS and self._can_be_shortened(view):
                raise _ChainTooLongError
            return prepared

        try:
            return self._operate(op, prepare_if_short, timeout_s=timeout_s, watch=watch)
        except _ChainTooLongError:
            shortened = self._shorten(timeout_s=timeout_s, watch=watch)
        saved = self._operate(op, prepare, timeout_s=_left(timeout_s, since=started), watch=watch)
        return replace(
            saved, phases_s=_added(shortened.phases_s, saved.phases_s), bytes={**shortened.bytes, **saved.bytes},
            warnings=(*shortened.warnings, *saved.warnings),
        )

    def _can_be_shortened(self, view: View) -> bool:
        try:
            return bool(self._plan_flatten(view, wholly=False).steps)
        except UnsupportedError:
            return False

    def _shorten(self, *, timeout_s: float | None, watch: Watch | None) -> Outcome:
        try:
            done = self._operate("flatten", lambda view: _Prepared(plan=self._plan_flatten(view, wholly=False)),
                                 timeout_s=timeout_s, watch=watch)
        except HypervisorError as exc:
            if is_limited(self._host.libvirt_version):
                raise
            return Outcome(op="flatten", domain=self.name, name="", state=self.state(), phases_s={},
                           warnings=(f"its chain of layers could not be shortened: {exc.message}",))
        said = f"{self.name}: its chain had {MOST_LAYERS} layers and was shortened first"
        return replace(done, warnings=(said, *done.warnings))

    def plan_save(
        self, name: str, *, directory: str | None = None, durable: bool = False,
        engine: SaveEngineName | None = None,
    ) -> Plan:
        """Say what `save_snapshot` would do, and touch nothing."""
        return self._plan_save(self._look(), name, directory, None, False, durable, engine)

    def _plan_save(
        self, view: View, name: str, directory: str | None, description: str | None, with_digests: bool,
        durable: bool, engine: SaveEngineName | None,
    ) -> Plan:
        return planning.plan_save(
            planning.SaveRequest(name=name, directory=directory, description=description, token=new_token(),
                                 now_ns=time.time_ns(), with_digests=with_digests, durable=durable,
                                 instant=self._instant_save(view, engine, directory=directory)),
            view,
        )

    def _instant_save(
        self, view: View, engine: SaveEngineName | None, *, directory: str | None
    ) -> InstantSave | None:
        """Choose how a save is done: by `instant` where that can be and nothing else is asked for."""
        if engine == "libvirt":
            return None
        found, why_not = self.instant_save(view)
        if engine == "instant" and found is None:
            raise UnsupportedError(f"{view.name} cannot be saved by `instant`: {why_not}",
                                   hint="leave --engine out: the libvirt engine saves it, with all of its RAM")
        if found is None or found.is_private:
            return found
        folder = planning.folder_for(view, directory)
        return replace(found, shares_blocks=can_share_blocks(found.ram_path, folder))

    def instant_save(self, view: View) -> tuple[InstantSave | None, str | None]:
        """See how the domain could be saved by `instant`; else None and the reason."""
        ram = read_ram_file(parse_xml(view.live_xml)) if view.is_active else None
        if not self._host.is_local:
            return None, "the hypervisor is on another machine"
        if not view.is_active:
            return None, "it is shut off"
        version = (0, 0) if ram is None else self._domain.monitor.version()
        reason = obstacle(view, qemu_version=version)
        if reason is None and ram is not None:
            reason = ram_problem(view.uuid, path=ram.path, size_bytes=ram.size_bytes)
        if reason is not None or ram is None:
            return None, reason
        found = InstantSave(
            ram_path=ram.path, size_bytes=ram.size_bytes, is_read_only=version >= PROTECTS_FILES,
            is_private=not ram.is_shared,
        )
        return self._since_the_load(found, view) if found.is_private else found, None

    def _since_the_load(self, instant: InstantSave, view: View) -> InstantSave:
        """See whether what a guest has changed since it was loaded is enough to save."""
        domain = parse_xml(view.live_xml)
        origin = read_origin(domain)
        held = self._host.files.facts_of(instant.ram_path)
        if origin is None or held is None or not self._gives_pages or not can_leave_pages_out(domain):
            return instant
        if not view.writable_disks:  # libvirt takes no snapshot of no disks, and has to take that of the memory
            return instant
        ram = origin.ram
        if (ram.path, ram.size_bytes, ram.mtime_ns) != (instant.ram_path, held.size_bytes, held.mtime_ns):
            return instant
        try:
            pieces = private_pages(view.uuid, path=ram.path, size_bytes=instant.size_bytes)
        except HypervisorError:
            return instant
        changed = sum(end - first for first, end in pieces)
        return replace(instant, origin=origin, moves_changes=moves_changes(changed, held_bytes=held.held_bytes))

    # Load

    def load_snapshot(
        self, name: str, *, final: planning.Final = "running", keep_newer: bool = False,
        engine: EngineName | None = None, verify: bool = False, sync_time: bool = False,
        timeout_s: float | None = None, watch: Watch | None = None,
    ) -> Outcome:
        """Bring the domain back to `name`, and leave the guest running unless `final` says otherwise.

        `engine` forces a way to revert (`virtsnap.snapshots.engines`); None is the best on that host.
        `verify` reads all of the snapshot's files first and compares them with the recorded digests.
        `sync_time` has the guest's agent set the clock; where none answers, the outcome has a warning.
        `timeout_s` counts up to the old guest's stop: from there on the load is finished, and a warning says so.

        Needs: an external snapshot whose files are whole; one that plain virsh made will do. An internal one is
        libvirt's to load, while there is no external one; then all others are kept.
        On success: the live and the persistent definition name the same fresh overlays; the outcome's
        `reopen` names the consoles and displays that another QEMU has now. What was saved
        after `name` on its line is forgotten with its files, unless `keep_newer`.
        On failure: before the old guest's stop it runs on, untouched. After it the domain is shut off,
        its snapshots can be loaded, a start boots the disks of before; the message says so.
        NoSuchSnapshotError, UnsupportedError, BusyError, OperationTimeoutError, HypervisorError.
        """

        files = self._host.files

        snapshot = None
        if self._domain.snapshot_names({"internal"}):  # asking for this alone is quick
            snapshot = observe_catalog(self._domain, with_secrets=False).get(name)
        if snapshot is not None and snapshot.is_internal:
            loaded = self._load_internal(snapshot, running=final == "running", paused=final == "paused")
            return self._after_load(loaded, sync_time=sync_time)

        def prepare(view: View) -> _Prepared:
            if verify:
                require_verified(files, facts_of(files, view.catalog.find(name), uuid=view.uuid))
            return self._plan_load(view, name, final, keep_newer, engine)

        return self._after_load(
            self._operate("load", prepare, timeout_s=timeout_s, watch=watch), sync_time=sync_time
        )

    def _after_load(self, outcome: Outcome, *, sync_time: bool) -> Outcome:
        """Set the clock and see what there is to be opened again; the load is done whatever comes of it."""
        warnings, phases_s = list(outcome.warnings), dict(outcome.phases_s)
        if sync_time:
            started = time.monotonic()
            try:
                self._domain.set_clock(time.time_ns())
            except VirtsnapError as exc:
                warnings.append(f"{exc.message}: it shows the time of the save")
            phases_s["clock"] = round(time.monotonic() - started, 4)
        reopen: tuple[Endpoint, ...] = ()
        if outcome.state != "shutoff":
            with suppress(VirtsnapError):
                reopen = read_endpoints(parse_xml(self._domain.live_xml()))
        return replace(outcome, warnings=tuple(warnings), phases_s=phases_s, reopen=reopen)

    def _load_internal(
        self, snapshot: Snapshot, *, running: bool, paused: bool, force: bool = False
    ) -> Outcome:
        """Have libvirt load an internal snapshot. On failure: UnsupportedError where there is an external one."""
        with self._held("load"):
            started = time.monotonic()
            external = [each.name for each in self.snapshots() if not each.is_internal]
            if external:
                raise UnsupportedError(
                    f"{snapshot.name!r} is an internal snapshot, and there are external ones "
                    f"({', '.join(external)}): its state is in a file under them"
                )
            self._domain.revert_to_internal(snapshot.object_name, running=running, paused=paused, force=force)
            seconds = round(time.monotonic() - started, 4)
            return Outcome(op="load", domain=self.name, name=snapshot.name, state=self.state(),
                           phases_s={"restore": seconds})

    def plan_load(
        self, name: str, *, final: planning.Final = "running", keep_newer: bool = False,
        engine: EngineName | None = None,
    ) -> Plan:
        """Say what `load_snapshot` would do, and touch nothing."""
        return self._plan_load(self._look(), name, final, keep_newer, engine).plan

    def _plan_load(
        self, view: View, name: str, final: planning.Final, keep_newer: bool, engine: EngineName | None
    ) -> _Prepared:
        files = self._host.files
        facts = facts_of(files, view.catalog.find(name), uuid=view.uuid)
        chosen = choose_engine(self._host.libvirt_version, engine, facts=facts)
        require_loadable(files, facts)
        saved_xml = None if facts.memory is None else self._host.saved_xml(facts.memory.path)
        plan = planning.plan_load(
            planning.LoadRequest(
                name=name, final=final, keep_newer=keep_newer, token=new_token(), now_s=int(time.time()),
                shares_blocks=self._host.is_local and facts.ram is not None
                and can_share_blocks(facts.ram.path, facts.folder),
            ),
            view, facts=facts, saved_xml=saved_xml, engine=chosen,
        )
        require_files_of(files, saved_xml or view.persistent_xml)
        require_places(files, plan)
        return _Prepared(plan=plan, read_bytes=0 if facts.memory is None else facts.memory.size_bytes)

    # Remove

    def remove_snapshot(
        self, name: str, *, timeout_s: float | None = None, watch: Watch | None = None
    ) -> Outcome:
        """Forget `name` and remove the files that nothing else needs; all other snapshots stay loadable.

        The guest is not touched. On failure: everything is as it was.
        NoSuchSnapshotError, UnsupportedError, BusyError, HypervisorError.
        """

        def prepare(view: View) -> _Prepared:
            return _Prepared(plan=planning.plan_remove(name, view))

        return self._operate("rm", prepare, timeout_s=timeout_s, watch=watch)

    def plan_remove(self, name: str) -> Plan:
        """Say what `remove_snapshot` would do, and touch nothing."""
        return planning.plan_remove(name, self._look())

    # Upkeep

    def check(self, *, deep: bool = False) -> Verdict:
        """Say what stands in the way of saving, and whether the snapshots are whole; touches nothing.

        `deep` reads every file of every snapshot, compares the digests, and records those that are missing.
        """
        with self._held("check"):
            view = observe(self._host, self._domain, refuse_managed_save=False)
            blockers = self._domain.monitor.migration_blockers() if view.is_active else ()
            digests = Digests(self._host.files) if deep else None
            verdicts: list[SnapshotVerdict] = []
            for snapshot in view.catalog.snapshots:
                verdict, facts = check_snapshot(self._host.files, snapshot, uuid=view.uuid, digests=digests)
                verdicts.append(verdict)
                if facts is not None:
                    self._domain.redefine_snapshot(with_facts(snapshot.xml, facts), current=snapshot.is_current)
            found = obstacles(view, blockers=blockers)
            if self._domain.has_managed_save():
                found = (*found, "it has a managed save image, which the next start would put over its disks")
            return Verdict(domain=view.name, obstacles=found, remarks=remarks(view), snapshots=tuple(verdicts),
                           instant=self._instant(view))

    def _instant(self, view: View) -> Instant:
        """Say whether the domain's saves are by `instant`; of one that is off, whether once it runs."""
        if view.is_active or not self._host.is_local:
            _, why_not = self.instant_save(view)
        else:
            why_not = obstacle(view, qemu_version=view.qemu_version)
        has_ram_file = read_ram_file(parse_xml(view.live_xml)) is not None
        needs = needs_of_ram_in_files(read_confinement(self._host.capabilities())) if has_ram_file else ()
        return Instant(why_not=why_not, needs=needs)

    def flatten(self, *, timeout_s: float | None = None, watch: Watch | None = None) -> Outcome:
        """Shorten the chains under the domain's disks; `bytes["pulled"]` of the outcome is what that cost.

        The guest goes on. Every snapshot stays as it is, byte by byte. On failure: the disks show what they
        showed, on as many layers as before.
        """

        def prepare(view: View) -> _Prepared:
            return _Prepared(plan=self._plan_flatten(view, wholly=True))

        return self._operate("flatten", prepare, timeout_s=timeout_s, watch=watch)

    def plan_flatten(self) -> Plan:
        """Say what `flatten` would do, and touch nothing."""
        return self._plan_flatten(self._look(), wholly=True)

    def _plan_flatten(self, view: View, *, wholly: bool) -> Plan:
        """Plan to have all disks stand on the user's own files, or on what is left of a chain that was long."""
        bases: dict[str, Layer] = {}
        for disk in (*view.disks, *view.persistent_disks):
            if disk.is_writable and disk.path and disk.path in view.chains:
                chain = read_chain(self._host.files, disk.path, disk.format)
                own = next((n for n, layer in enumerate(chain) if not view.was_made_for_us(layer.path)), None)
                if own is not None:
                    bases[disk.path] = chain[own] if wholly else base_to_stand_on(chain, own)
        return planning.plan_flatten(view, bases=bases)

    # Recover

    def recover(self, *, force: bool = False) -> Recovered | None:
        """Finish or take back what an operation left whose process was killed; None where there is nothing.

        `force` also breaks the claim of an owner that cannot be seen to be dead (another machine's).
        On success: the guest runs or can be loaded or started, all complete snapshots load, no file is left
        over. On failure: BusyError where the owner lives; HypervisorError, and another try can be made.
        """
        with Lock(self._domain, "recover", force=force) as lock:
            try:
                return self._recover(lock)
            finally:
                self._host.files.release()

    @contextmanager
    def _held(self, op: str) -> Iterator[tuple[Lock, Recovered | None]]:
        """Hold the domain for an operation, once what was interrupted before it has been recovered.

        An unattended runner has nobody who could recover for it.
        """
        with Lock(self._domain, op) as lock:
            try:
                yield lock, self._recover(lock)
            finally:
                self._host.files.release()

    def _recover(self, lock: Lock) -> Recovered | None:
        left = journal_in(lock.definitions)
        if left is None:
            return None
        return recover(left, Context(
            host=self._host, domain=self._domain, claim=lock.claim, journal=Keeper(self._domain)
        ))

    def _look(self) -> View:
        """See the domain without holding it, for a plan that is only shown."""
        if journal_in(definitions_of(self._domain)) is not None:
            raise BusyError(f"{self.name}: an operation is under way or was interrupted",
                            hint=f"`virtsnap recover {self.name}` finishes or undoes an interrupted one")
        return observe(self._host, self._domain)

    def _operate(
        self, op: str, prepare: Callable[[View], _Prepared], *, timeout_s: float | None, watch: Watch | None
    ) -> Outcome:
        started = time.monotonic()
        with self._held(op) as (lock, before):
            prepared = prepare(observe(self._host, self._domain))
            context = Context(
                host=self._host, domain=self._domain, claim=lock.claim, journal=Keeper(self._domain),
                deadline=None if timeout_s is None else started + timeout_s,
            )
            if prepared.read_bytes:
                context.bytes["memory"] = prepared.read_bytes
            context.phases_s["check"] = time.monotonic() - started
            outcome = run_plan(prepared.plan, context, watch=watch)
            if before is None:
                return outcome
            return replace(outcome, warnings=(f"{before.describe()} first", *before.warnings, *outcome.warnings))


def connect(uri: str | None = None, *, readonly: bool = False) -> SnapshotHost:
    """Connect to a hypervisor; None is libvirt's own choice.

    On failure: HypervisorError.
    """
    return SnapshotHost(connect_host(uri, readonly=readonly))
