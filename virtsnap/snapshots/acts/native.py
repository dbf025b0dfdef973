"""The step of a load by libvirt's own revert, and what has to be kept from it."""

from __future__ import annotations

import time
from pathlib import PurePosixPath

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.host import Domain
from virtsnap.host.files import HypervisorFiles
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.acts.loading import is_told_apart, put_back_refused
from virtsnap.snapshots.definition import our_metadata, with_metadata_in_snapshot, with_revert_disks
from virtsnap.snapshots.places import is_native_overlay
from virtsnap.snapshots.run import Context, perform, undo

# What libvirt's revert is told to remove; it is content when there is nothing.
_NO_FILE = "/nonexistent/virtsnap"

@perform.register
def _(step: st.RevertNatively, context: Context) -> None:
    domain, kept = context.domain, step.snapshot
    # The revert replaces both definitions by those in the snapshot object: so claim and journal go in there.
    marked = with_metadata_in_snapshot(kept.xml, context.elements())
    # It also removes the files under the guest that it takes for abandoned, without looking who stands on them:
    # the current snapshot's <revertDisks>, else its overlays (qemuSnapshotRevertExternalFinish, 9.9 to 11.3).
    marked = with_revert_disks(marked, [target for target, _ in step.frozen], path=_NO_FILE)
    domain.redefine_snapshot(marked, current=True)
    _await_a_new_second(step, context.host.files)
    domain.revert(kept.object_name, paused=step.has_memory)
    if domain.is_active():
        for prefix, uri in our_metadata(domain.live_xml()):
            domain.set_metadata(None, prefix=prefix, uri=uri, live=True, persistent=False)
    overlays = native_overlays(step, domain.persistent_xml())
    for path in overlays:
        context.host.files.make_private(path)
    _remove_native(step, context.host.files, but=overlays)
    domain.redefine_snapshot(kept.xml, current=True)


@undo.register
def _(step: st.RevertNatively, context: Context) -> None:
    domain = context.domain
    if runs_on_native(domain, step, was_let_run=context.let_run):
        domain.destroy()
    if _is_redefined(step, domain.persistent_xml()):
        context.define(step.previous_xml)
    put_back_refused(step.previous_xml, context)
    domain.redefine_snapshot(step.snapshot.xml, current=step.snapshot.is_current)
    if step.current is not None and not step.snapshot.is_current:
        domain.redefine_snapshot(domain.snapshot_xml(step.current), current=True)
    if not domain.is_active():
        _remove_native(step, context.host.files)


def _is_redefined(step: st.RevertNatively, xml: str) -> bool:
    """Say whether a definition is of this revert's making.

    A disk is on an overlay of it; or on the frozen file itself, where libvirt refused to start the guest and has
    put the snapshot's definition there.
    """
    now, before = (
        {disk.target: disk.path for disk in read_disks(parse_xml(each))} for each in (xml, step.previous_xml)
    )
    return bool(native_overlays(step, xml)) or any(
        now.get(target) == frozen != before.get(target) for target, frozen in step.frozen
    )


def _await_a_new_second(step: st.RevertNatively, files: HypervisorFiles) -> None:
    """Wait while there is an overlay of this second's name: libvirt would refuse to make another."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and any(
        is_native_overlay(path, frozen, since_s=int(time.time()))
        for _, frozen in step.frozen for path in files.files_in(_folder_of(frozen))
    ):
        time.sleep(0.05)


def _remove_native(step: st.RevertNatively, files: HypervisorFiles, *, but: tuple[str, ...] = ()) -> None:
    """Remove what this revert made and left: a try that failed, or was cut off."""
    for _, frozen in step.frozen:
        for path in files.files_in(_folder_of(frozen)):
            ours = path not in step.there and is_native_overlay(path, frozen, since_s=step.since_s)
            if ours and path not in but:
                files.remove(path)


def _folder_of(path: str) -> str:
    return str(PurePosixPath(path).parent)


def native_overlays(step: st.RevertNatively, xml: str) -> tuple[str, ...]:
    """Give the disks of a definition that are overlays of this revert."""
    now = {disk.target: disk.path for disk in read_disks(parse_xml(xml))}
    return tuple(
        path for target, frozen in step.frozen
        if (path := now.get(target)) is not None and path not in step.there
        and is_native_overlay(path, frozen, since_s=step.since_s)
    )


def runs_on_native(domain: Domain, step: st.RevertNatively, *, was_let_run: bool = False) -> bool:
    """Say whether there is a guest that this revert started."""
    if not domain.is_active() or len(native_overlays(step, domain.live_xml())) != len(step.frozen):
        return False
    return is_told_apart(domain, step.frozen, was_let_run=was_let_run)
