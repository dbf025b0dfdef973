"""The format of an image for which the command line gives none, as QEMU's probing would find it.

libvirt takes an image without a format for raw. The file's first bytes decide
where it can be read here, else its name's suffix, else it is raw.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from virtsnap.convert.claims import Options

# (offset, bytes, QEMU's driver); qcow's versions 1 and 2+ differ in the byte behind.
MAGIC: Sequence[tuple[int, bytes, str]] = (
    (0, b"QFI\xfb\x00\x00\x00\x01", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\x00", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"conectix", "vpc"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"vhdxfile", "vhdx"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
SUFFIXES: Mapping[str, str] = {
    ".qcow2": "qcow2", ".qcow": "qcow", ".qed": "qed", ".vmdk": "vmdk", ".vdi": "vdi", ".vpc": "vpc",
    ".vhd": "vpc", ".vhdx": "vhdx", ".hdd": "parallels",
}


def guess_format(storage: Options, base: Path) -> str:
    """Give QEMU's format driver for the image that a storage node holds."""
    path = storage.get("filename")
    if path is None:
        return "raw"
    return _by_content(base / path) or SUFFIXES.get(PurePosixPath(path).suffix.lower(), "raw")


def _by_content(file: Path) -> str | None:
    """Look at the first bytes of a regular file; None where that cannot be done."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with file.open("rb") as image:
            head = image.read(128)
    except (OSError, ValueError):
        return None
    for offset, magic, driver in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return driver
    return "raw" if head else None
