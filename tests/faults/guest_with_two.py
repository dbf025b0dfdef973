"""A guest with two snapshots, brought back to the same state before each case of a module."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import virtsnap.host
from tests.faults.forked import run_verb
from tests.faults.killed import When
from tests.host.consistency import disagreements
from tests.host.guests import RunningGuest
from tests.host.test_save_and_load import disk_files, put, tokens
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.catalog import Snapshot


@dataclass(frozen=True, kw_only=True)
class GuestWithTwo:
    """The guest runs on from `b`, which came after `a`; its tokens are `now`."""

    guest: RunningGuest
    domain: SnapshotDomain
    _was: list[object] = field(default_factory=list, repr=False)

    def reset(self) -> None:
        """Have a, b and the present as they were."""
        if self.is_untouched():
            return
        self._was.clear()
        self._reset()
        self._was.append(self._looks())

    def is_untouched(self) -> bool:
        """Say whether all is as the last reset left it: the same process, definitions, objects and files.

        Then what could be loaded still can be, and need not be loaded to see it.
        """
        return self._was == [self._looks()]

    def _looks(self) -> object:
        domain = self.guest.domain
        written = set(disk_files(self.guest, live=True)) if domain.isActive() else set()
        files = {
            str(path): None if str(path) in written else (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            for path in (*self.guest.folder.glob("virtsnap-*/*"), *self.guest.disks)
            if (stat := path.stat())
        }
        objects = {each.getName(): (each.getXMLDesc(), each.isCurrent()) for each in domain.listAllSnapshots()}
        return domain.ID(), domain.info()[0], domain.XMLDesc(0), domain.XMLDesc(2), objects, files

    def _reset(self) -> None:
        catalog = self.domain.snapshots()
        if "a" not in {snapshot.name for snapshot in catalog}:
            if not self.guest.domain.isActive():
                self.start()
            for snapshot in catalog:
                self.domain.remove_snapshot(snapshot.name)
            self.domain.flatten()  # a save on too long a chain does more steps than one on a short chain
            put(self.guest, "a")
            self.domain.save_snapshot("a")
        elif self._stands_on_a(catalog):
            for snapshot in catalog:
                if snapshot.name != "a":
                    self.domain.remove_snapshot(snapshot.name)
        else:
            self.domain.load_snapshot("a")
        put(self.guest, "b")
        self.domain.save_snapshot("b")
        put(self.guest, "now")

    def _stands_on_a(self, catalog: Sequence[Snapshot]) -> bool:
        """Say whether `a` was loaded and nothing happened since: a load saved."""
        current = next((snapshot.name for snapshot in catalog if snapshot.is_current), None)
        return current == "a" and self.domain.state() == "running" and tokens(self.guest) == ("a", "a")

    def disagreements(self) -> list[str]:
        """See `tests.host.consistency`."""
        with virtsnap.host.connect(self.guest.uri) as host:
            return disagreements(host, self.guest.name, beside=[self.guest.folder])

    def names(self) -> set[str]:
        """Name the snapshots as the runner knows them."""
        return {snapshot.name for snapshot in self.domain.snapshots()}

    def command(self, *words: str, kill: tuple[When, int] | None = None) -> tuple[int, str]:
        """Run a verb in a process of its own, which kills itself at the step `kill`, if any."""
        return run_verb(("-c", self.guest.uri, *words), kill=kill)

    def start(self) -> None:
        """Boot the guest, which is off."""
        self.guest.domain.create()
        self.guest.console.wait_disk()

    def on_disk(self) -> str:
        """Read the token on the disk: by the guest, or where it is off, as its next boot would find it."""
        if self.guest.domain.isActive():
            return tokens(self.guest)[1]
        top, = disk_files(self.guest, live=False)
        return token_on(top, work=self.guest.folder)

    def assert_all_load(self, expected: dict[str, str]) -> None:
        """Load every snapshot and find its tokens in RAM and on disk; `a` is the last, and stays loaded."""
        assert self.names() == expected.keys()
        for name in sorted(expected, reverse=True):
            self.domain.load_snapshot(name, keep_newer=True)
            assert tokens(self.guest) == (expected[name], expected[name]), name
        assert self.disagreements() == []


def token_on(disk: str | Path, *, work: Path) -> str:
    """Read the token on a guest's disk that nothing uses, as its next boot would find it."""
    raw = str(work / "disk.raw")
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw]
    subprocess.run(convert, check=True, stdin=subprocess.DEVNULL)
    try:
        # 1 is "corrected": it went off with a journal to be replayed
        repaired = subprocess.run(["/sbin/e2fsck", "-p", raw], capture_output=True, check=False)
        assert repaired.returncode in (0, 1), repaired
        read = ["/sbin/debugfs", "-R", "cat /token", raw]
        return subprocess.run(read, capture_output=True, text=True, check=True).stdout.strip()
    finally:
        Path(raw).unlink()
