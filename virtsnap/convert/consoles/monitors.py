"""-mon, -monitor and -qmp: libvirt has the monitor, and `virsh qemu-monitor-command` stands in for all others.

A second monitor that acts on the machine behind libvirt's back leaves libvirt with a
wrong picture of it, and has nobody to talk to: the terminal is not there, and whoever
listened started QEMU himself. A guest sees nothing of it either way.
"""

from __future__ import annotations

import re

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word

# The ids that libvirt gives to its own monitor (qemuBuildMonitorCommandLine() in libvirt's qemu_command.c).
LIBVIRTS_CHARDEV = "charmonitor"
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
    shared = backend is not word and not backend.untouched
    if not shared and (backend.has("fd") or OF_A_SERVICE.fullmatch(backend.peek("path") or "")):
        for one in (word, backend):
            one.claim_all(Outcome.MANAGED, "the monitor of what started this QEMU; libvirt has its own")
        return
    qmp = word.group.startswith("qmp") or word.peek("mode") == "control"
    note = f"`virsh qemu-monitor-command{'' if qmp else ' --hmp'}` does the same"
    word.claim_all(Outcome.SUBSTITUTED, note)
    if not shared and backend is not word:
        backend.claim_all(Outcome.SUBSTITUTED, note)
