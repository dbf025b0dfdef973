"""This machine becomes the words and numbers that a measurement has to be read with."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path

from virtsnap.errors import HypervisorError
from virtsnap.host.doctor import has_reflinks

_LIBC = ctypes.CDLL(None, use_errno=True)


def processor() -> str:
    """Name the processor and how many of them we may use."""
    names = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    return f"{len(os.sched_getaffinity(0))} × {names[0] if names else platform.machine()}"


def system() -> str:
    """Name the distribution and its kernel."""
    facts = dict(line.split("=", 1) for line in _lines("/etc/os-release") if "=" in line)
    name = facts.get("PRETTY_NAME", "Linux").strip('"')
    return f"{name}, Linux {platform.release()}"


def total_mib() -> int:
    """Give the machine's memory."""
    return _meminfo("MemTotal")


def available_mib() -> int:
    """Give the memory that can be had without swapping."""
    return _meminfo("MemAvailable")


def file_system(folder: Path) -> str:
    """Name the file system of a folder, and say whether it has reflinks."""
    real, best, kind = str(folder.resolve()), "", "unknown"
    for line in _lines("/proc/self/mounts"):
        words = line.split()
        place = words[1].replace("\\040", " ")
        if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best):
            best, kind = place, words[2]
    return f"{kind}, {'with' if has_reflinks(folder) else 'without'} reflinks"


def qemu_version(emulator: str) -> tuple[int, int]:
    """Ask an emulator for (major, minor); on failure: HypervisorError."""
    place = shutil.which(emulator) or emulator
    try:
        text = subprocess.run(
            [place, "--version"], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
        ).stdout
        words = text.split("version", 1)[1].split()[0].split(".")
        return int(words[0]), int(words[1])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as exc:
        raise HypervisorError(f"{emulator}: cannot be asked for its version: {exc}") from exc


def sync_folder(folder: Path) -> None:
    """Have the file system of a folder write everything out (syncfs)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _LIBC.syncfs(fd)
    finally:
        os.close(fd)


def held_bytes(folder: Path) -> int:
    """Give what the files below a folder take on disk; an extent that two files share counts for both."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def written_bytes() -> int:
    """Give what this machine has written to block devices since it booted (pgpgout)."""
    numbers = dict(line.split() for line in _lines("/proc/vmstat"))
    return int(numbers.get("pgpgout", "0")) * 1024


def _meminfo(name: str) -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) // 1024
    return 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
