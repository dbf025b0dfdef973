"""A domain that is undefined leaves nothing of virtsnap's behind, and its disks as the guest left them.

Under a domain with snapshots the guest writes into overlays of ours. With the
definition go the snapshots, so nothing stands on the user's own files any
more: what the guest wrote is merged into them, as if it had written there all
along (which is what it does on a domain with libvirt's internal snapshots),
and our files go. Where the disks themselves are to be removed, nothing is
merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import NoSuchDomainError, UnsupportedError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host.chains import read_chain
from virtsnap.host.files import HypervisorFiles
from virtsnap.snapshots.catalog import read_catalog, to_text
from virtsnap.snapshots.lock import Lock
from virtsnap.snapshots.observe import observe
from virtsnap.snapshots.places import is_ours
from virtsnap.snapshots.view import View


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What a disk shows goes into the user's file; its size and time as recorded, None where nobody did."""

    target: str
    top: str
    base: str
    base_format: str
    base_was: tuple[int, int] | None
    is_device: bool = False


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """What is to be done once the domain is undefined, and the definition on the user's own files."""

    merges: tuple[Merge, ...] = ()
    # Overlays that libvirt's own revert put beside the user's files
    beside: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    xml_on_own_files: str = field(default="", repr=False)


def plan_leaving(view: View, *, formats: dict[str, str], devices: frozenset[str] = frozenset()) -> Leaving:
    """Find what virtsnap made for a shut-off domain; `formats` are those of the users' files, by path.

    `devices` are those of them that are block devices.

    On failure: UnsupportedError where a chain cannot be followed down to the user's file.
    """
    merges: list[Merge] = []
    recorded = {
        layer.path: (layer.size_bytes, layer.mtime_ns)
        for snapshot in view.catalog.snapshots if snapshot.facts is not None
        for disk in snapshot.facts.disks for layer in disk.layers
    }
    saved = {
        disk.target: tuple(layer.path for layer in disk.layers)
        for snapshot in view.catalog.snapshots if snapshot.facts is not None for disk in snapshot.facts.disks
    }
    for disk in view.persistent_disks:
        if disk.path is None or not view.was_made_for_us(disk.path):
            continue
        # Where the user's own file is gone already, the chain cannot be followed: then a snapshot knows it.
        chain = view.chains.get(disk.path) or saved.get(disk.target, ())
        base = next((path for path in chain if not view.was_made_for_us(path)), None)
        if base is None:
            raise UnsupportedError(
                f"{view.name}: the chain of disk {disk.target} cannot be followed to the user's own file, "
                "so what the guest wrote cannot be brought there"
            )
        merges.append(Merge(target=disk.target, top=disk.path, base=base, base_format=formats.get(base, "qcow2"),
                            base_was=recorded.get(base), is_device=base in devices))
    paths = {merge.top for merge in merges}
    for snapshot in view.catalog.snapshots:
        paths |= {path for path in (*snapshot.overlay_paths, snapshot.memory_path) if path}
    folders = {str(PurePosixPath(path).parent) for path in paths if is_ours(path, view.uuid)}
    return Leaving(
        merges=tuple(merges), folders=tuple(sorted(folders)),
        beside=tuple(sorted(
            path for chain in view.chains.values() for path in chain
            if view.was_made_for_us(path) and not is_ours(path, view.uuid)
        )),
        xml_on_own_files=_on_own_files(view.persistent_xml, merges),
    )


def _on_own_files(xml: str, merges: list[Merge]) -> str:
    root = parse_xml(xml)
    by_target = {merge.target: merge for merge in merges}
    for disk in root.iterfind("devices/disk"):
        target, source, driver = disk.find("target"), disk.find("source"), disk.find("driver")
        merge = by_target.get(target.get("dev", "")) if target is not None else None
        if merge is None or source is None:
            continue
        if merge.is_device:
            del source.attrib["file"]
        disk.set("type", "block" if merge.is_device else "file")
        source.set("dev" if merge.is_device else "file", merge.base)
        if driver is not None:
            driver.set("type", merge.base_format)
        for element in disk.findall("backingStore"):
            disk.remove(element)
    return to_text(root)


def leave(
    host: Host, domain: Domain, undefine: Callable[[], bool], *, removes_disks: bool
) -> tuple[bool, tuple[str, ...]]:
    """Run `undefine`, and when it says that it worked, clear up; give its answer and warnings.

    Needs: a shut-off domain, which nobody else holds. On failure of `undefine` the domain is as before.
    What cannot be merged keeps its files, and the warning says where they are.
    """
    is_gone = False
    try:
        with Lock(domain, "undefine"):
            view = observe(host, domain, refuse_managed_save=False)
            formats = _formats(host.files, view)
            leaving = plan_leaving(view, formats=formats, devices=_devices(host.files, formats))
            moves = removes_disks and bool(leaving.merges)
            if moves:
                # virsh removes what the definition names: the user's files, not our overlays.
                host.define(leaving.xml_on_own_files)
            try:
                is_gone = undefine()
            finally:
                if moves and not is_gone:
                    host.define(view.persistent_xml)
    except NoSuchDomainError:
        if not is_gone:  # else it is the claim that could not be taken back: it went with the definition
            raise
    warnings = clear_up(host.files, leaving, view.uuid, merge=not removes_disks) if is_gone else ()
    host.files.release()
    return is_gone, warnings


def has_files_of_ours(domain: Domain) -> bool:
    """Say whether anything of virtsnap's is under a domain or in its snapshots."""
    disks = read_disks(parse_xml(domain.persistent_xml())) if domain.is_persistent() else ()
    snapshots = read_catalog((found.xml, False) for found in domain.snapshot_objects(with_secrets=False)).snapshots
    paths = [disk.path for disk in disks]
    paths += [path for snapshot in snapshots for path in (*snapshot.overlay_paths, snapshot.memory_path)]
    return any(path is not None and is_ours(path, domain.uuid) for path in paths)


def _devices(files: HypervisorFiles, paths: Iterable[str]) -> frozenset[str]:
    return frozenset(path for path in paths if (found := files.facts_of(path)) is not None and found.is_device)


def _formats(files: HypervisorFiles, view: View) -> dict[str, str]:
    """Give the formats of the files under our overlays, as far as they can be read."""
    formats: dict[str, str] = {}
    for top in view.chains:
        if view.was_made_for_us(top):
            formats.update({layer.path: layer.format for layer in read_chain(files, top, "qcow2")})
    return formats


def clear_up(files: HypervisorFiles, leaving: Leaving, uuid: str, *, merge: bool) -> tuple[str, ...]:
    """Merge, then remove our files and folders; give what went wrong. No domain may use the files."""
    kept_by: list[str] = []
    for each in leaving.merges if merge else ():
        try:
            _merge(files, each)
        except VirtsnapError as exc:
            kept_by.append(exc.message)
    if kept_by:
        return (*kept_by, "what the guest wrote is still in " + ", ".join(leaving.folders))
    problems = []
    for path in leaving.beside:
        try:
            files.remove(path)
        except VirtsnapError as exc:
            problems.append(exc.message)
    for folder in leaving.folders:
        for path in files.files_in(folder):
            if not is_ours(path, uuid):
                continue
            try:
                files.remove(path)
            except VirtsnapError as exc:
                problems.append(exc.message)
        files.remove_folder_if_empty(folder)
    return tuple(problems)


def _merge(files: HypervisorFiles, merge: Merge) -> None:
    now = files.facts_of(merge.base)
    if now is None:
        return  # the user removed the disk: there is nothing to bring it to
    if merge.base_was is not None and (now.size_bytes, now.mtime_ns) != merge.base_was:
        raise UnsupportedError(
            f"disk {merge.target}: {merge.base} was changed after the save, so nothing is merged into it"
        )
    files.merge_layers(merge.top, into=merge.base)

