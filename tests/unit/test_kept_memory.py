"""A process that ends while its memory is held; that it is gone sooner is for the bench to show."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from virtsnap.host import kept_memory as module
from virtsnap.host.kept_memory import kept_memory

WAITS = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.kill()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every number of bytes that was read at once."""
    found: list[int] = []
    real = module._LIBC.process_vm_readv

    def read(*arguments: object) -> int:
        found.append(int(real(*arguments)))
        return found[-1]

    monkeypatch.setattr(module._LIBC, "process_vm_readv", read)
    return found


def threads() -> int:
    return threading.active_count()


def test_its_memory_is_read_until_it_is_gone(process: subprocess.Popen[str], counts: list[int]) -> None:
    before = threads()
    handle = os.pidfd_open(process.pid)
    with contextlib.ExitStack() as later:
        with kept_memory(process.pid, until=later):
            while not counts:
                time.sleep(0.001)
            process.kill()
            assert select.select([handle], [], [], 20)[0]
        later.close()
        assert threads() == before
    os.close(handle)
    assert counts[0] == module._AT_ONCE * module._PIECE


def test_one_that_does_not_end_is_let_go(process: subprocess.Popen[str], counts: list[int]) -> None:
    before = threads()
    with contextlib.ExitStack() as later, kept_memory(process.pid, until=later):
        while not counts:
            time.sleep(0.001)
    assert threads() == before
    assert process.poll() is None
    assert all(count == module._AT_ONCE * module._PIECE for count in counts)


def test_where_it_cannot_be_read_nothing_happens(process: subprocess.Popen[str], counts: list[int]) -> None:
    process.kill()
    process.wait()
    before = threads()
    with contextlib.ExitStack() as later, kept_memory(process.pid, until=later):
        pass
    assert threads() == before
    assert counts == []
