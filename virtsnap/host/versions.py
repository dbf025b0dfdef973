"""Which libvirt is at hand: the version that XML is written for when the caller names none."""

from __future__ import annotations

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
    import libvirt

    from virtsnap.errors import HypervisorError

    try:
        connection = libvirt.openReadOnly(uri)
    except libvirt.libvirtError as exc:
        raise HypervisorError(f"cannot connect to {uri}: {exc}", libvirt_code=exc.get_error_code()) from exc
    try:
        return split_version(connection.getLibVersion())
    finally:
        connection.close()
