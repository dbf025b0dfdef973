"""libvirt's event loop: registered once in a process, and run by whoever has time for it.

libvirt wants it registered before a connection is opened that is to have
events or streams. From then on it also takes the loop to close a connection:
where nobody runs it any more, each leaves two descriptors open. So a program
that goes on after its events has a thread run it (`keep_running`), and one
whose work is the loop itself (a console) runs it there.
"""

from __future__ import annotations

import threading

import libvirt

_lock = threading.Lock()
_registered = False
_thread: threading.Thread | None = None


def register_event_loop() -> None:
    """Register libvirt's event loop, once in a process."""
    global _registered
    with _lock:
        if not _registered:
            libvirt.virEventRegisterDefaultImpl()
            _registered = True


def keep_running() -> None:
    """Register the loop, and have a thread run it for as long as the process lives."""
    global _thread
    register_event_loop()
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_run, name="libvirt's event loop", daemon=True)
            _thread.start()


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
