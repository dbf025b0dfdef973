"""The main job, end to end: a QEMU command line becomes a domain, and a snapshot brings a wrecked guest back.

`make demo` runs this. It has a libvirtd of its own, prints each step with the
time that it took, ends with 1 where anything is not as it should be, and
leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from tests.guest.build import GuestFiles, build_guest
from tests.guest.console import GuestConsole, GuestSilentError
from tests.host.accelerator import DomainType, domain_type
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd

VIRTSNAP = Path(sys.executable).with_name("virtsnap")
VM = "demo"
SNAPSHOT = "lastgood"

# A log file has no terminal to ask for its width, and tables need some room.
_terminal = Console(highlight=False)
console = Console(highlight=False, width=_terminal.width if _terminal.is_terminal else 120)


class DemoFailedError(Exception):
    """A step did not do what it should; the message says which and what came instead."""


def main() -> int:
    """Run the demo; 0 when all of it was so, else 1."""
    # As at ^C, so that what was started is ended and removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    mounts = Path("/proc/self/mounts").read_text()
    host = PrivateLibvirtd()
    begun = time.monotonic()
    try:
        with step("the test guest: Debian's kernel, busybox, an ext4 disk"):
            files = build_guest()
        with step("does /dev/kvm really boot it?") as say:
            accelerator = domain_type(files)
            say("yes, so KVM" if accelerator == "kvm" else "no, so TCG")
        with step("a libvirtd of our own") as say:
            host.start()
            say(host.uri)
        folder = host.folder
        try:
            with GuestFarm(host, files, accelerator) as farm:
                _run(farm)
        finally:
            with step("end and remove everything"):
                host.stop()
        with step("nothing is left: no process, mount or file"):
            _check_nothing_left(folder, mounts)
    except (Exception, KeyboardInterrupt) as exc:
        console.print(Text(f"\nThe demo failed: {type(exc).__name__}: {exc}", style="bold red"))
        return 1
    finally:
        host.stop()
    took_s = time.monotonic() - begun
    console.print(Text(f"\nThe guest came back as it was saved. {took_s:.1f} s in all.", style="bold green"))
    return 0


def _run(farm: GuestFarm) -> None:
    folder = farm.new_folder(VM)
    farm.adopt(VM)
    argv = qemu_command_line(folder, farm.new_disk(folder, "hd0-overlay0"), farm.files, farm.domain_type)
    args = folder / f"{VM}.args"
    args.write_text(_one_option_a_line(argv))
    title("A QEMU command line, in os-autoinst's manner")
    console.print(Text(args.read_text().rstrip()))

    title("virtsnap convert: what becomes of each argument")
    with step("convert"):
        _virtsnap(farm.uri, "convert", "--show-report", "--name", VM, "--report", folder / "report.json",
                  "--output", folder / "domain.xml", args)  # fmt: skip
    _check_report(json.loads((folder / "report.json").read_text()), len(argv))

    title("virtsnap create: the domain runs")
    with step("create"):
        _answer(farm.uri, "create", "--name", VM, args)
    guest = farm.console(VM, folder / "serial0")
    with step("the guest has booted, and answers on its serial console") as say:
        guest.wait_ready(timeout_s=120)
        guest.wait_disk()
        say(guest.check("echo $(uname -sr), $(nproc) CPUs, $(free -m | awk '/Mem/ {print $2}') MiB"))
    in_ram, on_disk = secrets.token_hex(8), secrets.token_hex(8)
    with step("a token into its RAM, another into a file on its disk") as say:
        guest.check(f"echo {in_ram} > /ram/token && echo {on_disk} > /mnt/token && sync")
        say(f"{in_ram}, {on_disk}")

    title("virtsnap save, and then the guest is wrecked")
    with step(f"virtsnap save {VM} {SNAPSHOT}") as say:
        say(_phases(_answer(farm.uri, "save", VM, SNAPSHOT)))
    _wreck(guest)

    title("virtsnap load: back to where all was well")
    with step(f"virtsnap load {VM} {SNAPSHOT}") as say:
        say(_phases(_answer(farm.uri, "load", VM, SNAPSHOT)))
    with step("both tokens are back in the running guest") as say:
        found = guest.check("cat /ram/token /mnt/token", timeout_s=30).split()
        _expect(found == [in_ram, on_disk], f"the guest has {found}, saved were {[in_ram, on_disk]}")
        # What RAM has cached of the disk would hide a wrong disk.
        guest.check("echo 3 > /proc/sys/vm/drop_caches")
        again = guest.check("cat /mnt/token; cat /mnt/hello.txt").splitlines()
        _expect(again == [on_disk, "This is the test guest's disk."], f"the disk itself has {again}")
        say(", ".join(found))
    with step("virsh snapshot-list shows the snapshot"):
        listed = _output("virsh", "-c", farm.uri, "snapshot-list", VM)
    console.print(Text(listed.rstrip()))
    _expect(SNAPSHOT in listed.split(), "the snapshot is not in the list")
    with step("virtsnap list"):
        listed = _virtsnap(farm.uri, "list", VM)
    console.print(Text(listed.rstrip()))
    with step(f"virtsnap rm {VM} {SNAPSHOT}"):
        _answer(farm.uri, "rm", VM, SNAPSHOT)
        _expect(guest.check("cat /ram/token") == in_ram, "the guest did not survive the removal")


def qemu_command_line(folder: Path, disk: Path, files: GuestFiles, accelerator: DomainType) -> list[str]:
    """Give the command line of the demo's machine, its files below `folder`, as os-autoinst would write it."""
    serial = f"socket,id=serial0,path={folder}/serial0,server=on,wait=off"
    serial += f",logfile={folder}/serial0.log,logappend=on"
    return [
        "/usr/bin/qemu-system-x86_64",
        "-device", "VGA,edid=on,xres=1024,yres=768",
        "-chardev", serial,
        "-serial", "chardev:serial0",
        "-global", "isa-fdc.fdtypeA=none",
        "-m", "1024",
        *(["-cpu", "host"] if accelerator == "kvm" else ["-cpu", "qemu64"]),
        "-netdev", "user,id=qanet0",
        "-device", "virtio-net,netdev=qanet0,mac=52:54:00:12:34:56",
        "-object", "rng-random,filename=/dev/urandom,id=rng0",
        "-device", "virtio-rng-pci,rng=rng0",
        "-boot", "once=d",
        "-kernel", str(files.kernel),
        "-initrd", str(files.initramfs),
        "-append", files.kernel_arguments,
        "-device", "qemu-xhci",
        "-device", "usb-tablet",
        "-smp", "2",
        *(["-enable-kvm"] if accelerator == "kvm" else []),
        "-no-shutdown",
        "-vnc", f":{_free_display()},share=force-shared",
        "-device", "virtio-serial",
        "-blockdev", f"driver=file,node-name=hd0-overlay0-file,filename={disk},cache.no-flush=on",
        "-blockdev", "driver=qcow2,node-name=hd0-overlay0,file=hd0-overlay0-file,cache.no-flush=on,discard=unmap",
        "-device", "virtio-blk,id=hd0-device,drive=hd0-overlay0,bootindex=0,serial=hd0",
    ]  # fmt: skip


def _free_display() -> int:
    """Find a VNC display that nobody on this machine has."""
    for display in range(90, 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 5900 + display)) != 0:
                return display
    raise DemoFailedError("no free VNC display from :90 to :199")


def _wreck(guest: GuestConsole) -> None:
    with step("its files removed"):
        _, status = guest.run("rm -rf /mnt/* /ram/* && sync; cat /mnt/token /ram/token")
        _expect(status != 0, "the tokens are still there")
    with step("its kernel panics (sysrq c)"):
        guest.send("echo c > /proc/sysrq-trigger")
        time.sleep(1)
    with step("it does not answer any more") as say:
        try:
            guest.run("true", timeout_s=2)
        except GuestSilentError:
            say("as dead as can be")
        else:
            raise DemoFailedError("the guest still answers after a kernel panic")


def _check_report(report: Mapping[str, Any], words: int) -> None:
    covered = [index for entry in report["arguments"] for index in range(entry["argv"][0], entry["argv"][1] + 1)]
    _expect(covered == list(range(words)), f"the report covers {covered}, the command line has {words} words")


def _check_nothing_left(folder: Path, mounts: str) -> None:
    _expect(not folder.exists(), f"{folder} is still there")
    _expect(Path("/proc/self/mounts").read_text() == mounts, "the mounts have changed")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        _expect(str(folder).encode() not in words, f"process {process.name} is left: {words!r}")


# --- commands -------------------------------------------------------------------------------


def _virtsnap(uri: str, *words: str | Path) -> str:
    return _output(VIRTSNAP, "-c", uri, *words)


def _answer(uri: str, *words: str | Path) -> dict[str, Any]:
    """Run a verb with --json; return its object, which must say ok."""
    answer = json.loads(_virtsnap(uri, "--json", *words))
    _expect(answer.get("ok") is True, f"virtsnap {words[0]} answered {answer}")
    assert isinstance(answer, dict)
    return answer


def _output(*words: str | Path) -> str:
    """Run a command that must succeed; return its stdout. Its stderr goes where ours does."""
    environment = {**os.environ, "COLUMNS": str(console.width)}
    done = subprocess.run(
        words, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment
    )
    _expect(done.returncode == 0, f"{shlex.join(map(str, words))} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def _phases(answer: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in answer.get("phases_s", {}).items())


def _one_option_a_line(argv: Sequence[str]) -> str:
    lines = [[argv[0]]]
    for word in argv[1:]:
        if word.startswith("-"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n".join(shlex.join(line) for line in lines) + "\n"


# --- printing -------------------------------------------------------------------------------


def title(text: str) -> None:
    """Print what comes next."""
    console.print()
    console.print(Rule(Text(text, style="bold"), align="left"))


class Saying:
    """What a step has to say for itself, printed behind it."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str) -> None:
        self.text = text


@contextmanager
def step(text: str) -> Iterator[Saying]:
    """Time what is inside, and print it with what it says: done, or failed."""
    saying = Saying()
    begun = time.monotonic()
    try:
        yield saying
    except BaseException:
        _print_step("failed", "bold red", begun, text, "")
        raise
    _print_step("done", "green", begun, text, saying.text)


def _print_step(word: str, style: str, begun: float, text: str, said: str) -> None:
    line = Text.assemble((f"{word:>6} ", style), (f"{time.monotonic() - begun:7.2f} s  ", "cyan"), text)
    if said:
        line.append(f": {said}", "dim")
    console.print(line)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DemoFailedError(otherwise)


if __name__ == "__main__":
    sys.exit(main())
