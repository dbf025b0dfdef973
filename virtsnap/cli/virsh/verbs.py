"""virsh's verbs that are answered here, with their options in virsh's order (9.0 and 11.3 have the same).

`--resume` of `console` came with 11.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from virtsnap.cli.virsh.syntax import Option, Verb


def _flags(*names: str) -> tuple[Option, ...]:
    return tuple(Option(name=name, flag=True) for name in names)


_DOMAIN = Option(name="domain", is_required=True)
_SNAPSHOT = Option(name="snapshotname")

_ROWS = (
    Verb(name="snapshot-create-as", summary="Create a snapshot from a set of args", options=(
        _DOMAIN, Option(name="name"), Option(name="description"),
        *_flags("print-xml", "no-metadata", "halt", "disk-only", "reuse-external", "quiesce", "atomic", "live",
                "validate"),
        Option(name="memspec", is_data=False), Option(name="diskspec", is_list=True),
    )),
    Verb(name="snapshot-revert", summary="Revert a domain to a snapshot", options=(
        _DOMAIN, _SNAPSHOT, *_flags("current", "running", "paused", "force"),
        Option(name="reset-nvram", flag=True, refused="the snapshot's UEFI variables come back with its memory"),
    )),
    Verb(name="snapshot-delete", summary="Delete a domain snapshot", options=(
        _DOMAIN, _SNAPSHOT, *_flags("current", "children", "children-only", "metadata"),
    )),
    Verb(name="snapshot-list", summary="List snapshots for a domain", options=(
        _DOMAIN,
        *_flags("parent", "roots", "leaves", "no-leaves", "metadata", "no-metadata", "inactive", "active",
                "disk-only", "internal", "external", "tree"),
        Option(name="from"), *_flags("current", "descendants", "name", "topological"),
    )),
    Verb(name="snapshot-info", summary="snapshot information", options=(_DOMAIN, _SNAPSHOT, *_flags("current"))),
    Verb(name="snapshot-current", summary="Get or set the current snapshot", options=(
        _DOMAIN, *_flags("name", "security-info"), _SNAPSHOT,
    )),
    Verb(name="snapshot-parent", summary="Get the name of the parent of a snapshot", options=(
        _DOMAIN, _SNAPSHOT, *_flags("current"),
    )),
    Verb(name="snapshot-dumpxml", summary="Dump XML for a domain snapshot", options=(
        _DOMAIN, Option(name="snapshotname", is_required=True), *_flags("security-info"),
        Option(name="xpath", is_data=False), *_flags("wrap"),
    )),
    Verb(name="domxml-from-native", summary="Convert native config to domain XML", options=(
        Option(name="format", is_required=True), Option(name="config", is_required=True),
    )),
)
VERBS: Mapping[str, Verb] = {verb.name: verb for verb in _ROWS}

CONSOLE = Verb(name="console", summary="connect to the guest console", options=(
    _DOMAIN, Option(name="devname"), *_flags("force", "resume", "safe"),
))
UNDEFINE = Verb(name="undefine", summary="undefine a domain", options=(
    _DOMAIN, *_flags("managed-save"), Option(name="storage"),
    *_flags("remove-all-storage", "delete-storage-volume-snapshots", "wipe-storage", "snapshots-metadata",
            "checkpoints-metadata", "nvram", "keep-nvram", "tpm", "keep-tpm"),
))
