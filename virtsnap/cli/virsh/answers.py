"""Which function answers which verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from virtsnap.cli.virsh import changing, reading
from virtsnap.cli.virsh.session import Session
from virtsnap.cli.virsh.syntax import Command, Verb, parse_command
from virtsnap.host.versions import installed_version

ANSWERS: Mapping[str, Callable[[Session, Command], None]] = {
    "snapshot-create-as": changing.answer_create_as,
    "snapshot-revert": changing.answer_revert,
    "snapshot-delete": changing.answer_delete,
    "snapshot-list": reading.answer_list,
    "snapshot-info": reading.answer_info,
    "snapshot-current": reading.answer_current,
    "snapshot-parent": reading.answer_parent,
    "snapshot-dumpxml": reading.answer_dumpxml,
    "domxml-from-native": changing.answer_from_native,
}


def parse_as_installed(verb: Verb, words: Sequence[str]) -> Command:
    """Read a verb's words as the virsh of this machine does; on failure: VirshSyntaxError."""
    version = installed_version()
    return parse_command(verb, words, tells_all_missing=version is None or version < (10, 3))
