"""`virtsnap bench` on a libvirtd of our own with the test guest; `make bench` runs this.

Words given to it go to the verb, after those of DEFAULTS: a later one of the same option counts.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.guest.build import CHECKOUT, build_guest
from tests.host.accelerator import domain_type
from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.cli.main import main as virtsnap

OUTPUT = CHECKOUT / ".cache" / "bench"
DEFAULTS = (
    "--size", "2048:512", "--rounds", "4", "--sizes", "1024:512,6144:512,6144:4096",
    "--cycles", "100", "--parallel", "1,4,8", "--minutes", "14",
)  # fmt: skip


def main(words: list[str]) -> int:
    """Run the bench; the exit code is the verb's."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    files = build_guest()
    accelerator = "kvm" if domain_type(files) == "kvm" else "tcg"
    # A file system that lasts: in /tmp there may be none that a snapshot would lie on.
    with tempfile.TemporaryDirectory(prefix="vs-", dir="/var/tmp") as folder, PrivateLibvirtd() as host:
        Path(folder).chmod(0o711)
        return virtsnap([
            "-c", host.uri, "bench", "--kernel", str(files.kernel), "--initrd", str(files.initramfs),
            "--append", files.kernel_arguments, "--disk", str(files.disk), "--accel", accelerator,
            "--dir", folder, "--output", str(OUTPUT), *DEFAULTS, *words,
        ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
