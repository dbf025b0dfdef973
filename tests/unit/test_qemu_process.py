"""A QEMU is ended while its monitor seems to go on; played by a process with the same words and socket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtsnap.host import qemu_process
from virtsnap.host.qemu_process import ended, find_qemu

STAND_IN = """
import signal, socket, sys
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + "/monitor.sock")
listener.listen()
print("ready", flush=True)
kept, _ = listener.accept()
print("accepted", flush=True)
signal.pause()
"""


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str], socket.socket]]:
    """Start a stand-in for QEMU and connect to its monitor, as libvirt does."""
    name = str(uuid.uuid4())
    command = [sys.executable, "-c", STAND_IN, str(folder), "-uuid", name, *words, "-end"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(folder / "monitor.sock"))
            assert process.stdout.readline() == "accepted\n"
            monitor.setblocking(False)
            try:
                yield name, process, monitor
            finally:
                process.kill()


@pytest.fixture(autouse=True)
def children_are_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reap the stand-in at once, as the init process does with a QEMU of libvirt's."""
    exists = Path.exists

    def reap(path: Path, **options: bool) -> bool:
        if path.parent == Path("/proc"):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(path.name), os.WNOHANG)
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", reap)


def is_open(monitor: socket.socket) -> bool:
    try:
        return monitor.recv(1) != b""
    except BlockingIOError:
        return True


def test_the_monitor_stays_open_until_the_block_is_over(tmp_path: Path) -> None:
    with running(tmp_path) as (name, process, monitor):
        with ended(name) as is_gone:
            assert is_gone
            assert not Path(f"/proc/{process.pid}").exists()
            assert is_open(monitor)
        assert not is_open(monitor)


def test_who_waits_for_the_monitor_is_told_while_the_block_takes_long(tmp_path: Path) -> None:
    with running(tmp_path) as (name, _, monitor), ended(name) as is_gone:
        assert is_gone
        monitor.settimeout(10)
        assert monitor.recv(1) == b""


def test_one_that_hangs_is_left_to_libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_process, "_END_TIMEOUT_S", 0.05)
    with running(tmp_path, "deaf") as (name, process, monitor):
        with ended(name) as is_gone:
            assert not is_gone
        assert process.poll() is None
        assert is_open(monitor)
        process.kill()
        process.wait()
        assert not is_open(monitor)  # nothing of it was kept


def test_one_whose_monitor_is_out_of_reach_gets_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(qemu_process, "_duplicate", refuse)
    with running(tmp_path) as (name, process, monitor):
        with ended(name) as is_gone:
            assert not is_gone
        assert is_open(monitor)
        assert process.poll() is None


def test_of_two_with_one_uuid_none_is_taken(tmp_path: Path) -> None:
    assert find_qemu(str(uuid.uuid4())) is None
    with running(tmp_path) as (name, process, _):
        assert find_qemu(name) == process.pid
        (tmp_path / "other").mkdir()
        words = [sys.executable, "-c", "input()", "-uuid", name, "-end"]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as other:
            while name.encode() not in Path(f"/proc/{other.pid}/cmdline").read_bytes():
                pass
            assert find_qemu(name) is None
            other.kill()
