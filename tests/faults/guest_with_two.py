"""A guest with two snapshots, brought back to the same state before each case of a module."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import virtsnap
import virtsnap.host
from tests.host.consistency import disagreements
from tests.host.guests import RunningGuest
from tests.host.test_save_and_load import put, tokens
from virtsnap.snapshots.api import SnapshotDomain

_BOOT_S = 60


@dataclass(frozen=True, kw_only=True)
class GuestWithTwo:
    """The guest runs on from `b`, which came after `a`; its tokens are `now`."""

    guest: RunningGuest
    domain: SnapshotDomain

    def reset(self) -> None:
        """Have a, b and the present as they were."""
        if not self.guest.domain.isActive():
            self.guest.domain.create()
            self.guest.console.wait_disk(timeout_s=_BOOT_S)
        names = [snapshot.name for snapshot in self.domain.snapshots()]
        if "a" in names:
            self.domain.load_snapshot("a")
        else:
            for name in names:
                self.domain.remove_snapshot(name)
            put(self.guest, "a")
            self.domain.save_snapshot("a")
        put(self.guest, "b")
        self.domain.save_snapshot("b")
        put(self.guest, "now")

    def disagreements(self) -> list[str]:
        """See `tests.host.consistency`."""
        with virtsnap.host.connect(self.guest.uri) as host:
            return disagreements(host, self.guest.name, beside=self.guest.folder)

    def names(self) -> set[str]:
        """Name the snapshots as the runner knows them."""
        return {snapshot.name for snapshot in self.domain.snapshots()}

    def command(self, *words: str, program: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run a verb in a process of its own; `program` is put in front of its words."""
        inline = ("-c", "import sys; from virtsnap.cli.main import main; sys.exit(main())")
        done = subprocess.run(
            [sys.executable, *(program or inline), "-c", self.guest.uri, *words],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=200,
        )
        return done.returncode, done.stdout + done.stderr

    def on_disk(self) -> str:
        """Read the token on the disk, by booting the guest where it is off."""
        if not self.guest.domain.isActive():
            self.guest.domain.create()
            self.guest.console.wait_disk(timeout_s=_BOOT_S)
            return self.guest.console.check("cat /mnt/token")
        return tokens(self.guest)[1]

    def assert_all_load(self, expected: dict[str, str]) -> None:
        """Load every snapshot and find its tokens in RAM and on disk."""
        assert self.names() == expected.keys()
        for name, token in expected.items():
            self.domain.load_snapshot(name, keep_newer=True)
            assert tokens(self.guest) == (token, token), name
        assert self.disagreements() == []
