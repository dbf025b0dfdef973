"""`virtsnap bench` on a libvirtd of our own with the test guest; `make bench` runs this.

First everything on the disk's file system, then `instant` on an XFS with reflinks (a loop device: needs root
and mkfs.xfs), from which the others gain nothing. Words given to it go to the verb, after those of DEFAULTS: a
later one of the same option counts; with words there is only the first run. `--on-xfs` among them has it there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.guest.build import CHECKOUT, GuestFiles, build_guest
from tests.host.accelerator import domain_type
from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.cli.main import main as virtsnap

OUTPUT = CHECKOUT / ".cache" / "bench"
DEFAULTS = (
    "--size", "2048:512", "--rounds", "4", "--sizes", "1024:512,6144:512,6144:4096", "--loads", "2",
    "--cycles", "100", "--parallel", "1,4,8", "--minutes", "13.25",
)  # fmt: skip
ON_XFS = (
    "--engine", "instant", "--engine", "instant-again", "--size", "2048:512", "--rounds", "3",
    "--sizes", "1024:512,6144:512", "--minutes", "1.25",
)  # fmt: skip


def main(words: list[str]) -> int:
    """Run the bench; the exit code is the verb's, the greater one of two."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    files = build_guest()
    with tempfile.TemporaryDirectory(prefix="vs-", dir="/var/tmp") as place:  # not /tmp, which may be no disk
        folder = Path(place)
        folder.chmod(0o711)
        if "--on-xfs" in words:
            words.remove("--on-xfs")
            with xfs(folder) as mounted:
                return bench(files, mounted, [*DEFAULTS, *words], OUTPUT / "xfs")
        code = bench(files, folder, [*DEFAULTS, *words], OUTPUT)
        if words:
            return code
        if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
            print("no XFS here: being root and having mkfs.xfs (package xfsprogs) is needed for a loop device")
            return code
        with xfs(folder) as mounted:
            return max(code, bench(files, mounted, ON_XFS, OUTPUT / "xfs"))


def bench(files: GuestFiles, folder: Path, words: Sequence[str], output: Path) -> int:
    """Call the verb on a libvirtd of our own."""
    accelerator = "kvm" if domain_type(files) == "kvm" else "tcg"
    with PrivateLibvirtd() as host:
        return virtsnap([
            "-c", host.uri, "bench", "--kernel", str(files.kernel), "--initrd", str(files.initramfs),
            "--append", files.kernel_arguments, "--disk", str(files.disk), "--accel", accelerator,
            "--dir", str(folder), "--output", str(output), *words,
        ])  # fmt: skip


@contextmanager
def xfs(folder: Path) -> Iterator[Path]:
    """Mount a new XFS with reflinks in `folder` while the block runs."""
    image, place = folder / "xfs", folder / "x"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(40 << 30)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    place.chmod(0o711)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        image.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
