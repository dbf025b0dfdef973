"""-machine confidential-guest-support=ID and its -object become <launchSecurity>."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, Version, read_keys
from virtsnap.convert.values import number_up_to, yes_no


def _policy(value: str) -> str:
    return f"0x{int(number_up_to(2**64 - 1)(value)):04x}"


@dataclass(frozen=True, kw_only=True)
class SecurityRow:
    """One kind of protected guest: libvirt's type, the keys, and since when libvirt has it."""

    type: str
    keys: tuple[Key, ...]
    since: Version


PLATFORM: tuple[Key, ...] = (
    # The host's own, which libvirt asks QEMU for: qemuProcessUpdateSEVInfo() in qemu_process.c.
    Key(key="cbitpos", hole=None, outcome=Outcome.IMPLIED),
    Key(key="reduced-phys-bits", hole=None, outcome=Outcome.IMPLIED),
    Key(key="policy", hole="policy", read=_policy),
    Key(key="kernel-hashes", hole="kernel_hashes", read=yes_no),
)
SECURITY: Mapping[str, SecurityRow] = {
    "sev-guest": SecurityRow(type="sev", keys=PLATFORM, since=(8, 0)),
    "sev-snp-guest": SecurityRow(
        type="sev-snp", since=(10, 5),
        keys=(
            *PLATFORM, Key(key="guest-visible-workarounds", hole="workarounds"),
            Key(key="id-block", hole="id_block"), Key(key="id-auth", hole="id_auth"),
            Key(key="host-data", hole="host_data"),
        ),
    ),
    "s390-pv-guest": SecurityRow(type="s390-pv", keys=(), since=(7, 6)),
}  # fmt: skip
TABLES = tuple(Table(group="object", selector=("qom-type", kind), keys=row.keys) for kind, row in SECURITY.items())


def convert_launch_security(draft: Draft) -> None:
    """Write <launchSecurity> where libvirt can say all of the guest's protection."""
    for word in draft.group("machine"):
        for key in ("confidential-guest-support", "memory-encryption"):
            guest = draft.find(word.peek(key), "object")
            if guest is not None:
                _convert(draft, word, key, guest)


def _convert(draft: Draft, machine: Word, key: str, guest: Word) -> None:
    row = SECURITY.get(guest.peek("qom-type") or "")
    if row is None or not draft.knows(row.since):
        return
    try:
        if guest.has("policy"):
            _policy(guest.peek("policy") or "")
    except NotSayable as exc:
        guest.note(str(exc))
        return
    holes = read_keys(guest, row.keys, draft.target)
    for name in ("dh-cert-file", "session-file"):
        # libvirt wants the contents and writes the files itself.
        guest.claim(name, Outcome.DROPPED, "libvirt wants its contents: put them into <launchSecurity>")
    guest.claim("qom-type", Outcome.MAPPED)
    guest.claim("id", Outcome.IMPLIED)
    machine.claim(key, Outcome.MAPPED)
    element = draft.templates.fill("head/launchSecurity", {"type": row.type, **holes})
    draft.head.append("", element, machine, guest)
