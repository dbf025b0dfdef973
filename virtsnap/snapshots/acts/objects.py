"""The steps on libvirt's snapshot objects: forgotten, renamed, made current."""

from __future__ import annotations

from virtsnap.host import Domain
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import read_snapshot, renamed
from virtsnap.snapshots.run import Context, perform, undo


def object_names(domain: Domain) -> set[str]:
    """Give what libvirt has of a domain's snapshots."""
    return {read_snapshot(found.xml).object_name for found in domain.snapshot_objects()}


@perform.register
def _(step: st.ForgetObjects, context: Context) -> None:
    # The youngest first, so that libvirt never has to find another parent for one that goes too.
    there = object_names(context.domain)
    for kept in reversed(step.objects):
        if kept.object_name in there:
            context.domain.forget_snapshot(kept.object_name)


@undo.register
def _(step: st.ForgetObjects, context: Context) -> None:
    there = object_names(context.domain)
    for kept in (*step.objects, *step.orphans):
        if kept in step.orphans or kept.object_name not in there:
            context.domain.redefine_snapshot(kept.xml, current=kept.is_current)


@perform.register
def _(step: st.RenameObject, context: Context) -> None:
    domain = context.domain
    if step.object_name in object_names(domain):
        xml = renamed(domain.snapshot_xml(step.object_name), object_name=step.new_name)
        domain.redefine_snapshot(xml, current=True)
        domain.forget_snapshot(step.object_name)


@undo.register
def _(step: st.RenameObject, context: Context) -> None:
    domain = context.domain
    there = object_names(domain)
    if step.new_name in there:
        if step.object_name not in there:
            xml = renamed(domain.snapshot_xml(step.new_name), object_name=step.object_name)
            domain.redefine_snapshot(xml, current=True)
        domain.forget_snapshot(step.new_name)


@perform.register
def _(step: st.MakeCurrent, context: Context) -> None:
    xml = context.domain.snapshot_xml(step.object_name)
    context.domain.redefine_snapshot(xml, current=True)


@undo.register
def _(step: st.MakeCurrent, context: Context) -> None:
    if step.previous is not None:
        context.domain.redefine_snapshot(context.domain.snapshot_xml(step.previous), current=True)
