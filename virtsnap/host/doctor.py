"""A host becomes a list of findings: is it fit for snapshots, and what to do where it is not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import libvirt
from lxml import etree

from virtsnap.domain_xml.ram_file import WHAT_EXCLUDES
from virtsnap.errors import VirtsnapError
from virtsnap.host.confinement import RAM_RULES, needs_of_ram_in_files, read_confinement
from virtsnap.host.hypervisor import Host, connect
from virtsnap.host.versions import split_version

Mark = Literal["ok", "note", "bad"]

OLDEST = (9, 0)
_KVM = Path("/dev/kvm")
_KVM_PROBE_S = 5.0
_FICLONE = 0x40049409  # linux/fs.h
_QEMU_NAMES = ("qemu-system-x86_64", "qemu-kvm", "qemu-system-aarch64")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `bad` stands in the way, a `note` costs speed or deserves care."""

    about: str
    mark: Mark
    said: str
    remedy: str | None = None


def examine(uri: str | None, *, directory: str | None = None) -> tuple[Finding, ...]:
    """Look at everything; never raises. `directory` is where snapshots are to lie."""
    findings: list[Finding] = []
    is_local = True
    try:
        with connect(uri) as host:
            is_local = host.is_local
            for look in (_libvirt, _emulator, _security, _instant):
                findings += _safely(look, host)
    except VirtsnapError as exc:
        findings.append(Finding(
            about="libvirt", mark="bad", said=exc.message,
            remedy="install libvirt-daemon-system and start libvirtd or virtqemud; for qemu:///system be root or "
                   "in the group libvirt; `-c URI` names another",
        ))
    # What is looked at on this machine says nothing about another.
    return (*findings, _qemu_img(), _kvm(), *_folder(directory), *_ram_folder()) if is_local else tuple(findings)


def _safely(look: Callable[[Host], Iterator[Finding]], host: Host) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look(host))
    except (VirtsnapError, libvirt.libvirtError, etree.XMLSyntaxError) as exc:
        found.append(Finding(about=look.__name__.strip("_"), mark="bad", said=str(exc),
                             remedy=getattr(exc, "hint", None)))
    return found


def _libvirt(host: Host) -> Iterator[Finding]:
    daemon, client = host.libvirt_version, split_version(libvirt.getVersion())
    said = f"libvirt {daemon[0]}.{daemon[1]} at {host.uri}"
    if daemon < OLDEST:
        yield Finding(about="libvirt", mark="bad", said=said, remedy="libvirt 9.0 or later is needed")
    else:
        yield Finding(about="libvirt", mark="ok", said=said)
    if client < daemon:
        yield Finding(about="client library", mark="note",
                      said=f"the client library is {client[0]}.{client[1]}, older than the daemon",
                      remedy="newer calls are missing; use the libvirt-python of that host")
    if not host.is_local:
        _ = host.files  # an error where libvirt there has no storage driver, with the remedy
        yield Finding(about="files", mark="note",
                      said="they are another machine's, reached by libvirt's storage calls",
                      remedy="on that machine itself, virtsnap also looks at KVM, folders and room")


def _emulator(host: Host) -> Iterator[Finding]:
    number = host.hypervisor_version()
    major, minor = number // 1_000_000, number // 1_000 % 1_000
    if number == 0:
        yield Finding(about="QEMU", mark="bad", said="libvirt found no QEMU", remedy="install qemu-system-x86")
    elif (major, minor) < (7, 0):
        yield Finding(about="QEMU", mark="note", said=f"QEMU {major}.{minor}",
                      remedy="QEMU before 7.2 is not tested")
    else:
        yield Finding(about="QEMU", mark="ok", said=f"QEMU {major}.{minor}")


def _security(host: Host) -> Iterator[Finding]:
    for model in read_confinement(host.capabilities()).models:
        if model == "apparmor":
            yield Finding(
                about="AppArmor", mark="note", said="QEMU is confined by AppArmor",
                remedy="libvirt lets QEMU open what a definition names; where it is refused all the same, "
                       "look for DENIED in `dmesg` and allow the folder in "
                       "/etc/apparmor.d/local/abstractions/libvirt-qemu",
            )
        elif model == "selinux":
            yield Finding(
                about="SELinux", mark="note", said="QEMU is confined by SELinux",
                remedy="a folder of your own needs the type virt_image_t: `semanage fcontext -a -t virt_image_t "
                       "'/images(/.*)?'`, then `restorecon -R /images`",
            )


def _instant(host: Host) -> Iterator[Finding]:
    """Say what RAM in a file (`create --ram-file`, the engine `instant`) needs here, and what excludes it."""
    if not host.is_local:
        yield Finding(about="instant", mark="note", said="such snapshots are loaded from here, and none is made",
                      remedy="save on that machine itself")
        return
    found = read_confinement(host.capabilities())
    own = os.geteuid() in (0, os.geteuid() if found.user is None else found.user[0])
    is_ready = own and not RAM_RULES.keys() & set(found.models)
    yield Finding(about="instant", mark="ok" if is_ready else "note",
                  said=f"excluded by {', '.join(WHAT_EXCLUDES)}",
                  remedy="it needs: " + "; ".join(needs_of_ram_in_files(found)))


def _qemu_img() -> Finding:
    place = shutil.which("qemu-img")
    if place is None:
        return Finding(about="qemu-img", mark="bad", said="qemu-img is not on the PATH",
                       remedy="install the package qemu-utils")
    return Finding(about="qemu-img", mark="ok", said=place)


def _kvm() -> Finding:
    slow = "guests run under TCG, many times slower"
    if not _KVM.exists():
        return Finding(about="KVM", mark="note", said=f"there is no {_KVM}; {slow}",
                       remedy="enable virtualization in the firmware, or nested virtualization for a VM")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Finding(about="KVM", mark="note", said=f"{_KVM} may not be opened by this user; {slow}",
                       remedy="add the user to the group kvm")
    problem = kvm_problem()
    if problem is not None:
        return Finding(about="KVM", mark="note", said=f"{_KVM} is there, and {problem}; {slow}",
                       remedy="use <domain type='qemu'>, or a machine whose nested virtualization works")
    return Finding(about="KVM", mark="ok", said=f"{_KVM} runs a guest")


def kvm_problem() -> str | None:
    """Run QEMU's own firmware under KVM until it speaks; say what went wrong, or None.

    A /dev/kvm that can be opened may still not get a guest past its first instructions.
    """
    program = next((found for name in _QEMU_NAMES if (found := shutil.which(name))), None)
    if program is None or "x86" not in program:
        return None  # no way to find out here
    with tempfile.TemporaryDirectory(prefix="virtsnap-doctor-") as folder:
        log = Path(folder) / "firmware"
        words = [program, "-accel", "kvm", "-machine", "pc", "-m", "64", "-nodefaults", "-display", "none",
                 "-chardev", f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=log",
                 "-no-reboot"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as qemu:
            deadline = time.monotonic() + _KVM_PROBE_S
            while qemu.poll() is None and not _has_spoken(log) and time.monotonic() < deadline:
                time.sleep(0.02)
            qemu.kill()
            _, said = qemu.communicate()
        if _has_spoken(log):
            return None
        errors = [line for line in said.splitlines() if "warning:" not in line]
        return f"QEMU says: {errors[-1]}" if errors else "a guest does not get past its first instructions"


def _has_spoken(log: Path) -> bool:
    # SeaBIOS's last words but one: by then protected mode, real mode and devices have worked.
    return log.exists() and b"Searching bootorder" in log.read_bytes()


def _folder(directory: str | None) -> Iterator[Finding]:
    place = Path(directory or "/var/lib/libvirt/images")
    if not place.is_dir():
        if directory is not None:
            yield Finding(about="folder", mark="bad", said=f"{place}: no such folder", remedy="make it")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(about="folder", mark="bad" if directory else "note", said=f"{place} cannot be written to",
                      remedy="snapshots need their disks' folder, or another one with --dir")
        return
    free = shutil.disk_usage(place).free
    yield Finding(about="folder", mark="ok" if free > 1 << 30 else "note", said=f"{place}: {free >> 20} MiB free",
                  remedy=None if free > 1 << 30 else "a save needs room for the guest's memory")
    if has_reflinks(place):
        yield Finding(about="reflinks", mark="ok", said=f"{place} shares blocks between copies")
    else:
        yield Finding(about="reflinks", mark="note", said=f"{place} has no reflinks: copies cost time and room",
                      remedy="XFS or Btrfs have them")


def _ram_folder() -> Iterator[Finding]:
    place = Path("/dev/shm")  # noqa: S108 - only looked at
    if not place.is_dir():
        yield Finding(about="RAM in files", mark="note", said=f"there is no {place}",
                      remedy="give `create --ram-file` another place with --ram-dir")
        return
    found = shutil.disk_usage(place)
    yield Finding(about="RAM in files", mark="ok",
                  said=f"{place} has room for {found.free >> 20} MiB of guests' RAM (`create --ram-file`)")


def has_reflinks(place: Path) -> bool:
    """Say whether files in a folder can share their blocks; tries it with two small files of its own."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix=".virtsnap-", dir=place) as folder:
        one, other = Path(folder) / "a", Path(folder) / "b"
        one.write_bytes(b"x" * 65536)
        with one.open("rb") as source, other.open("wb") as copy:
            result: Any = fcntl.ioctl(copy.fileno(), _FICLONE, source.fileno())
            return bool(result == 0)
    return False
