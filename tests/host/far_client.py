"""Programs are run as on a client machine: libvirtd's socket is in reach, and none of its files is.

Images, memory, NVRAM and TPM state are hidden by empty folders in a mount
namespace of the program's own, and virtsnap is told that it is so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tests.host.private_libvirtd import PrivateLibvirtd
from tests.host.virsh_calls import FRONT, VIRSH, VIRTSNAP, Said

_HIDE = 'n=$1; shift; while [ "$n" -gt 0 ]; do mount -t tmpfs none "$1"; shift; n=$((n-1)); done; exec "$@"'
_TIMEOUT_S = 200


@dataclass(frozen=True, kw_only=True)
class FarClient:
    """A client of `host`, whose image folder and libvirt's own folder it cannot see."""

    host: PrivateLibvirtd

    def words(self, *words: str) -> list[str]:
        """Put the namespace in front of a program's words."""
        hidden = [str(self.host.work), str(self.host.folder / "lib"), "/var/lib/libvirt"]
        as_root = () if os.geteuid() == 0 else ("--map-root-user",)
        return ["unshare", *as_root, "--mount", "sh", "-c", _HIDE, "sh", str(len(hidden)), *hidden, *words]

    @property
    def environment(self) -> dict[str, str]:
        """Give what the program is to have in its environment."""
        own = {"LIBVIRT_DEFAULT_URI": self.host.uri, "VIRTSNAP_FILES": "libvirt", "LC_ALL": "C.UTF-8"}
        return {**os.environ, **own}

    def run(self, program: Sequence[str], *words: str) -> Said:
        """Run a program to its end."""
        done = subprocess.run(
            self.words(*program, *words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env=self.environment, timeout=_TIMEOUT_S,
        )
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    def virtsnap(self, *words: str) -> str:
        """Run a verb that has to succeed; give what it wrote."""
        return _succeeded(self.run(VIRTSNAP, *words), words)

    def refused(self, *words: str) -> tuple[int, str]:
        """Run a verb that has to fail; give its exit code and all that it wrote."""
        said = self.run(VIRTSNAP, *words)
        assert said.code != 0, said
        return said.code, said.out + said.err

    def virsh(self, *words: str) -> str:
        """Run a command by virtsnap-virsh that has to succeed."""
        return _succeeded(self.run(FRONT, *words), words)

    def real_virsh(self, *words: str) -> str:
        """Run a command by the installed virsh that has to succeed."""
        return _succeeded(self.run(VIRSH, *words), words)

    def killed(self, when: str, step: int, *words: str) -> None:
        """Run a verb that kills itself `before` or `after` a step."""
        said = self.run((sys.executable, "-m", "tests.faults.killed", when, str(step)), *words)
        assert said.code == -9, said

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a verb in a process of its own."""
        return subprocess.Popen(
            self.words(*VIRTSNAP, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=self.environment,
        )


def _succeeded(said: Said, words: Sequence[str]) -> str:
    assert said.code == 0, (words, said)
    return said.out
