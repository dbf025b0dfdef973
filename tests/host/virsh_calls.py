"""Command lines of virsh's, run by the real one and by virtsnap's, each as a process of its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

VIRTSNAP = (sys.executable, "-c", "import sys; from virtsnap.cli.main import main; sys.exit(main())")
FRONT = (sys.executable, "-c", "import sys; from virtsnap.cli.virsh.front import main; sys.exit(main())")
VIRSH = ("virsh",)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a program wrote and how it ended."""

    code: int
    out: str
    err: str


def run(program: Sequence[str], uri: str, *words: str, environment: dict[str, str] | None = None) -> Said:
    """Run a program with LIBVIRT_DEFAULT_URI, so that the words are those of a runner and nothing else."""
    done = subprocess.run(
        [*program, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "LIBVIRT_DEFAULT_URI": uri, "LC_ALL": "C.UTF-8", **(environment or {})},
    )
    return Said(code=done.returncode, out=done.stdout, err=done.stderr)


def install_as_virsh(folder: Path) -> dict[str, str]:
    """Put virtsnap-virsh as `virsh` in front of the PATH, by a symlink; give the environment for it."""
    program = folder / "virtsnap-virsh"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom virtsnap.cli.virsh.front import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    front = folder / "front"
    front.mkdir()
    (front / "virsh").symlink_to(program)
    return {"PATH": f"{front}{os.pathsep}{os.environ['PATH']}"}


class ConsoleSession:
    """`virsh console` in a process of its own, on a terminal or on pipes; a context manager."""

    def __init__(self, uri: str, *words: str, on_terminal: bool = True, program: Sequence[str] = FRONT) -> None:
        environment = {**os.environ, "LIBVIRT_DEFAULT_URI": uri, "LC_ALL": "C.UTF-8"}
        self.output = b""
        self.terminal = -1
        if on_terminal:
            self._fd, self.terminal = pty.openpty()
            self.process = subprocess.Popen(
                [*program, "console", *words], stdin=self.terminal, stdout=self.terminal, stderr=subprocess.PIPE,
                env=environment,
            )
        else:
            self._fd, theirs = os.pipe()
            self.process = subprocess.Popen(
                [*program, "console", *words], stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
                env=environment,
            )
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()  # virsh takes no notice of SIGTERM
        self.process.wait(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        for fd in (self._fd, self.terminal):
            if fd >= 0:
                os.close(fd)

    def type(self, text: str) -> None:
        """Type on the terminal."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, *, timeout_s: float = 30) -> None:
        """Wait until the session has shown `text`; from then on only what comes later counts."""
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self.output:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.output[-2000:]!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self._fd, 65536)
                except OSError as exc:
                    raise AssertionError(f"the session is over: {self.output[-2000:]!r}") from exc
        self.output = self.output.partition(text.encode())[2]

    def ends(self, *, timeout_s: float = 20) -> int:
        """Wait for its end; give the exit code."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the session goes on"
            time.sleep(0.02)
            self.read_what_is_there()
        self.read_what_is_there()
        return self.process.returncode

    def read_what_is_there(self) -> None:
        """Read all that has been shown by now."""
        while select.select([self._fd], [], [], 0)[0]:
            data = os.read(self._fd, 65536)
            if not data:
                return
            self.output += data

    def errors(self) -> str:
        """Give what it wrote on stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()
