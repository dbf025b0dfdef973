"""Snapshots with libvirt's semantics: a tree in which nothing is forgotten unless somebody says so.

What virsh's verbs need beyond save, load and rm: names that are taken are
refused, a revert keeps what came later and leaves the guest as it was, a
delete takes one, a whole branch or what is below. What plain virsh made stays
libvirt's: internal snapshots go through its own calls, and only while no
external one is there, because the two kinds undo each other's assumptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from virtsnap.errors import NoSuchSnapshotError, UnsupportedError, UsageError
from virtsnap.host import connect as connect_host
from virtsnap.host.console import Console as GuestConsole
from virtsnap.host.event_loop import register_event_loop
from virtsnap.snapshots import leaving
from virtsnap.snapshots import plan as planning
from virtsnap.snapshots.api import SnapshotDomain, SnapshotHost, _Prepared
from virtsnap.snapshots.catalog import Catalog, Snapshot
from virtsnap.snapshots.lock import is_held
from virtsnap.snapshots.observe import observe_catalog
from virtsnap.snapshots.places import new_token
from virtsnap.snapshots.plan import Final, Scope
from virtsnap.snapshots.run import Outcome
from virtsnap.snapshots.view import View

# libvirt's words, which virsh prints
_NO_SUCH = "Domain snapshot not found: no domain snapshot with matching name '{}'"
_NO_CURRENT = "Domain snapshot not found: the domain does not have a current snapshot"


class TreeHost(SnapshotHost):
    """A connection whose domains speak libvirt's semantics."""

    def tree(self, word: str) -> SnapshotTree:
        """Find a domain by number, UUID or name; on failure: NoSuchDomainError."""
        return SnapshotTree(self._host, self._host.find_domain(word))


class SnapshotTree(SnapshotDomain):
    """A domain and the tree of its snapshots."""

    # Reading

    def catalog(self) -> Catalog:
        """Read all snapshots, without secrets, so that a read-only connection may."""
        return observe_catalog(self._domain, with_secrets=False)

    def find(self, name: str, catalog: Catalog) -> Snapshot:
        """Find a snapshot by the runner's name; on failure: NoSuchSnapshotError in libvirt's words."""
        try:
            found = catalog.get(name)
        except UsageError:  # a name that nothing can have
            found = None
        if found is None:
            raise NoSuchSnapshotError(_NO_SUCH.format(name))
        return found

    def current(self, catalog: Catalog) -> Snapshot:
        """Give the current snapshot; on failure: NoSuchSnapshotError in libvirt's words."""
        found = next((snapshot for snapshot in catalog.snapshots if snapshot.is_current), None)
        if found is None:
            raise NoSuchSnapshotError(_NO_CURRENT)
        return found

    def names(self, filters: Collection[str], *, below: Snapshot | None = None) -> tuple[str, ...]:
        """Name the snapshot objects that pass libvirt's filters, in libvirt's order."""
        return self._domain.snapshot_names(filters, below=None if below is None else below.object_name)

    def xml_of(self, snapshot: Snapshot, *, with_secrets: bool) -> str:
        """Give a snapshot's XML as libvirt writes it."""
        return self._domain.snapshot_xml(snapshot.object_name, with_secrets=with_secrets)

    # Changing

    def make_current(self, snapshot: Snapshot) -> None:
        """Make a snapshot the current one, so that the next becomes its child. Nothing else changes."""
        with self._held("snapshot-current"):
            self._domain.redefine_snapshot(self._domain.snapshot_xml(snapshot.object_name), current=True)

    def create(
        self, name: str, *, description: str | None = None, disk_only: bool = False,
        asked: Collection[str] = (), timeout_s: float | None = None,
    ) -> Outcome:
        """Save as `save_snapshot` does, but refuse a name that is taken (ExistsError).

        `disk_only` takes the disks of a running guest alone; `asked` are words of the host's SNAPSHOT_WISHES.
        """

        def prepare(view: View) -> _Prepared:
            request = planning.SaveRequest(
                name=name, directory=None, description=description, token=new_token(), now_ns=time.time_ns(),
                replace=False, disk_only=disk_only, asked=frozenset(asked),
                instant=None if disk_only or asked else self._instant_save(view, None, directory=None),
            )
            plan = planning.plan_save(request, view)
            _refuse_internal_beside(view.catalog)
            return _Prepared(plan=plan)

        return self._save("snapshot-create-as", prepare, timeout_s=timeout_s, watch=None)

    def create_as_asked(self, xml: str, *, disk_only: bool, asked: Collection[str]) -> str:
        """Have libvirt take an external snapshot whose files the caller names; give its name.

        Those files are the caller's: no delete of ours removes them.
        """
        with self._held("snapshot-create-as"):
            _refuse_internal_beside(observe_catalog(self._domain))
            return self._domain.take_snapshot(xml, disk_only=disk_only, asked=asked)

    def revert(
        self, snapshot: Snapshot, *, final: Final = "as-saved", force: bool = False, timeout_s: float | None = None
    ) -> Outcome | None:
        """Bring the domain back to a snapshot and keep all others; None for an internal one, libvirt's work."""
        if snapshot.is_internal:
            self._load_internal(snapshot, running=final == "running", paused=final == "paused", force=force)
            return None
        return self.load_snapshot(snapshot.name, final=final, keep_newer=True, timeout_s=timeout_s)

    def delete(
        self, snapshot: Snapshot, *, scope: Scope = "one", metadata_only: bool = False,
        timeout_s: float | None = None,
    ) -> Outcome | None:
        """Forget a snapshot, its branch or what is below it, with the files that nothing else needs.

        All others stay loadable. None for internal ones, whose contents libvirt itself takes out of the disk.
        On failure: everything is as it was.
        """
        if snapshot.is_internal and not metadata_only:
            with self._held("snapshot-delete"):
                _require_all_internal(observe_catalog(self._domain))
                self._domain.delete_internal(
                    snapshot.object_name, children=scope == "tree", children_only=scope == "below"
                )
            return None

        def prepare(view: View) -> _Prepared:
            plan = planning.plan_remove(snapshot.name, view, scope=scope, keep_files=metadata_only)
            return _Prepared(plan=plan)

        return self._operate("snapshot-delete", prepare, timeout_s=timeout_s, watch=None)

    def is_held(self) -> bool:
        """Say whether a live operation of virtsnap's holds the domain: then it comes back."""
        return is_held(self._domain)

    def console(
        self, *, device: str | None, force: bool, safe: bool, stdin: int | None, stdout: int, escape: bytes
    ) -> GuestConsole:
        """Prepare a console session; the connection must have been opened with `with_events`."""
        return GuestConsole(
            self._host, self._domain, device=device, force=force, safe=safe, stdin=stdin, stdout=stdout,
            escape=escape,
        )

    def has_files_of_ours(self) -> bool:
        """Say whether anything of virtsnap's is under the domain or in its snapshots."""
        return leaving.has_files_of_ours(self._domain)

    def leave(self, undefine: Callable[[], bool], *, removes_disks: bool) -> tuple[bool, tuple[str, ...]]:
        """Clear up once `undefine` has taken the definition away; see `leaving.leave`."""
        with self._held("undefine"):
            pass  # what was interrupted is recovered
        return leaving.leave(self._host, self._domain, undefine, removes_disks=removes_disks)


def _refuse_internal_beside(catalog: Catalog) -> None:
    internal = [snapshot.name for snapshot in catalog.snapshots if snapshot.is_internal]
    if internal:
        # They live in the file that an external snapshot freezes: neither could be reverted to any more.
        raise UnsupportedError(
            f"the domain has internal snapshots ({', '.join(internal)}), which an external one would cut off",
            hint="delete them first; virtsnap makes external ones only",
        )


def _require_all_internal(catalog: Catalog) -> None:
    external = [snapshot.name for snapshot in catalog.snapshots if not snapshot.is_internal]
    if external:
        raise UnsupportedError(
            f"it is an internal snapshot, and there are external ones ({', '.join(external)}): "
            "its state is in a file under them"
        )


def connect_tree(uri: str | None = None, *, readonly: bool = False, with_events: bool = False) -> TreeHost:
    """Connect to a hypervisor, `with_events` so that consoles can be opened; on failure: HypervisorError."""
    if with_events:
        register_event_loop()
    return TreeHost(connect_host(uri, readonly=readonly))
