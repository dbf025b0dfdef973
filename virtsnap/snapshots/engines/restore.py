"""Revert by restoring the memory image with changed XML over fresh overlays; any version of libvirt.

libvirt < 9.9 has no revert for external snapshots. What it has is
virDomainRestoreFlags with a definition of the caller's, which may name other
disk files than the image does.
"""

from __future__ import annotations

from dataclasses import replace

from virtsnap.domain_xml.live import parse_xml, writable_paths
from virtsnap.domain_xml.quick_start import start_quickly
from virtsnap.snapshots.catalog import to_text
from virtsnap.snapshots.definition import on_new_overlays
from virtsnap.snapshots.engines import Revert
from virtsnap.snapshots.origin import origin_in_snapshot, set_origin
from virtsnap.snapshots.steps import DefineDomain, MakeOverlay, RestoreMemory, StartGuest, Step, StopGuest


class RestoreEngine:
    """See the module."""

    name = "restore"

    def prepare(self, revert: Revert) -> tuple[Step, ...]:
        """Plan an overlay for each disk over the file that was the disk at the save."""
        paths, owners = dict(revert.overlays), dict(revert.owner_like)
        return tuple(
            MakeOverlay(
                path=paths[disk.target], backing_path=disk.frozen.path, backing_format=disk.frozen.format,
                virtual_bytes=disk.frozen.virtual_bytes, owner_like=owners.get(disk.target),
            )
            for disk in revert.facts.disks
        )

    def switch(self, revert: Revert) -> tuple[Step, ...]:
        """Plan stop, restore (or boot) paused, and the persistent definition.

        The definition comes after the restore: until then a failure finds the old one in place. An
        offline snapshot is booted from the persistent definition, which then has to come first.
        """
        overlays = dict(revert.overlays)
        stop: tuple[Step, ...] = (StopGuest(),) if revert.is_active else ()
        define = DefineDomain(
            xml=on_new_overlays(revert.persistent_xml, overlays), previous_xml=revert.previous_persistent_xml
        )
        if revert.facts.memory is None or revert.saved_xml is None:
            boot = StartGuest(paths=tuple(sorted(filter(None, writable_paths(define.xml)))))
            return (*stop, define, boot) if revert.start else (*stop, define)
        domain = parse_xml(on_new_overlays(revert.saved_xml, overlays))
        start_quickly(domain)
        if revert.facts.ram is not None and revert.ram_path is None:  # it will be mapped privately
            set_origin(domain, origin_in_snapshot(revert.facts.ram, revert.snapshot.xml))
        restore = RestoreMemory(memory_path=revert.facts.memory.path, xml=to_text(domain))
        return (*stop, restore, replace(define, notes_ahead=True))
