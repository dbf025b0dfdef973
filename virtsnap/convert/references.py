"""Every id that an option names must be defined: checked before anything is converted.

QEMU would refuse such a command line itself, with an error that names no
argument. Ids that QEMU makes up (`ide0-hd0`, `none0`) count as defined. Where
-readconfig brings options that nobody here knows, nothing can be said, and nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from virtsnap.command_line.options import CommandLine, Option
from virtsnap.convert.unwritten.readconfig import unread_configs
from virtsnap.errors import CommandLineError

# Source: drive_new() in QEMU's blockdev.c.
AUTOMATIC_DRIVE = re.compile(r"(?:ide|scsi|none|virtio|floppy|pflash|mtd|sd|xen)[0-9]+(?:-(?:hd|cd)[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A key that names an id: the groups that may define it, and what to add where none does."""

    groups: tuple[str, ...]
    hint: str


DRIVE = Reference(groups=("drive", "blockdev"), hint="add -blockdev …,node-name={id}")
CHARDEV = Reference(groups=("chardev",), hint="add -chardev …,id={id}")
NETDEV = Reference(groups=("netdev",), hint="add -netdev …,id={id}")
OBJECT = Reference(groups=("object",), hint="add -object …,id={id}")
AUDIODEV = Reference(groups=("audiodev",), hint="add -audiodev …,id={id}")

REFERENCES: Mapping[tuple[str, str], Reference] = {
    ("device", "drive"): DRIVE,
    ("device", "netdev"): NETDEV,
    ("device", "chardev"): CHARDEV,
    ("device", "audiodev"): AUDIODEV,
    ("device", "tpmdev"): Reference(groups=("tpmdev",), hint="add -tpmdev …,id={id}"),
    ("device", "fsdev"): Reference(groups=("fsdev",), hint="add -fsdev …,id={id}"),
    ("device", "rng"): OBJECT,
    ("device", "memdev"): OBJECT,
    ("device", "iothread"): OBJECT,
    ("device", "cryptodev"): OBJECT,
    ("numa", "memdev"): OBJECT,
    ("mon", "chardev"): CHARDEV,
    ("tpmdev", "chardev"): CHARDEV,
    ("netdev", "chardev"): CHARDEV,
    ("blockdev", "file"): DRIVE,
    ("blockdev", "backing"): DRIVE,
    ("blockdev", "throttle-group"): OBJECT,
    ("machine", "memory-backend"): OBJECT,
}
# Short forms that name a chardev: -serial chardev:ID and the like.
CHARDEV_TEXT_GROUPS = frozenset({"serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon", "gdb"})

DEFINES = {"drive": "id", "blockdev": "node-name"}
_WHAT = {"drive": "-drive", "blockdev": "-blockdev"}


def check_references(command_line: CommandLine) -> None:
    """Raise CommandLineError for the first id that is named and not defined."""
    if unread_configs(command_line):
        return
    defined = _defined_ids(command_line)
    for option in command_line.options:
        for id_, reference in _references(option):
            if any(id_ in defined.get(group, ()) for group in reference.groups):
                continue
            if "drive" in reference.groups and AUTOMATIC_DRIVE.fullmatch(id_):
                continue
            sought = " or ".join(_WHAT.get(group, f"-{group}") for group in reference.groups)
            raise CommandLineError(
                f"{option.text}: no {sought} has the id {id_}",
                argument=option.last,
                hint=reference.hint.format(id=id_),
            )


def _references(option: Option) -> Iterator[tuple[str, Reference]]:
    for item in option.properties:
        reference = REFERENCES.get((option.group, item.key))
        if reference is not None and item.value:
            yield item.value, reference
    if option.group in CHARDEV_TEXT_GROUPS and option.properties.get("backend") == "chardev":
        yield option.properties.get("id") or "", CHARDEV


def _defined_ids(command_line: CommandLine) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for option in command_line.options:
        ids = found.setdefault(option.group, set())
        key = DEFINES.get(option.group, "id")
        for item in option.properties:
            # inner nodes of a -blockdev graph, and of a -drive, have names of their own
            if item.key == key or (item.key.endswith("node-name") and option.group in {"blockdev", "drive"}):
                ids.add(item.value)
    return found
