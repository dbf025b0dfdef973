"""The steps of a save by `instant`, done and undone: pause, what QEMU writes, the copy of the RAM, the record."""

from __future__ import annotations

from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.ram_file import RAM_ID, move_ram
from virtsnap.errors import HypervisorError
from virtsnap.host.asked_ram import save_changes
from virtsnap.host.files import unfinished
from virtsnap.host.guest_ram import (
    begun_copy,
    clone_file,
    copy_ram,
    flush_ram,
    populate_file,
    qemu_user,
)
from virtsnap.host.memory_image import change_image, read_definition
from virtsnap.host.ram_stream import split_image
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.acts.saving import require_paused
from virtsnap.snapshots.catalog import strip_our_metadata, to_text
from virtsnap.snapshots.definition import snapshot_record
from virtsnap.snapshots.run import Context, perform, undo

_LEFT_OUT = "x-ignore-shared"


@perform.register
def _(step: st.PauseGuest, context: Context) -> None:
    if context.domain.power() == "running":
        context.domain.pause()


@undo.register
def _(step: st.PauseGuest, context: Context) -> None:
    if context.domain.power() == "paused":
        context.domain.resume()


@perform.register
def _(step: st.LeaveRamOut, context: Context) -> None:
    context.domain.monitor.set_capability(_LEFT_OUT, True)


@undo.register
def _(step: st.LeaveRamOut, context: Context) -> None:
    if context.domain.is_active():
        context.domain.monitor.set_capability(_LEFT_OUT, False)


@perform.register
def _(step: st.FlushRam, context: Context) -> None:
    flush_ram(context.domain.uuid, path=step.ram_path, size_bytes=step.size_bytes)


@perform.register
def _(step: st.BeginCopy, context: Context) -> None:
    context.begun_copy = context.held.enter_context(begun_copy(
        context.domain.uuid, path=step.ram_path, size_bytes=step.size_bytes, to=step.path,
        timeout_s=context.remaining_s(),
    ))


@undo.register
def _(step: st.BeginCopy, context: Context) -> None:
    context.host.files.remove(step.path)


@perform.register
def _(step: st.PopulateRam, context: Context) -> None:
    populate_file(step.ram_path, timeout_s=context.remaining_s())


@perform.register
def _(step: st.CloneRam, context: Context) -> None:
    clone_file(step.source_path, step.path)


@undo.register
def _(step: st.CloneRam, context: Context) -> None:
    for path in (step.path, unfinished(step.path)):
        context.host.files.remove(path)


@perform.register
def _(step: st.CopyRam, context: Context) -> None:
    if context.begun_copy is not None:
        context.bytes["memory"] = context.begun_copy.finish(
            context.domain.uuid, path=step.ram_path, size_bytes=step.size_bytes, timeout_s=context.remaining_s()
        )
    else:
        context.bytes["memory"] = copy_ram(
            context.domain.uuid, path=step.ram_path, size_bytes=step.size_bytes, to=step.path,
            timeout_s=context.remaining_s(),
        )
    require_paused(context.domain)


@undo.register
def _(step: st.CopyRam, context: Context) -> None:
    context.host.files.remove(step.path)
    if step.resumes and context.domain.power() == "paused":
        context.domain.resume()


@perform.register
def _(step: st.SaveChanges, context: Context) -> None:
    definition = parse_xml(context.domain.migratable_xml())
    strip_our_metadata(definition)
    save_changes(
        context.domain, xml=to_text(definition), cookie=step.cookie, block=RAM_ID, size_bytes=step.size_bytes,
        ram_path=step.ram_path, to=step.memory_path, timeout_s=context.remaining_s(),
    )


@undo.register
def _(step: st.SaveChanges, context: Context) -> None:
    context.host.files.remove(step.memory_path)
    if context.domain.is_active():
        context.domain.monitor.forget_peer()


@perform.register
def _(step: st.RecordSnapshot, context: Context) -> None:
    context.domain.redefine_snapshot(snapshot_record(
        step.request, state=step.state, created_s=step.created_s, parent=step.parent,
        domain=read_definition(step.memory_path), inactive_domain=step.persistent_xml, cookie=step.cookie,
    ), current=True)


@perform.register
def _(step: st.SplitRam, context: Context) -> None:
    context.bytes["memory"] = split_image(
        step.memory_path, block=RAM_ID, size_bytes=step.size_bytes, to=step.path,
        owner=qemu_user(context.domain.uuid), base=step.base_path,
    )


@undo.register
def _(step: st.SplitRam, context: Context) -> None:
    for path in (step.path, unfinished(step.path), unfinished(step.memory_path)):
        context.host.files.remove(path)


@perform.register
def _(step: st.TakeRamIn, context: Context) -> None:
    if context.domain.is_active():
        context.domain.monitor.set_capability(_LEFT_OUT, False)


@perform.register
def _(step: st.PlaceRam, context: Context) -> None:
    def placed(xml: str) -> str:
        domain = parse_xml(xml)
        move_ram(domain, step.ram_path, is_shared=step.is_shared, is_read_only=step.is_read_only)
        return to_text(domain)

    if context.host.is_local:
        change_image(step.memory_path, placed, runs=step.state == "running")
    elif step.is_shared:
        # It has all RAM in it, and libvirt saw no pause: the definition alone is to be changed.
        context.host.change_saved_xml(step.memory_path, placed(context.host.saved_xml(step.memory_path)))
    else:
        raise HypervisorError(f"{step.memory_path}: a save by `instant` can be finished on its own machine only")
    root = parse_xml(context.domain.snapshot_xml(step.object_name))
    state, domain = root.find("state"), root.find("domain")
    if state is not None:
        state.text = step.state  # libvirt saw the pause of the save
    if domain is not None:
        move_ram(domain, step.ram_path, is_shared=step.is_shared, is_read_only=step.is_read_only)
    context.domain.redefine_snapshot(to_text(root), current=True)
