"""libvirt's objects, the catalog and the files of a domain are compared; a list of what does not agree."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.domain_xml.ram_file import read_ram_file
from virtsnap.errors import VirtsnapError
from virtsnap.host import Host
from virtsnap.host.chains import read_chain
from virtsnap.snapshots.definition import our_metadata
from virtsnap.snapshots.names import is_temporary
from virtsnap.snapshots.observe import facts_of, observe_catalog
from virtsnap.snapshots.origin import ORIGIN_NS
from virtsnap.snapshots.preflight import require_loadable


def disagreements(host: Host, name: str, *, beside: Iterable[Path]) -> list[str]:
    """Say everything that is not as it has to be between two operations.

    `beside` are folders in which a folder of the domain's may lie; those that its snapshots name are looked
    into anyway.
    """
    domain = host.domain(name)
    found: list[str] = []
    # One that is shut off may have another definition for its next start than for afterwards, after a refusal.
    definitions = [("persistent", domain.persistent_xml()), ("live", domain.live_xml())]
    for which, xml in definitions:
        ours = set(our_metadata(xml))
        if which == "live" and domain.is_active() and _is_private(xml):
            ours.discard(("virtsnap", ORIGIN_NS))  # what it was loaded from, for as long as it runs
        if ours:
            found.append(f"metadata of ours in the {which} definition: {ours}")
    on = [{disk.target: disk.path for disk in read_disks(parse_xml(xml)) if disk.is_writable}
          for _, xml in definitions]
    if any(disks != on[0] for disks in on):
        found.append(f"the definitions name different disks: {on}")
    catalog = observe_catalog(domain)
    names = {snapshot.object_name for snapshot in catalog.snapshots}
    needed: set[str] = set()
    folders = {folder / f"virtsnap-{domain.uuid}" for folder in beside}
    for snapshot in catalog.snapshots:
        if is_temporary(snapshot.object_name):
            found.append(f"{snapshot.object_name}: still has its temporary name")
        if snapshot.parent is not None and snapshot.parent not in names:
            found.append(f"{snapshot.name}: its parent {snapshot.parent} is not there")
        if snapshot.problem:
            found.append(f"{snapshot.name}: {snapshot.problem}")
        if "urn:virtsnap:lock" in snapshot.xml or "urn:virtsnap:journal" in snapshot.xml:
            found.append(f"{snapshot.name}: a claim or a journal was copied into it")
        if snapshot.facts is not None:
            folders.add(Path(snapshot.facts.folder))
        if not snapshot.is_internal and not snapshot.problem:
            try:
                facts = facts_of(host.files, snapshot, uuid=domain.uuid)
                needed |= set(facts.files)
                require_loadable(host.files, facts)
            except VirtsnapError as exc:
                found.append(exc.message)
    if sum(snapshot.is_current for snapshot in catalog.snapshots) > 1:
        found.append("several snapshots are current")
    live = parse_xml(definitions[-1][1])
    ram = read_ram_file(live) if domain.is_active() else None
    needed |= set() if ram is None else {ram.path}
    for path in on[0].values():
        if path is not None:
            try:
                needed |= {layer.path for layer in read_chain(host.files, path, None)}
            except VirtsnapError as exc:
                found.append(f"the line is broken: {exc.message}")
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        held = {str(path) for path in folder.iterdir()}
        if not held:
            found.append(f"{folder} is empty")
        found += [f"{path} is needed by nothing" for path in sorted(held - needed) if not _is_plain_virshs(path)]
    return found


def _is_plain_virshs(path: str) -> bool:
    """Say whether libvirt named a file after a snapshot of plain virsh's: nobody but its user removes that."""
    suffix = Path(path).suffix.removeprefix(".")
    return suffix not in ("qcow2", "mem", "ram", "state", "part", "new") and not suffix.isdigit()


def _is_private(xml: str) -> bool:
    ram = read_ram_file(parse_xml(xml))
    return ram is not None and not ram.is_shared
