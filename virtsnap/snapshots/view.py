"""What was seen of a domain before an operation is planned: values only, so that plans are pure.

`virtsnap.snapshots.observe` fills it on a host; tests write it by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtsnap.domain_xml.beside_disks import StatePlace, places_beside_disks
from virtsnap.domain_xml.live import Disk, parse_xml
from virtsnap.domain_xml.ram_file import read_ram_file
from virtsnap.snapshots.catalog import Catalog, Snapshot
from virtsnap.snapshots.places import is_native_overlay, is_ours


@dataclass(frozen=True, kw_only=True)
class Unneeded:
    """Files that can go, and those that were found to be needed."""

    paths: tuple[str, ...]
    needed: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class View:
    """A domain, its snapshots, and the chains of files under both.

    `chains` gives for the path of a disk all files of its chain, itself first;
    a path whose chain could not be followed is not in it. `tpm_root` is where the hypervisor has the domain's
    TPM; `unreachable` says what beside the disks cannot be kept, and why. `qemu_version` is (0, 0) where
    nobody knows it.
    """

    name: str
    uuid: str
    state: str
    is_active: bool
    is_persistent: bool
    live_xml: str = field(repr=False)
    persistent_xml: str = field(repr=False)
    disks: tuple[Disk, ...]
    persistent_disks: tuple[Disk, ...]
    catalog: Catalog
    chains: Mapping[str, tuple[str, ...]]
    tpm_root: str = ""
    unreachable: tuple[str, ...] = ()
    qemu_version: tuple[int, int] = (0, 0)

    @property
    def beside_disks(self) -> tuple[StatePlace, ...]:
        """Give what the domain keeps beside its disks."""
        return places_beside_disks(parse_xml(self.persistent_xml), tpm_root=self.tpm_root)

    @property
    def writable_disks(self) -> tuple[Disk, ...]:
        """Give the disks that a snapshot holds."""
        return tuple(disk for disk in self.disks if disk.is_writable)

    def files_of_the_line(self) -> frozenset[str] | None:
        """Name the files under the disks of both definitions; None where a chain could not be followed."""
        tops = {disk.path for disk in (*self.disks, *self.persistent_disks) if disk.is_writable and disk.path}
        under = self._under(tops)
        return None if under is None else under | self.ram_of_the_line()

    def ram_of_the_line(self) -> frozenset[str]:
        """Name the file of ours that the running guest's RAM is a copy of, page by page; or nothing."""
        ram = read_ram_file(parse_xml(self.live_xml)) if self.is_active else None
        return frozenset({ram.path} if ram is not None and is_ours(ram.path, self.uuid) else ())

    def files_of(self, snapshot: Snapshot) -> frozenset[str] | None:
        """Name the files that a snapshot needs; None where that cannot be known."""
        if snapshot.facts is not None:
            return frozenset(snapshot.facts.files)
        under = self._under(set(snapshot.frozen_paths))
        if under is None:
            return None
        return under | ({snapshot.memory_path} if snapshot.memory_path else set())

    def _under(self, tops: set[str]) -> frozenset[str] | None:
        if any(top not in self.chains for top in tops):
            return None
        return frozenset(path for top in tops for path in self.chains[top])

    def unneeded(
        self, *, gone: tuple[Snapshot, ...], kept: tuple[Snapshot, ...], line: frozenset[str] | None,
        abandoned: frozenset[str] = frozenset(),
    ) -> Unneeded:
        """Find the files of ours that nothing needs once `gone` is gone and the domain runs on `line`.

        A file that anything may still stand on is kept: where what `kept` or the line needs cannot be
        known, only the memory images of `gone` go, and the state beside its disks.
        """
        candidates = set(abandoned)
        for snapshot in gone:
            candidates |= self.files_of(snapshot) or set()
            candidates |= set(snapshot.overlay_paths)
        alone = {snapshot.memory_path for snapshot in gone if snapshot.memory_path}
        alone |= {path for each in gone if each.facts is not None for path in each.facts.own_files}
        needed: set[str] = set()
        for used in (line, *(self.files_of(snapshot) for snapshot in kept)):
            if used is None:
                candidates &= alone
            else:
                needed |= used
        candidates |= alone
        known = (*gone, *kept)
        paths = tuple(sorted(path for path in candidates - needed if self.was_made_for_us(path, known)))
        return Unneeded(paths=paths, needed=frozenset(needed))

    def was_made_for_us(self, path: str, known: tuple[Snapshot, ...] | None = None) -> bool:
        """Say whether virtsnap made a file for this domain, or libvirt's revert did to a snapshot of ours."""
        snapshots = self.catalog.snapshots if known is None else known
        return is_ours(path, self.uuid) or any(
            is_native_overlay(path, disk.frozen.path, since_s=snapshot.facts.created_ns // 10**9)
            for snapshot in snapshots if snapshot.facts is not None for disk in snapshot.facts.disks
        )
