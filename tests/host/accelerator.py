"""This machine becomes the word `kvm` or `qemu`: the domain type under which a guest really boots.

/dev/kvm may be there, be opened, and still not get an ordinary kernel past its
first instructions. So a guest is booted, once, and the answer kept until the
machine boots again.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from tests.guest.build import CHECKOUT, GuestFiles
from tests.guest.console import GuestConsole, GuestSilentError

CACHE = CHECKOUT / ".cache" / "host"
KVM = Path("/dev/kvm")
# Where KVM works the guest answers within 2 s; a busy machine gets some more.
PROBE_TIMEOUT_S = 10.0

DomainType = Literal["kvm", "qemu"]


def domain_type(guest: GuestFiles, *, cache: Path = CACHE) -> DomainType:
    """Give the fastest domain type that boots `guest` here; probes at most once per boot of the machine."""
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "qemu"
    kept = cache / f"kvm-uid-{os.geteuid()}.json"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    today = {"boot_id": boot_id, "guest": guest.kernel.parent.name}
    if kept.exists():
        answer = json.loads(kept.read_text())
        if {key: answer.get(key) for key in today} == today:
            return "kvm" if answer["boots"] else "qemu"
    boots = boots_with("kvm", guest, timeout_s=PROBE_TIMEOUT_S)
    cache.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({**today, "boots": boots}))
    return "kvm" if boots else "qemu"


def boots_with(accelerator: Literal["kvm", "tcg"], guest: GuestFiles, *, timeout_s: float) -> bool:
    """Boot `guest` without its disk, and say whether it answers within `timeout_s`. Leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="virtsnap-probe-") as folder:
        place = Path(folder) / "serial"
        words = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "pc", "-accel", accelerator,
            "-m", "256",
            "-chardev", f"socket,id=serial,path={place},server=on,wait=off", "-serial", "chardev:serial",
            "-kernel", str(guest.kernel), "-initrd", str(guest.initramfs), "-append", guest.kernel_arguments,
        ]  # fmt: skip
        silent = subprocess.DEVNULL
        with subprocess.Popen(words, stdin=silent, stdout=silent, stderr=silent) as qemu:
            try:
                with GuestConsole(place) as console:
                    console.wait_ready(timeout_s=timeout_s)
                return True
            except GuestSilentError:
                return False
            finally:
                qemu.kill()
