"""Words that reach beyond the guest: they run a program of the host, or open a file of it beside the disks.

Whoever converts a stranger's command line wants to see these before the domain
starts. The report gives each such word a `host` remark, whatever its outcome.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from virtsnap.convert.ledger import Word
from virtsnap.convert.network.netdevs import DOWN_SCRIPT, SCRIPT


@dataclass(frozen=True, kw_only=True)
class HostAccess:
    """One way to reach the host: a key of some groups whose value matches, and what it does.

    `text` names the matched part as {}. `selector` (a key and its values)
    narrows the options down.
    """

    groups: frozenset[str]
    key: str
    text: str
    pattern: str = r"(.+)"
    selector: tuple[str, frozenset[str]] | None = None

    def read(self, word: Word) -> Iterable[str]:
        """Give the remarks that a word earns."""
        if word.group not in self.groups:
            return
        if self.selector is not None and word.peek(self.selector[0]) not in self.selector[1]:
            return
        for value in word.properties.all(self.key):
            found = re.fullmatch(self.pattern, value, re.DOTALL)
            if found:
                yield self.text.format(found[1])


def _row(
    groups: str, key: str, text: str, pattern: str = r"(.+)", selector: tuple[str, str] | None = None
) -> HostAccess:
    chosen = None if selector is None else (selector[0], frozenset(selector[1].split()))
    return HostAccess(groups=frozenset(groups.split()), key=key, text=text, pattern=pattern, selector=chosen)


NET = "netdev nic net"
CHARDEVS = "chardev serial parallel monitor qmp qmp-pretty debugcon gdb"
SCRIPTS = r"(?!no$)(.+)"

ROWS_OF_ACCESS: tuple[HostAccess, ...] = (
    _row(NET, "script", "runs {} when the domain starts", SCRIPTS),
    _row(NET, "downscript", "runs {} when the domain stops", SCRIPTS),
    _row(NET, "helper", "runs {}"),
    _row(NET, "smb", "runs smbd, which shares {} with the guest"),
    _row(NET, "tftp", "lets the guest read {}"),
    _row(NET, "guestfwd", "runs {} for each connection of the guest's", r".*-cmd:(.+)"),
    _row(NET, "guestfwd.0.str", "runs {} for each connection of the guest's", r".*-cmd:(.+)"),
    _row("smb", "smb", "runs smbd, which shares {} with the guest"),
    _row("tftp", "tftp", "lets the guest read {}"),
    _row("incoming", "incoming", "runs {}", r"exec:(.+)"),
    _row("incoming", "incoming", "opens {}", r"(?:unix|file):(.+)"),
    _row(CHARDEVS, "path", "writes {}", selector=("backend", "file")),
    _row(CHARDEVS, "path", "opens {}", selector=("backend", "pipe serial tty parallel parport")),
    _row(CHARDEVS, "logfile", "writes {}"),
    _row("chardev", "backend.data.out", "writes {}"),
    _row("chardev", "backend.data.device", "opens {}"),
    _row("chardev", "backend.data.logfile", "writes {}"),
    _row("fsdev virtfs", "path", "shares {} with the guest", selector=("fsdriver", "local handle proxy")),
    _row("object", "file", "writes {}", selector=("qom-type", "filter-dump")),
    _row("object", "file", "reads {}", selector=("qom-type", "secret")),
    _row("object", "filename", "opens {}", r"(?!/dev/u?random$)(.+)", ("qom-type", "rng-random")),
    _row("plugin", "file", "loads {} into QEMU"),
    _row("plugin", "plugin", "loads {} into QEMU"),
    _row("runas", "runas", "changes QEMU's user to {}"),
    _row("run-with", "user", "changes QEMU's user to {}"),
    _row("chroot", "chroot", "changes QEMU's root folder to {}"),
    _row("run-with", "chroot", "changes QEMU's root folder to {}"),
    _row("readconfig", "readconfig", "reads {}"),
    _row("writeconfig", "writeconfig", "writes {}"),
    _row("pidfile", "pidfile", "writes {}"),
    _row("D", "D", "writes {}"),
    _row("trace", "file", "writes {}"),
    _row("trace", "events", "reads {}"),
    _row("acpitable smbios fw_cfg", "file", "reads {}"),
    _row("acpitable", "data", "reads {}"),
    _row("tpmdev", "path", "opens {}"),
)


def host_access(word: Word) -> str | None:
    """Say which programs of the host a word runs and which files it opens; None for none."""
    remarks = [remark for row in ROWS_OF_ACCESS for remark in row.read(word)]
    if word.group in NET.split() and word.peek("type") == "tap" and _makes_a_tap(word):
        # QEMU runs scripts of its own where none is named.
        defaults = (("script", SCRIPT, "starts"), ("downscript", DOWN_SCRIPT, "stops"))
        remarks += [f"runs {path} when the domain {when}" for key, path, when in defaults if not word.has(key)]
    return "; ".join(remarks) or None


def _makes_a_tap(word: Word) -> bool:
    handed_over = any(word.has(key) for key in ("fd", "fds", "helper"))
    return not handed_over and word.peek("script") not in {"no", ""}
