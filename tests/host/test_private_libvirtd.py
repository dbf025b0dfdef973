"""The private libvirtd is reached by its URI, and is gone without a trace when it stops."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import libvirt
import pytest

from tests.guest.build import GuestFiles
from tests.host.accelerator import DomainType
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import CHECKOUT, HostMissingError, PrivateLibvirtd


def _processes() -> dict[int, str]:
    """Every process that runs libvirt, QEMU or the subreaper; one that ends meanwhile is left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if Path(words[0]).name in {"tini", "unshare", "libvirtd", "virtlogd", "qemu-system-x86_64"}:
            found[int(folder.name)] = " ".join(words)
    return found


def _ours(mark: str) -> list[str]:
    return [words for words in _processes().values() if mark in words]


def test_stopped_daemon_leaves_no_process_mount_or_file(guest_files: GuestFiles, accelerator: DomainType) -> None:
    host = PrivateLibvirtd()
    host.start()
    folder = host.folder
    farm = GuestFarm(host, guest_files, accelerator)
    farm.running_guest()
    farm.connection.close()
    assert any("qemu-system" in words for words in _ours(str(folder)))
    # The guest is left running on purpose: the daemon's end must be its end too.
    host.stop()
    assert _ours(str(folder)) == []
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mounts").read_text()  # others may mount what they like
    host.stop()


def test_killed_daemon_comes_back_and_finds_its_guest(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    before = farm.host.daemon_pid()
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        try:
            with libvirt.open(farm.uri) as connection:
                assert connection.lookupByName(guest.name).isActive()
            break
        except libvirt.libvirtError:
            assert time.monotonic() < deadline, farm.host.log()
            time.sleep(0.1)
    assert farm.host.daemon_pid() != before
    assert guest.console.check("echo alive") == "alive"


def test_uri_is_reached_by_any_process(host_uri: str) -> None:
    words = ["virsh", "-c", host_uri, "list", "--all", "--name"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout.split() == []


def test_default_user_host_gives_disks_to_qemus_user_and_takes_them_back(default_user_farm: GuestFarm) -> None:
    guest = default_user_farm.running_guest()
    assert guest.disks[0].owner() == "libvirt-qemu"
    assert guest.console.check("cat /mnt/hello.txt") == "This is the test guest's disk."
    guest.domain.destroy()
    assert guest.disks[0].owner() == "root"


def test_missing_libvirtd_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(HostMissingError, match=r"libvirtd.*not found: run `make setup`"):
        PrivateLibvirtd().start()


def test_killed_test_run_takes_its_daemon_with_it() -> None:
    words = [sys.executable, "-m", "tests.host.try_it"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=CHECKOUT) as run:
        assert run.stdout is not None
        said = run.stdout.readline().decode()
        run.kill()
    found = re.search(r"at (/\S+)/work/", said)
    assert found, said
    folder = Path(found[1])
    deadline = time.monotonic() + 10
    while _ours(str(folder)):
        assert time.monotonic() < deadline, _ours(str(folder))
        time.sleep(0.05)
    with PrivateLibvirtd():
        assert not folder.exists()


def test_folder_of_a_killed_run_is_removed_by_the_next() -> None:
    with PrivateLibvirtd() as host:
        abandoned = host.folder.with_name(f"{host.folder.name}-abandoned")
    abandoned.mkdir()
    (abandoned / "owner").touch()
    with PrivateLibvirtd() as host, PrivateLibvirtd() as other:
        assert not abandoned.exists()
        assert host.folder.exists()
        assert other.folder.exists()
