"""-mon, -monitor and -qmp: libvirt has a monitor of its own, and what else was asked for stays.

A socket that somebody connects to is passed on to QEMU and works beside
libvirt's. A monitor on the terminal has no place under libvirt, whose
`virsh qemu-monitor-command` does the same. Nor has the socket of a service that
starts its QEMU itself: the service is not here, and often not even the folder.
"""

from __future__ import annotations

import re

from virtsnap.command_line.keyval import join_commas
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word

# The ids that libvirt gives to its own monitor (qemuBuildMonitorCommandLine() in libvirt's qemu_command.c).
LIBVIRTS_CHARDEV = "charmonitor"
# Where nobody but the terminal's user could be listening.
TERMINALS = frozenset({"stdio", "vc", "pty", "console", "null", "msmouse"})
# Folders of running services, libvirt's own of older versions among them; a descriptor is its starter's too.
OF_A_SERVICE = re.compile(r"/(?:var/)?run/.*|/var/lib/libvirt/.*|fd=.*")
SHORT_FORMS = ("monitor", "qmp", "qmp-pretty")


def made_by_libvirt(draft: Draft) -> bool:
    """Tell whether libvirt wrote this command line: its monitor is on it."""
    return any(word.peek("id") == LIBVIRTS_CHARDEV for word in draft.group("chardev"))


def convert_monitors(draft: Draft) -> None:
    """Convert all monitors; asked after the devices, which may share a chardev with one."""
    for word in draft.group("mon"):
        if word.peek("chardev") == LIBVIRTS_CHARDEV:
            for one in (word, draft.find(LIBVIRTS_CHARDEV, "chardev")):
                if one is not None:
                    one.claim_all(Outcome.MANAGED, "libvirt's own monitor")
        else:
            _convert(draft, word, draft.find(word.peek("chardev"), "chardev"))
    for word in draft.group(*SHORT_FORMS):
        kind = word.peek("backend")
        if kind == "none":
            word.claim_rest(Outcome.IMPLIED)
        else:
            _convert(draft, word, draft.find(word.peek("id"), "chardev") if kind == "chardev" else word)


def _convert(draft: Draft, word: Word, backend: Word | None) -> None:
    if backend is None:
        return
    kind = backend.peek("backend") or backend.peek("backend.type")
    shared = backend is not word and not backend.untouched
    both = list({id(one): one for one in (word, backend)}.values())
    if kind not in TERMINALS and not shared:
        if backend.has("fd") or OF_A_SERVICE.fullmatch(backend.peek("path") or ""):
            for one in both:
                one.claim_all(Outcome.MANAGED, "the monitor of what started this QEMU; libvirt has its own")
            return
        for one in both:
            _make_path_absolute(draft, one)
        return
    qmp = word.group.startswith("qmp") or word.peek("mode") == "control"
    note = f"`virsh qemu-monitor-command{'' if qmp else ' --hmp'}` does the same"
    word.claim_all(Outcome.SUBSTITUTED, note)
    if not shared and backend is not word:
        backend.claim_all(Outcome.SUBSTITUTED, note)


def _make_path_absolute(draft: Draft, word: Word) -> None:
    """Let a relative path start where the command was started: libvirt starts QEMU elsewhere."""
    path = word.peek("path")
    argument = word.option.argument
    if not path or path.startswith("/") or word.properties.json or argument is None:
        return
    absolute = draft.absolute(path)
    if word.group == "chardev":
        pairs = [(item.key, absolute if item.key == "path" else item.value) for item in word.properties]
        text = ",".join([dict(pairs)["backend"], join_commas([pair for pair in pairs if pair[0] != "backend"])])
    else:
        kind, _, rest = argument.partition(":")
        text = f"{kind}:{absolute}{rest[len(path):]}" if rest.startswith(path) else argument
    word.passed_as = [word.option.spelling, text]
