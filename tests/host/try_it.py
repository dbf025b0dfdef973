"""A private libvirtd with a running guest to play with, until ^C. Run as `python -m tests.host.try_it`."""

from __future__ import annotations

import contextlib
import signal

from tests.guest.build import build_guest
from tests.host.accelerator import domain_type
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    files = build_guest()
    with (
        contextlib.suppress(KeyboardInterrupt),
        PrivateLibvirtd() as host,
        GuestFarm(host, files, domain_type(files)) as farm,
    ):
        guest = farm.running_guest()
        print(f"{guest.name} runs, with its serial console at {guest.folder}/serial")
        print(f"export LIBVIRT_DEFAULT_URI='{host.uri}'", flush=True)
        signal.pause()
