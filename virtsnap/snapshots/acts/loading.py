"""The steps of a load by `restore`: guest stopped, memory restored, both definitions brought together."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from virtsnap.domain_xml.live import parse_xml, writable_paths
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
    # Somebody may have started the domain on the disks of before meanwhile: that guest stays.
    if is_of_this_load(context.domain, writable_paths(step.xml), was_let_run=context.let_run):
        context.domain.destroy()
    put_back_refused(context.domain.persistent_xml(), context)


def put_back_refused(wanted: str, context: Context) -> None:
    """Make `wanted` the domain's definition again where libvirt refused to start another, and no guest runs.

    Such a domain has two, as if a guest ran: one for a start, which defining replaces, and one that takes its
    place at the end of a guest that never was (virDomainObjAssignDef; seen on 9.0 and 11.3). After a refused
    restore the first is the refused one, after a refused revert (11.3) the second. Only that end leaves one: so a
    guest is started on the disks of before, stopped at reset, given what shall come after it, and ended.
    """
    domain = context.domain
    if domain.is_active() or not domain.is_persistent() or not domain.has_two_definitions():
        return
    context.define(wanted)
    try:
        domain.start(paused=True, ends_with_us=True)
        context.define(wanted)
    finally:
        domain.destroy()
        context.define(wanted)  # the only one now, or the one for a start where that failed


def runs_on(domain: Domain, paths: Iterable[str | None]) -> bool:
    """Say whether there is a guest whose disks are these (or that has none where `paths` is empty)."""
    if not domain.is_active():
        return False
    return writable_paths(domain.live_xml()) == set(paths)


def is_of_this_load(domain: Domain, paths: Collection[str | None], *, was_let_run: bool = False) -> bool:
    """Say whether there is a guest with these disks that a load made, and let run only where `was_let_run`."""
    return runs_on(domain, paths) and is_told_apart(domain, paths, was_let_run=was_let_run)


def is_told_apart(domain: Domain, disks: Collection[object], *, was_let_run: bool) -> bool:
    """Say whether an active domain's guest on a load's disks can be only that load's.

    Where there are none, one that runs without having been let is another guest: the old one, or somebody's. A
    paused one cannot be told.
    """
    return bool(disks) or was_let_run or domain.power() == "paused"


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
    # Somebody may have started the domain on the disks of before meanwhile: that guest stays.
    if step.paths is not None and is_of_this_load(context.domain, step.paths, was_let_run=context.let_run):
        context.domain.destroy()


@perform.register
def _(step: st.ResumeGuest, context: Context) -> None:
    context.let_run = True
    try:
        context.domain.resume()
    except VirtsnapError:
        if context.domain.power() != "running":  # else whoever was killed had done it
            raise
