"""A domain on a host becomes a `View`: everything that a plan depends on, read once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from virtsnap.domain_xml.beside_disks import places_beside_disks
from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import HypervisorError, UnsupportedError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host.chains import read_chain
from virtsnap.host.files import HypervisorFiles
from virtsnap.host.state_archive import tpm_root
from virtsnap.snapshots import places
from virtsnap.snapshots.catalog import Catalog, Facts, SavedDisk, SavedMemory, Snapshot, read_catalog
from virtsnap.snapshots.view import View


def observe_catalog(domain: Domain, *, with_secrets: bool = True) -> Catalog:
    """Read the snapshots of a domain; touches no file. With secrets for what will be written back."""
    objects = domain.snapshot_objects(with_secrets=with_secrets)
    return read_catalog((found.xml, found.is_current) for found in objects)


def observe(host: Host, domain: Domain, *, refuse_managed_save: bool = True) -> View:
    """Read a domain, its snapshots and the chains under both.

    A chain that cannot be followed is left out: what depends on it then refuses. On failure:
    UnsupportedError for a host whose files cannot be reached, and for a domain with a managed save image.
    """
    files = host.files
    if refuse_managed_save and domain.has_managed_save():
        # The next start would put that old memory over whatever disks the domain then has.
        raise UnsupportedError(f"{domain.name} has a managed save image",
                               hint=f"start it, or `virsh managedsave-remove {domain.name}`")
    live, persistent = domain.live_xml(), domain.persistent_xml()
    disks, persistent_disks = read_disks(parse_xml(live)), read_disks(parse_xml(persistent))
    catalog = observe_catalog(domain)
    tops: dict[str, str | None] = {
        disk.path: disk.format for disk in (*persistent_disks, *disks) if disk.is_writable and disk.path
    }
    for snapshot in catalog.snapshots:
        if snapshot.facts is None:
            saved = parse_xml(snapshot.xml).find("domain")
            if saved is not None:
                tops.update(
                    {disk.path: disk.format for disk in read_disks(saved) if disk.is_writable and disk.path}
                )
    root = tpm_root(host.uri, domain.uuid)
    beside = places_beside_disks(parse_xml(persistent), tpm_root=root)
    return View(
        name=domain.name, uuid=domain.uuid, state=domain.power(), is_active=domain.is_active(),
        is_persistent=domain.is_persistent(), live_xml=live, persistent_xml=persistent, disks=disks,
        persistent_disks=persistent_disks, catalog=catalog, chains=_chains(files, tops.items()),
        qemu_version=host.qemu_version, tpm_root=root, unreachable=files.unreachable_state(beside),
    )


def facts_of(files: HypervisorFiles, snapshot: Snapshot, *, uuid: str) -> Facts:
    """Give the facts of a snapshot: the recorded ones, or for one that plain virsh made what can be seen now.

    What nobody recorded cannot be compared: that such a snapshot's files were changed goes unseen. On
    failure: UnsupportedError for an internal snapshot and for a record that cannot be read; HypervisorError
    for files that are missing.
    """
    if snapshot.facts is not None:
        return snapshot.facts
    refused = f"snapshot {snapshot.name!r} cannot be loaded"
    if snapshot.problem:
        raise UnsupportedError(f"{refused}: {snapshot.problem}")
    if snapshot.is_internal:
        raise UnsupportedError(f"{refused}: it is an internal one", hint="`virsh snapshot-revert` can load it")
    root = parse_xml(snapshot.xml)
    saved = root.find("domain")
    asked = {
        disk.get("name", ""): source.get("file", "")
        for disk in root.iterfind("disks/disk[@snapshot='external']")
        if (source := disk.find("source")) is not None
    }
    if saved is None or not asked or not all(asked.values()):
        raise UnsupportedError(f"{refused}: libvirt's record names no external files")
    writable = {disk.target: disk for disk in read_disks(saved) if disk.is_writable}
    left_out = sorted(writable.keys() - asked.keys())
    if left_out:
        raise UnsupportedError(f"{refused}: it does not hold the disk {', '.join(left_out)}")
    disks = []
    for target, overlay in asked.items():
        disk = writable.get(target)
        if disk is None or disk.path is None:
            raise UnsupportedError(f"{refused}: its disk {target} is no file")
        disks.append(SavedDisk(
            target=target, overlay_path=overlay, layers=read_chain(files, disk.path, disk.format)
        ))
    memory = None
    if snapshot.memory_path is not None:
        found = files.facts_of(snapshot.memory_path)
        if found is None:
            raise HypervisorError(f"{refused}: its memory file {snapshot.memory_path} is missing",
                                  hint="the guest was not touched")
        memory = SavedMemory(path=snapshot.memory_path, size_bytes=found.size_bytes, mtime_ns=found.mtime_ns)
    return Facts(
        id="", name=snapshot.name, state=snapshot.state if memory is not None else "shutoff",
        created_ns=snapshot.created_s * 10**9,
        folder=places.folder_in(str(PurePosixPath(disks[0].frozen.path).parent), uuid),
        memory=memory, disks=tuple(disks),
    )


def _chains(
    files: HypervisorFiles, tops: Iterable[tuple[str, str | None]]
) -> dict[str, tuple[str, ...]]:
    chains = {}
    for path, format_ in tops:
        try:
            chains[path] = tuple(layer.path for layer in read_chain(files, path, format_))
        except VirtsnapError:
            continue
    return chains
