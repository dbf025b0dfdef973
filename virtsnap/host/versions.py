"""Which libvirt is at hand, and which emulator it knows: what XML is written for when the caller names none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lxml import etree

if TYPE_CHECKING:
    import libvirt

Version = tuple[int, int]


def installed_version() -> Version | None:
    """Give (major, minor) of the libvirt client library, or None where there is none."""
    try:
        import libvirt
    except ImportError:
        return None
    return split_version(libvirt.getVersion())


def split_version(number: int) -> Version:
    """Split libvirt's number, major * 1,000,000 + minor * 1,000 + release."""
    return number // 1_000_000, number // 1_000 % 1_000


def connected_version(uri: str) -> Version:
    """Give (major, minor) of the libvirt behind a URI; raises HypervisorError where it does not answer."""
    with _connection(uri) as connection:
        return split_version(connection.getLibVersion())


def known_emulator(uri: str, arch: str) -> str | None:
    """Give the path of the emulator that the libvirt of a URI has for an architecture, None where it has none.

    Raises HypervisorError where it does not answer.
    """
    with _connection(uri) as connection:
        # not getDomainCapabilities(), which a read-only connection may not ask
        guests = etree.fromstring(connection.getCapabilities()).iterfind(f"guest/arch[@name='{arch}']/emulator")
        return next((emulator.text for emulator in guests), None)


@contextmanager
def _connection(uri: str) -> Iterator[libvirt.virConnect]:
    import libvirt

    from virtsnap.errors import HypervisorError

    try:
        connection = libvirt.openReadOnly(uri)
    except libvirt.libvirtError as exc:
        raise HypervisorError(f"cannot connect to {uri}: {exc}", libvirt_code=exc.get_error_code()) from exc
    try:
        yield connection
    finally:
        connection.close()
