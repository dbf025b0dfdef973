"""QEMU is asked past libvirt, for what libvirt has no call; libvirt marks such a domain as tainted."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host.translate import translated

_END_TIMEOUT_S = 10.0
_OVER = ("cancelled", "failed", "completed", None)
# Of a migration that is never to come to its end (qapi/migration.json). Where QEMU waits for its share of the
# bandwidth it would wait 0.1 s before it is cancelled; and where it thinks that what is left is sent within the
# downtime it stops to answer, stops the guest and sends it, which nobody reads.
_UNHURRIED = {"max-bandwidth": (1 << 63) - 1, "downtime-limit": 0}
_DEFAULTS = {"max-bandwidth": 128 << 20, "downtime-limit": 300}
# How far QEMU may be ahead of who reads: it must not come to an end that nobody waits for
_AHEAD = 1 << 16
_FD_NAME = "virtsnap"
# libvirt numbers its sets from 0. It looks through all there are, and libvirtd 11.3 dies of one that says nothing
# about its descriptors (SIGSEGV).
_FDSET = {"fdset-id": 1_000_000_000, "opaque": "virtsnap"}


class Monitor:
    """The QMP monitor of a running domain's QEMU, by virDomainQemuMonitorCommand."""

    def __init__(self, handle: Any, name: str) -> None:
        self._handle, self._name = handle, name

    def version(self) -> tuple[int, int]:
        """Ask QEMU for its version."""
        found = self._ask("query-version")["qemu"]
        return int(found["major"]), int(found["minor"])

    def set_capability(self, name: str, on: bool) -> None:
        """Switch a capability for what QEMU next writes its state by."""
        self._ask("migrate-set-capabilities", {"capabilities": [{"capability": name, "state": on}]})

    def capabilities(self) -> Mapping[str, bool]:
        """Ask QEMU which capabilities are on."""
        return {found["capability"]: bool(found["state"]) for found in self._ask("query-migrate-capabilities")}

    def migration_blockers(self) -> tuple[str, ...]:
        """Ask QEMU why it could not write its state out; nothing where it could, or does not say."""
        try:
            answer = self._ask("query-migrate")
        except VirtsnapError:
            return ()
        return tuple(str(reason) for reason in answer.get("blocked-reasons", ()))

    @contextlib.contextmanager
    def sending_state(self) -> Iterator[socket.socket]:
        """Have QEMU send its state to the socket given, and take words from there, until the block ends.

        Nothing of it is ever complete: the peer takes what it wants, and the migration is cancelled. The guest
        stays paused, or goes on. On failure: HypervisorError.
        """
        found = self.migration_parameters()
        before = {name: found[name] for name in _UNHURRIED if name in found}
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)
        with ours, contextlib.ExitStack() as undone:
            undone.callback(self.set_capability, "return-path", False)
            undone.callback(self._ask, "migrate-set-parameters", before)
            with theirs:
                self.set_capability("return-path", True)
                self._ask("migrate-set-parameters", _UNHURRIED)
                self._ask("getfd", {"fdname": _FD_NAME}, files=[theirs.fileno()])
            undone.callback(self._end_migration)
            undone.callback(ours.close)  # first: QEMU may not answer while it waits for somebody to read
            self._ask("migrate", {"uri": f"fd:{_FD_NAME}"})
            yield ours

    def forget_peer(self) -> None:
        """Have QEMU migrate as before a `sending_state` whose process was killed.

        What nobody remembers becomes QEMU's default.
        """
        self.set_capability("return-path", False)
        if self.migration_parameters().get("downtime-limit") == _UNHURRIED["downtime-limit"]:
            self._ask("migrate-set-parameters", _DEFAULTS)

    def migration_parameters(self) -> Mapping[str, Any]:
        """Ask QEMU for the parameters of its migrations."""
        found: Mapping[str, Any] = self._ask("query-migrate-parameters")
        return found

    def _end_migration(self) -> None:
        self._ask("migrate_cancel")
        deadline = time.monotonic() + _END_TIMEOUT_S
        while self._ask("query-migrate").get("status") not in _OVER:
            if time.monotonic() > deadline:
                raise HypervisorError(f"{self._name}: QEMU does not end the migration that was cancelled")
            time.sleep(0.001)

    def device_state(self) -> bytes:
        """Have QEMU write the state of its devices alone: magic, version, their sections, the end of the stream.

        Needs: the guest is paused. By a command that is there for Xen, which keeps the RAM itself; unlike a
        migration's end it leaves the disks as they are. On failure: HypervisorError.
        """
        file = os.memfd_create("virtsnap", os.MFD_CLOEXEC)
        try:
            # QEMU looks for one that is open for writing alone.
            writable = os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                fdset = self._ask("add-fd", _FDSET, files=[writable])["fdset-id"]
            finally:
                os.close(writable)
            try:
                self._ask("xen-save-devices-state", {"filename": f"/dev/fdset/{fdset}", "live": False})
            finally:
                self._ask("remove-fd", {"fdset-id": fdset})
            state = os.pread(file, os.fstat(file).st_size, 0)
        finally:
            os.close(file)
        if not state.startswith(b"QEVM"):
            raise HypervisorError(f"{self._name}: QEMU wrote no state of its devices")
        return state

    def _ask(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, files: Sequence[int] = ()
    ) -> Any:
        """Send a command; on failure: HypervisorError, with QEMU's words where it has some."""
        import libvirt_qemu

        request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        with translated(f"{self._name}: cannot ask QEMU to {command}"):
            if files:
                text, _ = libvirt_qemu.qemuMonitorCommandWithFiles(self._handle, request, list(files), 0)
            else:
                text = libvirt_qemu.qemuMonitorCommand(self._handle, request, 0)
        try:
            answer = json.loads(text)
        except ValueError as exc:
            raise HypervisorError(f"{self._name}: QEMU's answer to {command} is not understood") from exc
        if "error" in answer:
            raise HypervisorError(f"{self._name}: QEMU refuses {command}: {answer['error'].get('desc', '')}")
        return answer["return"]
