"""libvirt's error codes become virtsnap's errors; nothing above this package sees a libvirtError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from virtsnap import errors

_UNSUPPORTED = frozenset({
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
})

_SAVED_ALREADY = (
    "QEMU wrote the state of this paused guest out before, and does so again only once it has run since: "
    "`virsh resume` lets it"
)


def translate(exc: libvirt.libvirtError, what: str) -> errors.VirtsnapError:
    """Give the error to raise for `exc`; `what` says what was being done, as in "cannot start sut-1"."""
    error = _translate(exc, what)
    error.libvirt_message = exc.get_error_message() or str(exc)
    return error


def _translate(exc: libvirt.libvirtError, what: str) -> errors.VirtsnapError:
    number = exc.get_error_code()
    words = exc.get_error_message() or str(exc)
    message = f"{what}: {words}"
    if number == libvirt.VIR_ERR_NO_DOMAIN:
        return errors.NoSuchDomainError(message, hint="`virsh list --all` shows the domains")
    if number == libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT:
        return errors.NoSuchSnapshotError(message, hint="`virtsnap list VM` shows the snapshots")
    if number == libvirt.VIR_ERR_DOM_EXIST:
        return errors.ExistsError(message)
    if number in _UNSUPPORTED:
        return errors.UnsupportedError(message)
    if number == libvirt.VIR_ERR_OPERATION_TIMEOUT and "state change lock" in words:
        # "cannot acquire state change lock (held by ...)": a job of somebody else's lasted libvirt's 30 s.
        return errors.BusyError(message)
    hint = _SAVED_ALREADY if "paused due to previous migration" in words else None
    return errors.HypervisorError(message, libvirt_code=number, hint=hint)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run libvirt calls whose failure means `what`, and raise virtsnap's error from libvirt's."""
    try:
        yield
    except libvirt.libvirtError as exc:
        raise translate(exc, what) from exc
