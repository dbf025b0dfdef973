"""The steps of a load by `restore`: guest stopped, memory restored, both definitions brought together."""

from __future__ import annotations

from collections.abc import Iterable

from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.domain_xml.quick_start import start_as_always
from virtsnap.errors import VirtsnapError
from virtsnap.host import Domain
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import to_text
from virtsnap.snapshots.run import Context, is_off, perform, undo


@perform.register
def _(step: st.StopGuest, context: Context) -> None:
    context.domain.stop(is_local=context.host.is_local, held=context.held if step.frees_ram_later else None)


@perform.register
def _(step: st.ReplaceState, context: Context) -> None:
    if not context.host.files.is_taken(step.before):  # else one that died replaced what is there
        context.host.files.pack_state(step.places, step.before)
    if step.archive is not None:
        context.host.files.unpack_state(step.archive, step.places)


@undo.register
def _(step: st.ReplaceState, context: Context) -> None:
    if context.host.files.is_taken(step.before) and not context.domain.is_active():
        context.host.files.unpack_state(step.before, step.places)
    context.host.files.remove_state(step.before)


@perform.register
def _(step: st.RestoreMemory, context: Context) -> None:
    try:
        context.host.restore(step.memory_path, step.xml)
    except VirtsnapError:
        # Not every libvirt may know the capability, or start every CPU without it.
        domain = parse_xml(step.xml)
        if not start_as_always(domain) or not is_off(context.domain):
            raise
        context.host.restore(step.memory_path, to_text(domain))


@undo.register
def _(step: st.RestoreMemory, context: Context) -> None:
    restored = _writable_paths(step.xml)
    # Somebody may have started the domain on the disks of before meanwhile: that guest stays.
    if runs_on(context.domain, restored):
        context.domain.destroy()
    _put_back_refused(restored, context)


def _put_back_refused(restored: set[str | None], context: Context) -> None:
    """Make the persistent definition the domain's again where libvirt refused a restore before QEMU was started.

    The refused definition is the domain's then, also for a start, and the persistent one waits for the end of a
    guest that never was (virDomainObjAssignDef; seen on 9.0 and 11.3). Only that end brings it back: so a guest
    is started on the disks of before, stopped at reset, and ended.
    """
    domain = context.domain
    if domain.is_active() or not domain.is_persistent() or _writable_paths(domain.live_xml()) != restored:
        return
    persistent = domain.persistent_xml()
    if _writable_paths(persistent) == restored:
        return
    context.define(persistent)
    domain.start(paused=True)
    try:
        context.define(persistent)
    finally:
        domain.destroy()


def _writable_paths(xml: str) -> set[str | None]:
    return {disk.path for disk in read_disks(parse_xml(xml)) if disk.is_writable}


def runs_on(domain: Domain, paths: Iterable[str | None]) -> bool:
    """Say whether there is a guest whose disks are these (or that has none where `paths` is empty)."""
    if not domain.is_active():
        return False
    return _writable_paths(domain.live_xml()) == set(paths)


@perform.register
def _(step: st.DefineDomain, context: Context) -> None:
    context.define(step.xml)


@undo.register
def _(step: st.DefineDomain, context: Context) -> None:
    context.define(step.previous_xml)


@perform.register
def _(step: st.StartGuest, context: Context) -> None:
    context.domain.start(paused=True)


@undo.register
def _(step: st.StartGuest, context: Context) -> None:
    context.domain.destroy()


@perform.register
def _(step: st.ResumeGuest, context: Context) -> None:
    try:
        context.domain.resume()
    except VirtsnapError:
        if context.domain.power() != "running":  # else whoever was killed had done it
            raise
