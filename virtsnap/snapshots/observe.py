"""A domain on a host becomes a `View`: everything that a plan depends on, read once."""

from __future__ import annotations

from collections.abc import Iterable

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import UnsupportedError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host.files import read_chain
from virtsnap.snapshots.catalog import Catalog, read_catalog
from virtsnap.snapshots.view import View


def observe_catalog(domain: Domain) -> Catalog:
    """Read the snapshots of a domain; touches no file."""
    return read_catalog((found.xml, found.is_current) for found in domain.snapshot_objects())


def observe(host: Host, domain: Domain) -> View:
    """Read a domain, its snapshots and the chains under both.

    A chain that cannot be followed is left out: what depends on it then refuses. On failure:
    UnsupportedError for a host whose files are not here, and for a domain with a managed save image.
    """
    if not host.is_local:
        raise UnsupportedError(f"{host.uri}: saving and loading need the hypervisor's files on this machine")
    if domain.has_managed_save():
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
    return View(
        name=domain.name, uuid=domain.uuid, state=domain.power(), is_active=domain.is_active(),
        is_persistent=domain.is_persistent(), live_xml=live, persistent_xml=persistent, disks=disks,
        persistent_disks=persistent_disks, catalog=catalog, chains=_chains(tops.items()),
    )


def _chains(tops: Iterable[tuple[str, str | None]]) -> dict[str, tuple[str, ...]]:
    chains = {}
    for path, format_ in tops:
        try:
            chains[path] = tuple(layer.path for layer in read_chain(path, format_))
        except VirtsnapError:
            continue
    return chains
