"""The steps that make room: the folder, overlays, and a persistent definition for a transient domain."""

from __future__ import annotations

from virtsnap.host.chains import read_chain
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.definition import as_metadata, our_metadata
from virtsnap.snapshots.run import Context, perform, undo


@perform.register
def _(step: st.MakeFolder, context: Context) -> None:
    context.host.files.make_folder(step.path)


@undo.register
def _(step: st.MakeFolder, context: Context) -> None:
    context.host.files.remove_folder_if_empty(step.path)


@perform.register
def _(step: st.MakePersistent, context: Context) -> None:
    # libvirt remembers the definition of the time when a transient domain was last persistent.
    context.define(context.domain.persistent_xml())


@undo.register
def _(step: st.MakePersistent, context: Context) -> None:
    _make_transient(context)


@perform.register
def _(step: st.MakeTransient, context: Context) -> None:
    _make_transient(context)


def _make_transient(context: Context) -> None:
    """Take the persistent definition away, with nothing of ours in what libvirt remembers of it."""
    domain = context.domain
    # A shut-off transient domain is none: with its definition would go its snapshots.
    if not domain.is_active() or not domain.is_persistent():
        return
    for text, prefix, uri in map(as_metadata, context.elements()):
        domain.set_metadata(text, prefix=prefix, uri=uri, live=True, persistent=False)
    for prefix, uri in our_metadata(domain.persistent_xml()):
        domain.set_metadata(None, prefix=prefix, uri=uri, live=False, persistent=True)
    domain.undefine()


@perform.register
def _(step: st.MakeOverlay, context: Context) -> None:
    files, owner, size = context.host.files, None, step.virtual_bytes
    if step.owner_like is not None:
        like = files.facts_of(step.owner_like)
        owner = None if like is None else (like.uid, like.gid)
    if size is None:
        size = read_chain(files, step.backing_path, step.backing_format)[0].virtual_bytes
    files.make_overlay(
        step.path, backing_path=step.backing_path, backing_format=step.backing_format, virtual_bytes=size,
        owner=owner,
    )


@undo.register
def _(step: st.MakeOverlay, context: Context) -> None:
    context.host.files.remove(step.path)
