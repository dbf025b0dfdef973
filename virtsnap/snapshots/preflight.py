"""The files of a snapshot become a verdict before the running guest is stopped.

Looked at: presence, headers, sizes, times and chains; never the contents of
RAM or disks. A snapshot that is visibly damaged leaves the guest running.
"""

from __future__ import annotations

from virtsnap.domain_xml.live import parse_xml, referenced_files
from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host.chains import read_chain
from virtsnap.host.files import HypervisorFiles
from virtsnap.host.memory_image import memory_image_problem
from virtsnap.snapshots.catalog import Facts, SavedDisk, SavedMemory, SavedState
from virtsnap.snapshots.steps import MakeFolder, Plan, ReplaceState


def file_problems(files: HypervisorFiles, facts: Facts) -> list[str]:
    """Say everything that is visibly wrong with the files of a snapshot."""
    problems = [] if facts.memory is None else _memory_problems(files, facts.memory)
    if facts.ram is not None:
        problems += _changed_problems(files, "its RAM file", facts.ram)
    if facts.beside is not None:
        problems += _changed_problems(files, "the archive of what it keeps beside its disks,", facts.beside)
    for disk in facts.disks:
        problems += _disk_problems(files, disk)
    return problems


def require_loadable(files: HypervisorFiles, facts: Facts) -> None:
    """Raise HypervisorError that names everything visibly wrong with the files of a snapshot."""
    problems = file_problems(files, facts)
    try:
        files.require_writable(facts.folder)
    except VirtsnapError as exc:
        problems.append(exc.message)
    if problems:
        raise HypervisorError(f"snapshot {facts.name!r} cannot be loaded: " + "; ".join(problems),
                              hint="the guest was not touched")


def require_room_for(files: HypervisorFiles, plan: Plan) -> None:
    """Raise HypervisorError where a folder of a plan cannot be written to."""
    for step in plan.steps:
        if isinstance(step, MakeFolder):
            files.require_writable(step.path)


def require_files_of(files: HypervisorFiles, domain_xml: str) -> None:
    """Raise HypervisorError that names the files a start of this definition would not find."""
    missing = [path for path in referenced_files(parse_xml(domain_xml)) if not files.exists(path)]
    if missing:
        raise HypervisorError(f"the definition names what is not there: {', '.join(missing)}",
                              hint="the guest was not touched")


def require_places(files: HypervisorFiles, plan: Plan) -> None:
    """Raise HypervisorError where what a snapshot keeps beside its disks could not be put back."""
    problems = [
        problem for step in plan.steps if isinstance(step, ReplaceState) and step.archive is not None
        for problem in files.unreachable_state(step.places)
    ]
    if problems:
        raise HypervisorError(f"snapshot {plan.name!r} cannot be loaded: " + "; ".join(problems),
                              hint="the guest was not touched")


def _memory_problems(files: HypervisorFiles, memory: SavedMemory) -> list[str]:
    problems = _changed_problems(files, "its memory file", memory)
    if problems:
        return problems
    try:
        problem = memory_image_problem(files, memory.path)
    except VirtsnapError as exc:
        return [exc.message]
    return [f"its memory file {memory.path} {problem}"] if problem else []


def _changed_problems(files: HypervisorFiles, what: str, saved: SavedMemory | SavedState) -> list[str]:
    try:
        found = files.facts_of(saved.path)
    except VirtsnapError as exc:
        return [exc.message]
    if found is None:
        return [f"{what} {saved.path} is missing"]
    if found.size_bytes != saved.size_bytes:
        return [f"{what} {saved.path} has {found.size_bytes} bytes, not {saved.size_bytes}"]
    return [f"{what} {saved.path} was written to after the save"] if found.mtime_ns != saved.mtime_ns else []


def _disk_problems(files: HypervisorFiles, disk: SavedDisk) -> list[str]:
    try:
        found = read_chain(files, disk.frozen.path, disk.frozen.format)
    except VirtsnapError as exc:
        return [f"disk {disk.target}: {exc.message}"]
    if [layer.path for layer in found] != [layer.path for layer in disk.layers]:
        return [f"disk {disk.target}: its chain is not the one of the save"]
    return [
        f"disk {disk.target}: {now.path} was changed after the save"
        for now, then in zip(found, disk.layers, strict=True)
        if (now.size_bytes, now.mtime_ns) != (then.size_bytes, then.mtime_ns)
    ]
