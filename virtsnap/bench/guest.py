"""A guest with holes in its command line becomes the words that start one, of a given size, in a folder.

    {memory_mib}  how much RAM          {disk}    a qcow2 overlay, made for each start
    {serial}      a UNIX socket: the console on which a shell answers
    {pulse}       a UNIX socket: a second serial line, for the pulse (see `virtsnap.bench.pulse`)
    {accel}       kvm or tcg

`Workload` is what all guests are made to do: hold so much RAM that is not
zero, and keep tokens in RAM and on disk that tell whether a load was one.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtsnap.bench.console import GuestConsole
from virtsnap.errors import UsageError

HOLES = ("memory_mib", "disk", "serial", "pulse")

# As os-autoinst writes it where that matters: -blockdev with no-flush, the serial lines on sockets, and a source
# of entropy, without which Linux waits for a second before it first reads /dev/urandom.
_MACHINE = (
    "qemu-system-x86_64", "-machine", "pc", "-accel", "{accel}", "-m", "{memory_mib}", "-smp", "1",
    "-nodefaults", "-display", "none",
    "-chardev", "socket,id=serial0,path={serial},server=on,wait=off", "-serial", "chardev:serial0",
    "-chardev", "socket,id=serial1,path={pulse},server=on,wait=off", "-serial", "chardev:serial1",
    "-blockdev", "driver=file,node-name=hd0-file,filename={disk},cache.no-flush=on",
    "-blockdev", "driver=qcow2,node-name=hd0,file=hd0-file,cache.no-flush=on,discard=unmap",
    "-device", "virtio-blk-pci,id=hd0-device,drive=hd0",
    "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,id=rng0-device,rng=rng0",
)  # fmt: skip

_GONE = "0" * 16  # as long as a token

# 1 MiB that a compressor shrinks to three quarters: neither noise nor zeros, of which no stream carries any.
_SEED = "head -c 786432 /dev/urandom | base64 -w 0"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A guest to be measured: words with holes, the disk below its overlays, where it keeps what it is told.

    `in_ram` and `on_disk` are folders of the guest: a tmpfs, and a place on {disk}. `pulse_tty` is the
    second serial line's device there.
    """

    words: tuple[str, ...]
    disk: Path
    accel: str
    in_ram: str = "/ram"
    on_disk: str = "/mnt"
    pulse_tty: str = "/dev/ttyS1"

    def argv(self, folder: Path, disk: Path, *, memory_mib: int) -> list[str]:
        """Give the command line with its holes filled."""
        filled = {
            "memory_mib": str(memory_mib), "disk": str(disk), "serial": str(folder / "serial"),
            "pulse": str(folder / "pulse"), "accel": self.accel,
        }
        words = []
        for word in self.words:
            for hole, value in filled.items():
                word = word.replace("{" + hole + "}", value)
            words.append(word)
        return words


def built_in_guest(
    *, kernel: Path, initrd: Path, disk: Path, append: str, accel: str, in_ram: str, on_disk: str
) -> Guest:
    """Give a plain machine around a kernel and an initrd."""
    words = (*_MACHINE, "-kernel", str(kernel), "-initrd", str(initrd), "-append", append)
    return Guest(words=words, disk=disk, accel=accel, in_ram=in_ram, on_disk=on_disk)


def guest_from_words(words: Sequence[str], *, disk: Path, accel: str, in_ram: str, on_disk: str) -> Guest:
    """Give a guest of the user's own command line; UsageError where a hole is missing in it."""
    text = " ".join(words)
    missing = [hole for hole in HOLES if "{" + hole + "}" not in text]
    if missing:
        raise UsageError(
            "the command line has no " + ", ".join("{" + hole + "}" for hole in missing),
            hint="write them where the memory in MiB, the disk's file and the two serial lines' sockets stand",
        )
    return Guest(words=tuple(words), disk=disk, accel=accel, in_ram=in_ram, on_disk=on_disk)


class Workload:
    """What a running guest is made to hold."""

    def __init__(self, guest: Guest, console: GuestConsole) -> None:
        self._guest = guest
        self._console = console
        self._tokens = ("", "")

    def fill(self, resident_mib: int) -> None:
        """Have the guest hold so much RAM, nothing of it zero. Needs: it has booted."""
        ram = self._guest.in_ram
        self._console.check(
            f"mount -o remount,size=95% {ram} 2>/dev/null; {_SEED} > {ram}/seed; "
            f"yes {ram}/seed | head -n {resident_mib} | xargs cat > {ram}/fill",
            timeout_s=120 + resident_mib / 10,
        )

    def set_tokens(self) -> None:
        """Put new tokens into RAM and onto the disk, for good."""
        self._tokens = (secrets.token_hex(8), secrets.token_hex(8))
        self._write(*self._tokens)

    def wreck(self) -> None:
        """Overwrite both tokens: a load has to bring back what they were."""
        self._write(_GONE, _GONE)

    def lost(self) -> tuple[str, ...]:
        """Say which of the tokens are not as they were set; the disk is read past the guest's page cache."""
        in_ram, on_disk = self._tokens
        found = self._console.check(
            f"cat {self._guest.in_ram}/token; echo 3 > /proc/sys/vm/drop_caches; cat {self._guest.on_disk}/token",
            timeout_s=120,
        ).split()
        there = found if len(found) == 2 else ["", ""]
        return tuple(
            name for name, now, then in (("RAM", there[0], in_ram), ("disk", there[1], on_disk)) if now != then
        )

    def _write(self, in_ram: str, on_disk: str) -> None:
        self._console.check(
            # In place: a new block would leave the old one, which old RAM over a newer disk would still find.
            f"echo {in_ram} > {self._guest.in_ram}/token; "
            f"echo {on_disk} | dd of={self._guest.on_disk}/token conv=notrunc 2>/dev/null; sync",
            timeout_s=120,
        )


def wait_for_disk(console: GuestConsole, guest: Guest) -> None:
    """Wait until something is mounted where the guest keeps its disk's token."""
    with contextlib.suppress(AssertionError):
        console.check(
            f"i=0; until grep -q ' {guest.on_disk} ' /proc/mounts || [ $i -ge 20 ]; "
            "do sleep 0.5; i=$((i+1)); done", timeout_s=120,
        )
