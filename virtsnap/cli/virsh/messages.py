"""Errors become the lines that virsh writes on stderr."""

from __future__ import annotations

import sys

from virtsnap.errors import VirtsnapError


def error_text(error: VirtsnapError) -> str:
    """Give what virsh would say: libvirt's own words where the error is libvirt's."""
    return error.libvirt_message or error.message


def print_error(error: VirtsnapError) -> None:
    """Write an error as virsh does, a line for each of its lines; a hint of ours after it."""
    sys.stdout.flush()
    for line in error_text(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    if error.hint and error.libvirt_message is None:
        print(f"hint: {error.hint}", file=sys.stderr)
