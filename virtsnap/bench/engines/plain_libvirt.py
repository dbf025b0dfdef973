"""What libvirt offers by itself: its bare calls, and virsh's verbs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from virtsnap.bench.engines import OPERATION_TIMEOUT_S, EngineRow
from virtsnap.bench.engines.raw_qmp import overlay_over
from virtsnap.bench.engines.through_libvirt import DomainGuest
from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.programs import call_program
from virtsnap.snapshots.definition import on_new_overlays, snapshot_request


def with_fresh_overlays(saved: str, path_of: Callable[[str], str]) -> str:
    """Give a saved definition on new overlays, each at `path_of` its disk's target, which are made."""
    overlays = {}
    for disk in read_disks(parse_xml(saved)):
        if disk.is_writable and disk.path is not None:
            overlays[disk.target] = path_of(disk.target)
            overlay_over(disk.path, overlays[disk.target])
    return on_new_overlays(saved, overlays)


class BareSnapshot(DomainGuest):
    """virDomainSnapshotCreateXML with memory and overlays in files, and nothing around it."""

    def save(self, name: str) -> None:
        """See Engine."""
        targets = (disk.target for disk in read_disks(parse_xml(self._domain.live_xml())) if disk.is_writable)
        request = snapshot_request(
            object_name=name, description=None, memory_path=self._memory(name),
            overlays={target: self._overlay(name, target) for target in targets}, left_out=[],
        )
        self._domain.take_snapshot(request, disk_only=False)

    def forget(self, name: str) -> None:
        """See Engine. The overlays stay: the guest stands on them."""
        self._domain.forget_snapshot(name)
        LocalFiles().remove(self._memory(name))

    def _overlay(self, name: str, target: str) -> str:
        return str(self._machine.folder / f"{name}-{target}.qcow2")

    def _memory(self, name: str) -> str:
        return str(self._machine.folder / f"{name}-memory")


class BareRevert(BareSnapshot):
    """virDomainRevertToSnapshot, which knows external snapshots since 9.9."""

    def load(self, name: str) -> None:
        """See Engine."""
        self._domain.revert(name, paused=False)


class DestroyAndRestore(BareSnapshot):
    """virDomainDestroy, a fresh overlay, virDomainRestoreFlags: what any libvirt can do."""

    def load(self, name: str) -> None:
        """See Engine."""
        memory = self._memory(name)
        self._domain.destroy()
        # Over the overlay of the save, which is left now
        changed = with_fresh_overlays(self._host.saved_xml(memory), lambda target: self._overlay(name, target))
        self._host.restore(memory, changed, paused=False)


class Virsh(DomainGuest):
    """Verbs of the installed virsh, as somebody types them."""

    def _virsh(self, verb: str, *words: str) -> None:
        uri = () if self._here.uri is None else ("-c", self._here.uri)
        call_program(["virsh", *uri, "-q", verb, *words], timeout_s=OPERATION_TIMEOUT_S)


class VirshInternal(Virsh):
    """virsh snapshot-create-as and snapshot-revert without more words: internal snapshots."""

    def save(self, name: str) -> None:
        """See Engine."""
        self._virsh("snapshot-create-as", self._machine.name, name)

    def load(self, name: str) -> None:
        """See Engine."""
        self._virsh("snapshot-revert", self._machine.name, name)

    def forget(self, name: str) -> None:
        """See Engine."""
        self._virsh("snapshot-delete", self._machine.name, name)


class VirshSave(Virsh):
    """virsh save, and restore at once so that the guest goes on; a load is destroy and restore."""

    def save(self, name: str) -> None:
        """See Engine."""
        self._virsh("save", self._machine.name, self._memory(name))
        self._virsh("restore", self._memory(name))

    def load(self, name: str) -> None:
        """See Engine."""
        self._virsh("destroy", self._machine.name)
        self._virsh("restore", self._memory(name))

    def forget(self, name: str) -> None:
        """See Engine."""
        LocalFiles().remove(self._memory(name))

    def _memory(self, name: str) -> str:
        return str(self._machine.folder / f"{name}-memory")


class VirshSparse(VirshSave):
    """virsh save into libvirt's sparse format by two channels, with new overlays and virsh restore around it.

    A snapshot cannot have that format: libvirt then says "migration to a file is not supported".
    """

    _CHANNELS = ("--parallel-channels", "2")

    def save(self, name: str) -> None:
        """See Engine."""
        memory = self._memory(name)
        self._virsh("save", self._machine.name, memory, "--image-format", "sparse", *self._CHANNELS)
        self._go_on_from(memory, name)

    def load(self, name: str) -> None:
        """See Engine."""
        self._virsh("destroy", self._machine.name)
        self._go_on_from(self._memory(name), name)

    def forget(self, name: str) -> None:
        """See Engine. The overlays stay: the guest stands on them."""
        for path in (self._memory(name), f"{self._memory(name)}.xml"):
            LocalFiles().remove(path)

    def _go_on_from(self, memory: str, name: str) -> None:
        changed = Path(f"{memory}.xml")
        changed.write_text(with_fresh_overlays(
            self._host.saved_xml(memory), lambda target: str(self._machine.folder / f"{name}-{target}.qcow2")
        ))
        self._virsh("restore", memory, "--xml", str(changed), "--running", *self._CHANNELS)


ROWS = (
    EngineRow(name="libvirt-revert", title="libvirt's bare snapshot and revert calls", kind="libvirt",
              libvirt=((9, 9), (99, 0)), make=BareRevert),
    EngineRow(name="libvirt-restore", title="libvirt's bare snapshot call; destroy + restore", kind="libvirt",
              make=DestroyAndRestore),
    EngineRow(name="virsh-save", title="virsh save + restore; virsh destroy + restore", kind="libvirt",
              make=VirshSave),
    EngineRow(name="virsh-sparse", title="virsh save and restore in the sparse format, two channels, new overlays",
              kind="libvirt", libvirt=((11, 2), (99, 0)), qemu=((9, 0), (99, 0)), make=VirshSparse, every=2),
    EngineRow(name="internal-virsh", title="internal snapshot by virsh (snapshot-create-as, snapshot-revert)",
              kind="internal", make=VirshInternal, every=2),
)
