"""The files of a snapshot become digests of their contents, recorded once and compared ever after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from virtsnap.errors import HypervisorError, UnsupportedError, VirtsnapError
from virtsnap.host.files import HypervisorFiles
from virtsnap.snapshots.catalog import Facts


class Digests:
    """Digests of files, each read once."""

    def __init__(self, files: HypervisorFiles) -> None:
        self._files = files
        self._known: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Give the digest of a file; on failure: HypervisorError."""
        if path not in self._known:
            self._known[path] = self._files.digest_of(path)
        return self._known[path]


def recorded_digests(facts: Facts) -> Iterator[tuple[str, str | None]]:
    """Give each file of a snapshot with its recorded digest."""
    for held in (facts.memory, facts.ram, facts.beside):
        if held is not None:
            yield held.path, held.digest
    for disk in facts.disks:
        for layer in disk.layers:
            yield layer.path, layer.digest


def digest_problems(facts: Facts, digests: Digests) -> list[str]:
    """Say which files do not hold what was recorded; those without a record are read for nothing else."""
    found = []
    for path, recorded in recorded_digests(facts):
        try:
            if digests.of(path) != recorded and recorded is not None:
                found.append(f"{path} does not hold what it held: its digest is not the recorded one")
        except VirtsnapError as exc:
            found.append(exc.message)
    return found


def require_verified(files: HypervisorFiles, facts: Facts) -> None:
    """Raise unless every file of a snapshot holds what was recorded of it.

    On failure: UnsupportedError where nothing was recorded, HypervisorError (of `require_loadable`'s kind).
    """
    if any(digest is None for _, digest in recorded_digests(facts)):
        raise UnsupportedError(f"snapshot {facts.name!r} cannot be verified: no digests are recorded of it",
                               hint="`virtsnap check --deep` records them, or `virtsnap save --digests`")
    problems = digest_problems(facts, Digests(files))
    if problems:
        raise HypervisorError(f"snapshot {facts.name!r} cannot be loaded: " + "; ".join(problems),
                              hint="the guest was not touched")


def with_digests(facts: Facts, digests: Digests) -> Facts:
    """Give the facts with a digest of every file."""
    memory, ram, beside = facts.memory, facts.ram, facts.beside
    return replace(
        facts,
        memory=None if memory is None else replace(memory, digest=digests.of(memory.path)),
        ram=None if ram is None else replace(ram, digest=digests.of(ram.path)),
        beside=None if beside is None else replace(beside, digest=digests.of(beside.path)),
        disks=tuple(
            replace(disk, layers=tuple(replace(layer, digest=digests.of(layer.path)) for layer in disk.layers))
            for disk in facts.disks
        ),
    )
