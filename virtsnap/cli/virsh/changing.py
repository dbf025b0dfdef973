"""The verbs that change something, and domxml-from-native."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from virtsnap.cli.virsh.reading import pick
from virtsnap.cli.virsh.session import Session, VirshFailure
from virtsnap.cli.virsh.syntax import Command, VirshSyntaxError
from virtsnap.cli.virsh.text import format_request, read_diskspec, read_memspec
from virtsnap.errors import UnsupportedError, UsageError, VirtsnapError
from virtsnap.snapshots.names import encode_name
from virtsnap.snapshots.plan import Final, Scope
from virtsnap.snapshots.run import Outcome

_WISHES = ("halt", "live", "quiesce", "validate")
# These say that the caller keeps account of the files: libvirt is asked for exactly that.
_ASKED_OF_LIBVIRT = ("memspec", "diskspec", "no-metadata", "reuse-external")


def answer_create_as(session: Session, command: Command) -> None:
    """Answer snapshot-create-as: external with memory, unless the caller says what goes where.

    --atomic needs nothing: QEMU switches all disks in one transaction.
    """
    name, description, memspec = command.get("name"), command.get("description"), command.get("memspec")
    diskspecs = command.all("diskspec")
    request = format_request(name=name, description=description, memspec=memspec, diskspecs=diskspecs)
    domain = session.domain(command)
    if command.has("print-xml"):
        session.say(request + "\n")
        return
    asked = [wish for wish in (*_WISHES, "no-metadata", "reuse-external") if command.has(wish)]
    if any(command.has(option) for option in _ASKED_OF_LIBVIRT):
        _refuse_internal(command, memspec)
        given = format_request(
            name=None if name is None else encode_name(name), description=description, memspec=memspec,
            diskspecs=diskspecs,
        )
        made = domain.create_as_asked(given, disk_only=command.has("disk-only"), asked=asked)
        session.remark(f"Domain snapshot {made if name is None else name} created")
        return
    name = name if name is not None else str(int(time.time()))  # libvirt's default
    outcome = domain.create(
        name, description=description, disk_only=command.has("disk-only"), asked=asked,
        timeout_s=session.preferences.timeout_s,
    )
    session.remark(f"Domain snapshot {name} created")
    _warn(outcome)


def _refuse_internal(command: Command, memspec: str | None) -> None:
    """Raise UnsupportedError for what would make libvirt write into the disk itself."""
    kinds = [read_diskspec(spec).get("snapshot") for spec in command.all("diskspec")]
    if memspec is not None:
        kinds.append(read_memspec(memspec).get("snapshot"))
    if "internal" in kinds:
        raise UnsupportedError("virtsnap does not support snapshot=internal: it makes external snapshots only")
    if memspec is None and not command.has("disk-only"):
        named = next(option for option in _ASKED_OF_LIBVIRT if command.has(option))
        raise UnsupportedError(
            f"virtsnap does not support --{named} without --memspec or --disk-only: "
            "libvirt would make an internal snapshot"
        )


def answer_revert(session: Session, command: Command) -> None:
    """Answer snapshot-revert. --force changes nothing: no revert of ours is refused for its risk."""
    domain = session.domain(command)
    snapshot = pick(command, domain, domain.catalog())
    failed = f"Failed to revert snapshot {snapshot.name}"
    if command.has("running") and command.has("paused"):
        raise VirshFailure(failed, VirshSyntaxError(
            "Flags 'VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING' and 'VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED' "
            "are mutually exclusive"
        ))
    final: Final = "running" if command.has("running") else "paused" if command.has("paused") else "as-saved"
    try:
        outcome = domain.revert(
            snapshot, final=final, force=command.has("force"), timeout_s=session.preferences.timeout_s
        )
    except VirtsnapError as exc:
        raise VirshFailure(failed, exc) from exc
    session.remark(f"Domain snapshot {snapshot.name} reverted\n")
    _warn(outcome)


def answer_delete(session: Session, command: Command) -> None:
    """Answer snapshot-delete."""
    domain = session.domain(command)
    snapshot = pick(command, domain, domain.catalog())
    failed = f"Failed to delete snapshot {snapshot.name}"
    if command.has("children") and command.has("children-only"):
        raise VirshFailure(failed, VirshSyntaxError(
            "Flags 'VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN' and 'VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY' "
            "are mutually exclusive"
        ))
    scope: Scope = "below" if command.has("children-only") else "tree" if command.has("children") else "one"
    try:
        outcome = domain.delete(
            snapshot, scope=scope, metadata_only=command.has("metadata"), timeout_s=session.preferences.timeout_s
        )
    except VirtsnapError as exc:
        raise VirshFailure(failed, exc) from exc
    below = " children" if scope == "below" else ""
    session.remark(f"Domain snapshot {snapshot.name}{below} deleted\n")
    _warn(outcome)


def answer_from_native(session: Session, command: Command) -> None:
    """Answer domxml-from-native, which libvirt itself no longer does for QEMU."""
    # Imported here: no other verb of virsh's needs the converter.
    from virtsnap.cli.command_source import read_file
    from virtsnap.cli.convert_verbs import convert_source, target_version

    kind, config = command.require("format"), command.require("config")
    if kind != "qemu-argv":
        raise UnsupportedError(f"virtsnap does not support the format '{kind}'; it reads qemu-argv")
    try:
        Path(config).open("rb").close()
    except OSError as exc:
        raise UsageError(f"Failed to open file '{config}': {exc.strerror}") from exc
    source = read_file(config)
    uri = session.preferences.uri
    conversion = convert_source(source, name=None, target=target_version(uri), uri=uri)
    session.say(conversion.xml)


def _warn(outcome: Outcome | None) -> None:
    for warning in () if outcome is None else outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
