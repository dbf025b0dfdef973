"""One libvirt domain: its definitions, its life, its snapshot objects; XML in, XML and plain values out.

Every method is one libvirt call or a few that belong together, and raises
virtsnap's errors. What to call in which order is decided in
`virtsnap.snapshots`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import libvirt

from virtsnap.domain_xml.live import has_metadata
from virtsnap.errors import OperationTimeoutError
from virtsnap.host.monitor import Monitor
from virtsnap.host.qemu_process import ended
from virtsnap.host.translate import translated

Power = Literal["running", "paused", "shutoff", "crashed"]

_POWER: dict[int, Power] = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",  # on its way down; the process is still there
    libvirt.VIR_DOMAIN_SHUTOFF: "shutoff",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
}

# virsh's words for what it lists and how it takes snapshots
SNAPSHOT_FILTERS: Mapping[str, int] = {
    "roots": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_ROOTS,
    "leaves": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_LEAVES,
    "no-leaves": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_NO_LEAVES,
    "metadata": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_METADATA,
    "no-metadata": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_NO_METADATA,
    "inactive": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_INACTIVE,
    "active": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_ACTIVE,
    "disk-only": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_DISK_ONLY,
    "internal": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_INTERNAL,
    "external": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_EXTERNAL,
    "descendants": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_DESCENDANTS,
    "topological": libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL,
}
SNAPSHOT_WISHES: Mapping[str, int] = {
    "no-metadata": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
    "halt": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_HALT,
    "reuse-external": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT,
    "quiesce": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE,
    "live": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE,
    "validate": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE,
}


@dataclass(frozen=True, kw_only=True)
class SnapshotObject:
    """A snapshot as libvirt holds it: its XML, and whether it is the current one."""

    xml: str
    is_current: bool


class Domain:
    """A domain that exists; made by `Host.domain` and `Host.define`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        with translated("cannot read the domain's identity"):
            self.name: str = handle.name()
            self.uuid: str = handle.UUIDString()
        self.monitor = Monitor(handle, self.name)

    # What it is

    def power(self) -> Power:
        """Say whether it runs. A domain that is gone (a transient one that stopped) counts as shut off."""
        try:
            return _POWER.get(self._handle.info()[0], "running")
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return "shutoff"
            with translated(f"{self.name}: cannot read its state"):
                raise

    def is_active(self) -> bool:
        """Say whether there is a QEMU process."""
        with translated(f"{self.name}: cannot read its state"):
            return bool(self._handle.isActive())

    def is_persistent(self) -> bool:
        """Say whether libvirt keeps a definition of it on disk."""
        with translated(f"{self.name}: cannot read its state"):
            return bool(self._handle.isPersistent())

    def has_managed_save(self) -> bool:
        """Say whether the next start would come from a `virsh managedsave` image."""
        with translated(f"{self.name}: cannot read its state"):
            return bool(self._handle.hasManagedSaveImage())

    def live_xml(self) -> str:
        """Give the definition in force (the live one of a running domain), secrets included."""
        with translated(f"{self.name}: cannot read its definition"):
            return str(self._handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))

    def migratable_xml(self) -> str:
        """Give the live definition as libvirt puts it into a memory image, secrets included."""
        with translated(f"{self.name}: cannot read its definition"):
            return str(self._handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))

    def persistent_xml(self) -> str:
        """Give the definition for the next boot, secrets included."""
        with translated(f"{self.name}: cannot read its persistent definition"):
            return str(self._handle.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE))

    # Its life

    def start(self, *, paused: bool, ends_with_us: bool = False) -> None:
        """Start a shut-off domain, running or stopped at reset; `ends_with_us` ends it with our connection."""
        flags = (libvirt.VIR_DOMAIN_START_PAUSED if paused else 0) | (
            libvirt.VIR_DOMAIN_START_AUTODESTROY if ends_with_us else 0
        )
        with translated(f"{self.name}: cannot start"):
            self._handle.createWithFlags(flags)

    def pause(self) -> None:
        """Pause a running guest."""
        with translated(f"{self.name}: cannot pause"):
            self._handle.suspend()

    def resume(self) -> None:
        """Let a paused guest run."""
        with translated(f"{self.name}: cannot resume"):
            self._handle.resume()

    def destroy(self) -> None:
        """End the QEMU process. It is no error when there is none."""
        with translated(f"{self.name}: cannot stop"):
            try:
                self._handle.destroy()
            except libvirt.libvirtError as exc:
                gone = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)
                if exc.get_error_code() not in gone or self.power() != "shutoff":
                    raise

    def stop(self, *, is_local: bool, held: contextlib.ExitStack | None = None) -> None:
        """End the QEMU process as `destroy` does, faster where it is on this machine and may be traced.

        `held` gets what is freed later: the guest's RAM where it is in a file of ours.
        """
        with ended(self.uuid, held=held) if is_local else contextlib.nullcontext():
            self.destroy()

    def undefine(self) -> None:
        """Take the persistent definition away; a running domain goes on as a transient one.

        NVRAM and TPM state are kept. libvirt keeps the snapshot objects of a
        running domain, and refuses to undefine a shut-off one that has some.
        """
        flags = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM
        with translated(f"{self.name}: cannot undefine"):
            self._handle.undefineFlags(flags)

    def abort_job(self) -> None:
        """Ask libvirt to cancel what the domain is busy with; it is no error when it is idle."""
        with contextlib.suppress(libvirt.libvirtError):
            self._handle.abortJob()

    def set_clock(self, now_ns: int, *, patience_s: float = 3.0) -> None:
        """Have the guest's agent set its clock; `now_ns` is Unix time.

        An agent that libvirt does not know of yet (the guest has just been brought back) is waited for.
        On failure: HypervisorError or UnsupportedError, no agent among the reasons; the clock may be what it was.
        """
        seconds, nseconds = divmod(now_ns, 10**9)
        deadline = time.monotonic() + patience_s
        with translated(f"{self.name}: cannot set the guest's clock"):
            while True:
                try:
                    self._handle.setTime({"seconds": seconds, "nseconds": nseconds})
                    return
                except libvirt.libvirtError as exc:
                    waiting = exc.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
                    if not waiting or time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)

    def pull_progress(self, target: str) -> tuple[int, int] | None:
        """Give bytes done and bytes in all of a disk's block job; None where there is none."""
        try:
            job = self._handle.blockJobInfo(target, 0)
        except libvirt.libvirtError:
            return None
        return (int(job["cur"]), int(job["end"])) if job and job.get("end") else None

    # Consoles

    def number(self) -> int | None:
        """Give the number that libvirt gave to the running QEMU, another one for each; None where none runs.

        On failure: NoSuchDomainError where the domain is gone altogether.
        """
        with translated(f"{self.name}: cannot read its state"):
            # The handle keeps the number of when it was looked up.
            found = self._handle.connect().lookupByUUIDString(self.uuid)
            return int(found.ID()) if found.isActive() else None

    def open_console(self, device: str | None, flags: int) -> Any:
        """Open a serial, parallel or virtio console (by its alias; None is the first) as a libvirt stream."""
        with translated(f"{self.name}: cannot open its console"):
            stream = self._handle.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
            self._handle.openConsole(device, stream, flags)
            return stream

    # Metadata

    def set_metadata(self, xml: str | None, *, prefix: str, uri: str, live: bool, persistent: bool) -> None:
        """Put the element for `uri` into the named definitions' metadata; None takes it out."""
        flags = (libvirt.VIR_DOMAIN_AFFECT_LIVE if live else 0) | (
            libvirt.VIR_DOMAIN_AFFECT_CONFIG if persistent else 0
        )
        with translated(f"{self.name}: cannot write its metadata"):
            self._handle.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, prefix, uri, flags)

    def drop_metadata(self, *, prefix: str, uri: str) -> None:
        """Take the element for `uri` out of whichever definitions have it."""
        # The live one is asked for last: a start meanwhile copies the persistent one into it.
        if self.is_persistent() and has_metadata(self.persistent_xml(), uri):
            self.set_metadata(None, prefix=prefix, uri=uri, live=False, persistent=True)
        if self.is_active() and has_metadata(self.live_xml(), uri):
            self.set_metadata(None, prefix=prefix, uri=uri, live=True, persistent=False)

    def has_two_definitions(self) -> bool:
        """Say whether a shut-off domain has one definition for its next start, and another for after that.

        libvirt does not tell. So a mark is put into one, the next start's on 9.0 and 11.3, and looked for in both.
        """
        uri = "urn:virtsnap:probe"
        self.set_metadata("<probe/>", prefix="virtsnap-probe", uri=uri, live=False, persistent=True)
        try:
            return not (uri in self.live_xml() and uri in self.persistent_xml())
        finally:
            self.set_metadata(None, prefix="virtsnap-probe", uri=uri, live=False, persistent=True)

    # Snapshot objects

    def snapshot_objects(self, *, with_secrets: bool = True) -> tuple[SnapshotObject, ...]:
        """Give all snapshot objects in no special order.

        A read-only connection gets none with secrets; only with them can an object be written back.
        """
        secure = libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE if with_secrets else 0
        with translated(f"{self.name}: cannot list its snapshots"):
            return tuple(
                SnapshotObject(xml=handle.getXMLDesc(secure), is_current=bool(handle.isCurrent()))
                for handle in self._handle.listAllSnapshots()
            )

    def snapshot_names(self, filters: Collection[str] = (), *, below: str | None = None) -> tuple[str, ...]:
        """Name the snapshot objects that pass `filters` (words of SNAPSHOT_FILTERS), in libvirt's order.

        `below` takes the children of that snapshot, its `descendants` where that filter is there.
        """
        flags = sum(SNAPSHOT_FILTERS[word] for word in set(filters))
        with translated(f"{self.name}: cannot list its snapshots"):
            found = (
                self._handle.listAllSnapshots(flags) if below is None
                else self._snapshot(below).listAllChildren(flags)
            )
            return tuple(handle.getName() for handle in found)

    def snapshot_xml(self, object_name: str, *, with_secrets: bool = True) -> str:
        """Give the XML of one snapshot object."""
        secure = libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE if with_secrets else 0
        with translated(f"{self.name}: cannot read snapshot {object_name}"):
            return str(self._snapshot(object_name).getXMLDesc(secure))

    def take_snapshot(self, xml: str, *, disk_only: bool, asked: Collection[str] = ()) -> str:
        """Take an external snapshot, with memory or of the disks alone; give the object's name.

        A shut-off domain needs `disk_only`: without it libvirt wants an internal one.
        ATOMIC is what QEMU's transaction gives anyway; asked for, libvirt refuses where it cannot hold.
        `asked` are words of SNAPSHOT_WISHES.
        """
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | sum(SNAPSHOT_WISHES[word] for word in set(asked))
        if disk_only:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        with translated(f"{self.name}: cannot take the snapshot"):
            return str(self._handle.snapshotCreateXML(xml, flags).getName())

    def redefine_snapshot(self, xml: str, *, current: bool) -> None:
        """Make or replace a snapshot object from its XML; nothing but libvirt's records changes."""
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
        if current:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
        if "<state>disk-snapshot</state>" in xml:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY  # libvirt refuses that state without it
        with translated(f"{self.name}: cannot write the snapshot's record"):
            self._handle.snapshotCreateXML(xml, flags)

    def forget_snapshot(self, object_name: str) -> None:
        """Drop one snapshot object; its children go to its parent, its files stay.

        Never anything but METADATA_ONLY: libvirt 9.0's full delete commits a
        layer into its base without looking for siblings that stand on it.
        """
        with translated(f"{self.name}: cannot forget snapshot {object_name}"):
            self._snapshot(object_name).delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)

    def revert(self, object_name: str, *, paused: bool) -> None:
        """Have libvirt revert; with `paused` a guest is there afterwards, without it as at the save.

        libvirt < 9.9 cannot for external snapshots.
        """
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED if paused else 0
        with translated(f"{self.name}: cannot revert to {object_name}"):
            self._handle.revertToSnapshot(self._snapshot(object_name), flags)

    # Internal snapshots, which are libvirt's own from end to end

    def revert_to_internal(self, object_name: str, *, running: bool, paused: bool, force: bool) -> None:
        """Have libvirt revert to an internal snapshot. Needs: no external one has been taken since."""
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING if running else 0
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED if paused else 0
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE if force else 0
        with translated(f"{self.name}: cannot revert to {object_name}"):
            self._handle.revertToSnapshot(self._snapshot(object_name), flags)

    def delete_internal(self, object_name: str, *, children: bool, children_only: bool) -> None:
        """Have libvirt delete an internal snapshot with its contents. Needs: no external snapshot is there."""
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN if children else 0
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY if children_only else 0
        with translated(f"{self.name}: cannot delete {object_name}"):
            self._snapshot(object_name).delete(flags)

    def _snapshot(self, object_name: str) -> Any:
        return self._handle.snapshotLookupByName(object_name)

    # Block jobs

    def pull_layers(self, target: str, *, base: str, timeout_s: float | None = None) -> None:
        """Copy what the layers between a running domain's disk and `base` hold into the disk itself.

        On success the disk stands on `base`; no other file was written to. On failure the disk shows what it
        showed, on the layers of before.
        """
        with translated(f"{self.name}: cannot pull the layers of {target}"):
            if not self._handle.blockJobInfo(target, 0):  # else a process that died began it
                self._handle.blockRebase(target, base, 0, 0)
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            try:
                while self._handle.blockJobInfo(target, 0):
                    if deadline is not None and time.monotonic() > deadline:
                        raise OperationTimeoutError(f"{self.name}: pulling the layers of {target} took too long")
                    time.sleep(0.05)
            except BaseException:
                with contextlib.suppress(libvirt.libvirtError):
                    self._handle.blockJobAbort(target, 0)
                raise

    def commit_top(self, target: str, *, into: str | None = None, timeout_s: float | None = 120.0) -> None:
        """Merge the active layer of a running domain's disk into the file under it, and run on that one.

        `into` is a file further down, into which the layers between are merged as well. Needs: nothing else
        stands on what is merged into. On success the layers' files are unused and still there. On failure
        the disk runs on its layers as before.
        """
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        if into is None:
            flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
        with translated(f"{self.name}: cannot merge the top layer of {target}"):
            self._handle.blockCommit(target, into, None, 0, flags)
            deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
            while True:
                try:
                    self._handle.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                    return
                except libvirt.libvirtError as exc:
                    # "not ready for pivot yet": the job still copies
                    waiting = exc.get_error_code() == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
                    if not waiting or time.monotonic() > deadline:
                        with contextlib.suppress(libvirt.libvirtError):
                            self._handle.blockJobAbort(target, 0)
                        raise
                    time.sleep(0.02)
