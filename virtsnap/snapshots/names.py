"""A runner's snapshot name becomes a name that libvirt takes, and back.

libvirt refuses `/` and a leading `.`, because it makes a file of the name;
runners have both (openQA's `category/module#2`). What could hurt is
percent-encoded byte by byte, everything else is left readable.
"""

from __future__ import annotations

import re

from virtsnap.errors import UsageError

MAX_ENCODED_BYTES = 200

# No encoded name starts so: encoding a `%` gives `%25`.
_TEMPORARY = re.compile(r"%new-([0-9a-f]{8})\Z")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def encode_name(name: str) -> str:
    """Encode a runner's name; the empty name and one of over 200 encoded bytes are usage errors.

    Encoded are `/`, `%`, a leading `.`, white space, and whatever is not printable (Unicode's
    control, format, unassigned and separator characters).
    """
    if not name:
        raise UsageError("a snapshot's name cannot be empty")
    try:
        encoded = "".join(
            char if _is_plain(char, first=at == 0) else "".join(f"%{byte:02X}" for byte in char.encode())
            for at, char in enumerate(name)
        )
    except UnicodeEncodeError as exc:
        raise UsageError(f"the snapshot name {name!r} is not valid text") from exc
    size = len(encoded.encode())
    if size > MAX_ENCODED_BYTES:
        raise UsageError(f"the snapshot name is {size} bytes long once encoded; {MAX_ENCODED_BYTES} is the limit")
    return encoded


def decode_name(object_name: str) -> str:
    """Give the runner's name of a libvirt snapshot; a name that no runner's encodes to stands for itself."""
    try:
        name = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), object_name.encode()).decode()
        return name if encode_name(name) == object_name else object_name
    except (UnicodeError, UsageError):
        return object_name


def temporary_name(token: str) -> str:
    """Give the name under which a save is held until it replaces an older one; `token` is 8 hex digits."""
    return f"%new-{token}"


def is_temporary(object_name: str) -> bool:
    """Say whether a libvirt snapshot is a save that was to replace another and has not yet."""
    return _TEMPORARY.match(object_name) is not None


def _is_plain(char: str, *, first: bool) -> bool:
    if char in "/%" or char.isspace() or (first and char == "."):
        return False
    # Surrogates are unprintable too, and fail to encode: that is the usage error above.
    return char.isprintable()
