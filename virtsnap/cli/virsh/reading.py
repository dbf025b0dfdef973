"""The verbs that only look: snapshot-list, -info, -current (without a name), -parent, -dumpxml."""

from __future__ import annotations

from virtsnap.cli.virsh.session import Session, exclude
from virtsnap.cli.virsh.syntax import Command, VirshSyntaxError
from virtsnap.cli.virsh.text import (
    format_labels,
    format_table,
    format_tree,
    local_time,
    select_nodes,
    with_shown_names,
)
from virtsnap.errors import NoSuchSnapshotError
from virtsnap.snapshots.catalog import Catalog, Snapshot
from virtsnap.snapshots.tree import SnapshotTree

_FILTERS_NO_TREE_TAKES = ("leaves", "no-leaves", "inactive", "active", "disk-only", "internal", "external")


def pick(command: Command, domain: SnapshotTree, catalog: Catalog, *, option: str = "snapshotname") -> Snapshot:
    """Find the snapshot that is named, or the current one under --current; virsh wants one of the two."""
    name = command.get(option)
    if name is not None and command.has("current"):
        raise VirshSyntaxError(f"--{option} and --current are mutually exclusive")
    if name is not None:
        return domain.find(name, catalog)
    if not command.has("current"):
        raise VirshSyntaxError(f"--{option} or --current is required")
    return domain.current(catalog)


def answer_list(session: Session, command: Command) -> None:
    """Answer snapshot-list."""
    exclude(command, ("tree", "name"), ("parent", "roots"), ("parent", "tree"), ("roots", "tree"),
            ("roots", "from"), ("roots", "current"))
    filters = {"roots", "metadata", "no-metadata", "topological"} & command.given.keys()
    for name in _FILTERS_NO_TREE_TAKES:
        if command.has(name):
            if command.has("tree"):
                raise VirshSyntaxError(f"--{name} and --tree are mutually exclusive")
            filters.add(name)
    if command.has("descendants"):
        if not (command.has("from") or command.has("current")):
            raise VirshSyntaxError("--descendants requires either --from or --current")
        filters.add("descendants")
    domain = session.domain(command)
    catalog = domain.catalog()
    start = None
    if command.has("from") or command.has("current"):
        start = pick(command, domain, catalog, option="from")
    by_id = {snapshot.object_name: snapshot for snapshot in catalog.snapshots}
    listed = [by_id[id_] for id_ in domain.names(filters, below=start) if id_ in by_id]
    if command.has("tree") and start is not None:
        listed.append(start)
    if not command.has("topological"):
        listed.sort(key=lambda snapshot: _lower(snapshot.name))
    if command.has("tree"):
        parents = {
            snapshot.object_name: None if snapshot is start else snapshot.parent for snapshot in listed
        }
        session.say(format_tree(parents, {id_: snapshot.name for id_, snapshot in by_id.items()}))
    elif command.has("name"):
        session.say("".join(f"{snapshot.name}\n" for snapshot in listed))
    else:
        session.say(_table(listed, by_id, with_parent=command.has("parent"),
                           with_header=not session.preferences.quiet))


def _lower(name: str) -> bytes:
    """Give the key by which virsh sorts: strcasecmp, which knows the case of ASCII only."""
    return name.encode().lower()


def _table(
    listed: list[Snapshot], by_id: dict[str, Snapshot], *, with_parent: bool, with_header: bool
) -> str:
    header = ["Name", "Creation Time", "State"] + (["Parent"] if with_parent else [])
    rows = [
        [snapshot.name, local_time(snapshot.created_s), snapshot.state]
        + ([_parent_name(snapshot, by_id) or ""] if with_parent else [])
        for snapshot in listed
    ]
    return format_table(header, rows, with_header=with_header)


def _parent_name(snapshot: Snapshot, by_id: dict[str, Snapshot]) -> str | None:
    if snapshot.parent is None:
        return None
    return by_id[snapshot.parent].name if snapshot.parent in by_id else snapshot.parent


def answer_info(session: Session, command: Command) -> None:
    """Answer snapshot-info."""
    domain = session.domain(command)
    catalog = domain.catalog()
    snapshot = pick(command, domain, catalog)
    by_id = {other.object_name: other for other in catalog.snapshots}
    children = sum(other.parent == snapshot.object_name for other in catalog.snapshots)
    is_external = snapshot.memory_path is not None or bool(snapshot.overlay_paths)
    session.say(format_labels([
        ("Name", snapshot.name),
        ("Domain", domain.name),
        ("Current", "yes" if snapshot.is_current else "no"),
        ("State", snapshot.state),
        ("Location", "external" if is_external else "internal"),
        ("Parent", _parent_name(snapshot, by_id) or "-"),
        ("Children", str(children)),
        ("Descendants", str(len(catalog.descendants(snapshot)))),
        ("Metadata", "yes"),
    ]))


def answer_current(session: Session, command: Command) -> None:
    """Answer snapshot-current: show the current snapshot, or make another the current one."""
    exclude(command, ("name", "snapshotname"))
    domain = session.domain(command)
    catalog = domain.catalog()
    name = command.get("snapshotname")
    if name is not None:
        snapshot = domain.find(name, catalog)
        domain.make_current(snapshot)
        session.remark(f"Snapshot {snapshot.name} set as current")
        return
    found = next((snapshot for snapshot in catalog.snapshots if snapshot.is_current), None)
    if found is None:
        raise NoSuchSnapshotError(f"domain '{command.require('domain')}' has no current snapshot")
    if command.has("name"):
        session.say(found.name)
    else:
        session.say(_xml(domain, catalog, found, with_secrets=command.has("security-info")))


def answer_parent(session: Session, command: Command) -> None:
    """Answer snapshot-parent."""
    domain = session.domain(command)
    catalog = domain.catalog()
    snapshot = pick(command, domain, catalog)
    parent = _parent_name(snapshot, {other.object_name: other for other in catalog.snapshots})
    if parent is None:
        raise NoSuchSnapshotError(f"snapshot '{snapshot.name}' has no parent")
    session.say(parent)


def answer_dumpxml(session: Session, command: Command) -> None:
    """Answer snapshot-dumpxml."""
    xpath = command.get("xpath")
    domain = session.domain(command)
    catalog = domain.catalog()
    snapshot = domain.find(command.require("snapshotname"), catalog)
    xml = _xml(domain, catalog, snapshot, with_secrets=command.has("security-info"))
    session.say(xml if xpath is None else select_nodes(xml, xpath, wrap=command.has("wrap")))


def _xml(domain: SnapshotTree, catalog: Catalog, snapshot: Snapshot, *, with_secrets: bool) -> str:
    parent = _parent_name(snapshot, {other.object_name: other for other in catalog.snapshots})
    return with_shown_names(domain.xml_of(snapshot, with_secrets=with_secrets), name=snapshot.name, parent=parent)
