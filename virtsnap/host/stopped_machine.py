"""A QEMU command line, or a domain, becomes a machine that is stopped before its first instruction.

Both kinds answer QMP commands the same way, and both are gone without a trace
when the context ends: the process that was started here is ended by its own
handle, and the domain is a transient one with a name of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from virtsnap.errors import HypervisorError
from virtsnap.host.own_qemu import OwnQemu
from virtsnap.host.translate import translated

ASK_TIMEOUT_S = 30.0


class StoppedMachine:
    """A machine that answers QMP."""

    def __init__(self, send: Callable[[str, Mapping[str, Any]], Any]) -> None:
        self._send = send

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command and give what it returns; raises HypervisorError with QEMU's words."""
        return self._send(command, {key.replace("_", "-"): value for key, value in arguments.items()})

    def hmp(self, line: str) -> str:
        """Run a command of the human monitor and give its text."""
        return str(self.execute("human-monitor-command", command_line=line))


@contextlib.contextmanager
def stopped_process(argv: Sequence[str], *, folder: Path) -> Iterator[StoppedMachine]:
    """Start QEMU from argv, stopped at reset, with a monitor of its own.

    `folder` is where it runs. On failure: HypervisorError with QEMU's own
    message. Afterwards the process is gone, whatever happened.
    """
    with OwnQemu([*argv, "-S"], folder=folder) as qemu:
        yield StoppedMachine(lambda command, arguments: qemu.execute(command, **arguments))


@contextlib.contextmanager
def stopped_domain(uri: str | None, xml: str) -> Iterator[StoppedMachine]:
    """Start a transient domain from XML, stopped at reset.

    Needs: a name and a UUID that no domain has (`has_uuid`). On failure:
    VirtsnapError with libvirt's and QEMU's words. Afterwards the domain is gone.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with translated(f"cannot connect to {uri or 'libvirt'}"):
        connection = libvirt.open(uri)
    try:
        with translated("the converted domain cannot be started"):
            domain = connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        try:
            yield StoppedMachine(lambda command, arguments: _ask_domain(domain, command, arguments))
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
    finally:
        connection.close()


def _ask_domain(domain: Any, command: str, arguments: Mapping[str, Any]) -> Any:
    request = json.dumps({"execute": command, "arguments": dict(arguments)})
    with translated(f"{command}: the domain's monitor does not answer"):
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, request, 0))
    if "error" in answer:
        raise HypervisorError(f"{command}: {answer['error'].get('desc', answer['error'])}")
    return answer["return"]


def domain_to_argv(uri: str | None, xml: str) -> str:
    """Give the command line, in shell syntax, that libvirt would start for a domain (`domxml-to-native`)."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with translated(f"cannot connect to {uri or 'libvirt'}"):
        connection = libvirt.open(uri)
    try:
        with translated("libvirt cannot turn the domain into a command line"):
            return str(connection.domainXMLToNative("qemu-argv", xml, 0))
    finally:
        connection.close()


def has_uuid(uri: str | None, uuid: str) -> bool:
    """Say whether a domain of that UUID exists."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with translated(f"cannot connect to {uri or 'libvirt'}"):
        connection = libvirt.open(uri)
    try:
        connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        with translated("cannot look up a UUID"):
            raise
    else:
        return True
    finally:
        connection.close()
    return False


def list_machines(emulator: str) -> frozenset[str]:
    """Give the machine types that an emulator knows; raises HypervisorError where it cannot be run."""
    words = [emulator, "-machine", "help"]
    try:
        done = subprocess.run(
            words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=ASK_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise HypervisorError(f"{emulator}: cannot be asked for its machine types: {exc}") from exc
    return frozenset(line.split()[0] for line in done.stdout.splitlines()[1:] if line.split())


def kvm_works(emulator: str) -> bool:
    """Say whether a machine with the host's CPU gets as far as its reset with KVM.

    /dev/kvm may be there and refuse what QEMU asks of a CPU, so a machine is tried.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = [emulator, "-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none"]
    try:
        with stopped_process(argv, folder=Path("/")) as machine:
            return bool(machine.execute("query-kvm")["enabled"]) and bool(machine.execute("query-cpus-fast"))
    except HypervisorError:
        return False
