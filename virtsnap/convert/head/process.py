"""Options about QEMU's process rather than the guest: what libvirt does itself, or does in its own way.

None of them reaches the guest, but for -no-reboot, which becomes <on_reboot>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from virtsnap.command_line.options import UNKNOWN
from virtsnap.convert.draft import QEMU_NAMESPACE, Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import on_off, yes_no


@dataclass(frozen=True, kw_only=True)
class ProcessRow:
    """One option of which nothing needs to stand in the domain: what becomes of it, and why."""

    outcome: Outcome
    note: str


PROCESS: Mapping[str, ProcessRow] = {
    "S": ProcessRow(
        outcome=Outcome.MANAGED, note="libvirt starts QEMU stopped; `virsh start --paused` leaves it so"
    ),
    "daemonize": ProcessRow(outcome=Outcome.MANAGED, note="libvirt runs QEMU in the background"),
    "pidfile": ProcessRow(outcome=Outcome.MANAGED, note="libvirt keeps a PID file of its own"),
    "no-shutdown": ProcessRow(
        outcome=Outcome.IMPLIED, note="libvirt always says so, and ends QEMU by <on_poweroff>"
    ),
    "no-user-config": ProcessRow(outcome=Outcome.IMPLIED, note="libvirt always says so"),
    "nodefconfig": ProcessRow(
        outcome=Outcome.IMPLIED, note="libvirt lets QEMU read no configuration files"
    ),
    "nouserconfig": ProcessRow(outcome=Outcome.IMPLIED, note="libvirt always says so"),
    "runas": ProcessRow(outcome=Outcome.MANAGED, note="qemu.conf's `user` decides as whom QEMU runs"),
    "chroot": ProcessRow(outcome=Outcome.MANAGED, note="libvirt runs QEMU in namespaces of its own"),
    "D": ProcessRow(
        outcome=Outcome.SUBSTITUTED, note="libvirt writes what QEMU says to the domain's log"
    ),
    "incoming": ProcessRow(
        outcome=Outcome.MANAGED, note="`virsh restore` and `virsh migrate` say it; `virsh start` boots instead"
    ),
    "no-quit": ProcessRow(outcome=Outcome.IMPLIED, note="libvirt opens no window that could be closed"),
    "echr": ProcessRow(
        outcome=Outcome.SUBSTITUTED, note="libvirt's QEMU has no terminal; `virsh --escape` is for `virsh console`"
    ),
    "enable-fips": ProcessRow(outcome=Outcome.SUBSTITUTED, note="the host's FIPS mode decides"),
}  # fmt: skip


# Options that only a vendor's QEMU knows, and that tell the guest nothing.
VENDORS: Mapping[str, ProcessRow] = {
    "-id": ProcessRow(outcome=Outcome.MANAGED, note="a tag of Proxmox VE for its own tools"),
}

SANDBOX: tuple[Key, ...] = (
    Key(key="enable", hole=None, outcome=Outcome.IMPLIED),
    *(
        Key(key=key, hole=None, outcome=Outcome.IMPLIED)
        for key in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
    ),
)
MESSAGES: tuple[Key, ...] = (Key(key="timestamp", hole=None, outcome=Outcome.IMPLIED),)
NAME: tuple[Key, ...] = (
    Key(key="debug-threads", hole=None, outcome=Outcome.IMPLIED),
    Key(key="process", hole=None, outcome=Outcome.MANAGED,
        note="libvirt knows its QEMU by a PID file; the process is named after the emulator"),
)
RUN_WITH: tuple[Key, ...] = (Key(key="async-teardown", hole="async_teardown", read=yes_no, since=(9, 6)),)


def _reboot(value: str) -> str | None:
    words = {"reset": None, "shutdown": "destroy"}
    if value not in words:
        raise NotSayable(f"libvirt has no word for {value!r}")
    return words[value]


def _panic(value: str) -> str | None:
    # libvirt hears of a panic over QMP and acts by <on_crash>, for which QEMU must pause, as libvirt sets it.
    words = {"pause": "preserve", "shutdown": "destroy", "exit-failure": "destroy"}
    if value not in words:
        raise NotSayable(f"libvirt has no word for {value!r}")
    return words[value]


ACTION: tuple[Key, ...] = (
    Key(key="reboot", hole="on_reboot", read=_reboot),
    Key(key="panic", hole="on_crash", read=_panic),
    Key(key="shutdown", hole=None, outcome=Outcome.SUBSTITUTED, note="<on_poweroff> decides what follows"),
)

# What QEMU does about interfaces that are to go away: taken from libvirt (deprecated-input), and told to it
# (deprecated-output). Source: qemuBuildCompatDeprecatedCommandLine() in libvirt's qemu_command.c.
COMPAT: Mapping[tuple[str, str], str] = {
    ("accept", "accept"): "none", ("accept", "hide"): "omit", ("reject", "hide"): "reject",
    ("crash", "hide"): "crash",
}
COMPAT_KEYS: tuple[Key, ...] = (
    Key(key="deprecated-input", hole="behavior"), Key(key="deprecated-output", hole="behavior"),
)
COMPAT_SINCE = (7, 3)

TABLES = (
    Table(group="compat", keys=COMPAT_KEYS),
    Table(group="sandbox", keys=SANDBOX),
    Table(group="msg", keys=MESSAGES),
    Table(group="name", keys=(Key(key="guest", hole="name"), *NAME)),
    Table(group="run-with", keys=RUN_WITH),
    Table(group="action", keys=ACTION),
)

def convert_process(draft: Draft) -> None:
    """Claim what is libvirt's own."""
    for word in draft.words:
        row = PROCESS.get(word.group) or VENDORS.get(word.option.spelling if word.group == UNKNOWN else "")
        if row is not None:
            word.claim_rest(row.outcome, row.note)
    for word in draft.group("no-reboot"):
        word.claim_rest(Outcome.MAPPED)
        draft.head.put("lifecycle", {"on_reboot": "destroy"}, word)
    draft.head.put_keys("lifecycle", ACTION, draft.group("action"), draft.target)
    draft.head.put_keys("features", RUN_WITH, draft.group("run-with"), draft.target)
    draft.head.put_keys("features", MESSAGES, draft.group("msg"), draft.target)
    draft.head.put_keys("features", NAME, draft.group("name"), draft.target)
    for word in draft.group("sandbox"):
        _convert_sandbox(word)
    for word in draft.group("overcommit"):
        word.take_read("cpu-pm", _off)
    _convert_compat(draft)


def _convert_compat(draft: Draft) -> None:
    """Write <qemu:deprecation>; what it cannot say goes to QEMU, for which the last -compat counts."""
    words = draft.group("compat")
    for word in words:
        policy = tuple(word.peek(key.key) or "accept" for key in COMPAT_KEYS)
        behavior = COMPAT.get((policy[0], policy[1]))
        known = all(item.key in {key.key for key in COMPAT_KEYS} for item in word.properties)
        if len(words) > 1 or not known or behavior is None or not draft.knows(COMPAT_SINCE):
            word.note("<qemu:deprecation> says none, omit, reject or crash, from libvirt 7.3 on")
            continue
        tag = f"{{{QEMU_NAMESPACE}}}deprecation"
        element = etree.SubElement(draft.root, tag, behavior=behavior, nsmap={"qemu": QEMU_NAMESPACE})
        word.claim_rest(Outcome.MAPPED)
        word.land(element)


def _off(value: str) -> str | None:
    if on_off(value) != "off":
        raise NotSayable("libvirt has no word for it")
    return None


def _convert_sandbox(word: Word) -> None:
    """Claim -sandbox: libvirt's own, as strict as can be, where qemu.conf does not say otherwise."""
    usual = all(item.value in ("on", "deny", "1") for item in word.properties)
    outcome = Outcome.IMPLIED if usual else Outcome.SUBSTITUTED
    note = "qemu.conf's `seccomp_sandbox` decides; by default it is on, and strict"
    word.claim_rest(outcome, None if usual else note)
