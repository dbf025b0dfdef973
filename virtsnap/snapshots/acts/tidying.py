"""The steps that give back room: layers pulled together, files removed."""

from __future__ import annotations

from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host.chains import read_chain
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.run import Context, perform


@perform.register
def _(step: st.PullLayers, context: Context) -> None:
    files = context.host.files
    chain = read_chain(files, step.path, "qcow2")
    if chain[1].path == step.base_path:
        return  # done before this process took over
    before = files.facts_of(step.path)
    if step.is_active and context.domain.is_active():
        context.domain.pull_layers(step.target, base=step.base_path, timeout_s=context.remaining_s())
    else:
        files.rebase(step.path, base=step.base_path, base_format=step.base_format)
    after = files.facts_of(step.path)
    if before is not None and after is not None:
        grown = max(0, after.held_bytes - before.held_bytes)
        context.bytes["pulled"] = context.bytes.get("pulled", 0) + grown


@perform.register
def _(step: st.RemoveFiles, context: Context) -> None:
    freed, problems = 0, []
    files = context.host.files
    kept = files.same_files(step.paths, step.needed)
    for path in step.paths:
        if path in kept:
            continue
        try:
            found = files.facts_of(path)
            if files.remove(path) and found is not None:
                freed += found.held_bytes
        except VirtsnapError as exc:
            problems.append(exc.message)
    for folder in step.folders:
        files.remove_folder_if_empty(folder)
    context.bytes["freed"] = context.bytes.get("freed", 0) + freed
    if problems:
        raise HypervisorError("; ".join(problems))
