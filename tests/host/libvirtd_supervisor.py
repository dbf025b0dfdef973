"""Folders and program paths become a running virtlogd and libvirtd, restarted when they die.

Runs as a program of its own, as the child of the subreaper that private_libvirtd.py
starts; as root also inside the namespaces that are made there. It imports nothing of
ours, so it can run anywhere. SIGTERM ends the daemons and then whatever they left,
which the subreaper has adopted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
GRACE_S = 5.0
# A daemon that cannot run dies at once, again and again; one that a test killed does not.
MOST_QUICK_DEATHS = 5
QUICK_S = 1.0


def main(settings: Mapping[str, Any]) -> None:
    """Prepare the namespaces if they are ours, run the daemons, and clear up at SIGTERM."""
    if settings["namespaces"]:
        _mount_folders(settings["mounts"])
        _raise_loopback()
    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    started_at: dict[str, float] = {}
    quick_deaths = 0
    with Path(settings["log"]).open("ab") as log:
        while not stopping and quick_deaths < MOST_QUICK_DEATHS:
            for name, words in settings["daemons"].items():
                if name in daemons:
                    if daemons[name].poll() is None:
                        continue
                    quick_deaths += time.monotonic() - started_at[name] < QUICK_S
                daemons[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                started_at[name] = time.monotonic()
            time.sleep(0.05)
    for daemon in daemons.values():
        daemon.terminate()
    for daemon in daemons.values():
        try:
            daemon.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    _end_orphans()


def _mount_folders(mounts: Mapping[str, str]) -> None:
    # A /run of its own also hides the host's D-Bus: libvirt would register guests with its systemd-machined.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    Path("/run/lock").mkdir()  # /var/lock: libvirt locks a pty there before it opens it as a console
    for target, source in mounts.items():
        if target.startswith("/run/"):
            Path(target).mkdir(parents=True)
        subprocess.run(["mount", "--bind", source, target], check=True)


def _raise_loopback() -> None:
    """Bring `lo` up, on which VNC and user networking listen, without needing iproute2."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        _, flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def _end_orphans() -> None:
    """Kill the subreaper's other children (QEMU outlives libvirtd) and wait until they are gone."""
    deadline = time.monotonic() + GRACE_S
    while (orphans := _siblings()) and time.monotonic() < deadline:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _siblings() -> list[int]:
    parent = os.getppid()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the command, which may hold anything, come the state and the parent.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
