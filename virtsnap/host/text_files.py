"""Small text files of this machine that a command line names."""

from __future__ import annotations

from pathlib import Path

# More than any configuration of QEMU's; a device or a pipe is no text file at all.
MOST_BYTES = 1 << 20


def read_text(path: Path) -> str | None:
    """Give the text of a regular file, None where it cannot be read as one."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        return None
