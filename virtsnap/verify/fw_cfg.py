"""What firmware would read at power-on: fw_cfg's files and the CMOS, read through their I/O ports.

QEMU's human monitor can read and write I/O ports (`i`, `o`), so a machine that
has not run one instruction can be asked what its firmware will find: boot
order, SMBIOS, ACPI hints. Interface: QEMU's docs/specs/fw_cfg.rst.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

Ask = Callable[[str], str]

_SELECTOR, _DATA = 0x510, 0x511
_CMOS_INDEX, _CMOS_DATA = 0x70, 0x71
_SIGNATURE, _DIRECTORY = 0x00, 0x19
_ENTRY = struct.Struct(">IHH56s")
_MAX_FILES = 200
# Files that are read in full; of the others name and size are enough (ACPI tables follow from the devices).
READ_IN_FULL = re.compile(r"bootorder|etc/(?:system-states|boot-menu-wait|boot-fail-wait|e820|bios-geometry|"
                          r"sercon-port|msr_feature_control|smi/.*|smbios/smbios-tables)|opt/.*")
LONGEST_BYTES = 4096
# Keys that are no files: name to (number, bytes).
KEYS = {"nographic": (0x04, 2), "boot menu": (0x0E, 2)}
# The clock runs, and 0x0a to 0x0d are its state; 0x32 is the century.
_CLOCK = frozenset({*range(0x0E), 0x32})
_VALUE = re.compile(r"=\s*(0x[0-9a-fA-F]+)")


@dataclass(frozen=True, kw_only=True)
class FirmwareFile:
    """One file of fw_cfg. `content` is None where only its size was read."""

    name: str
    size_bytes: int
    content: bytes | None


def read_files(ask: Ask) -> tuple[FirmwareFile, ...]:
    """Read the directory and the small files; empty for a machine without fw_cfg ports.

    `ask` runs a line of the human monitor.
    """
    if _read(ask, _SIGNATURE, 4) != b"QEMU":
        return ()
    count = int.from_bytes(_read(ask, _DIRECTORY, 4), "big")
    if count > _MAX_FILES:
        return ()
    entries = [_ENTRY.unpack(_more(ask, _ENTRY.size)) for _ in range(count)]
    files = []
    for size, key, _, raw in entries:
        name = raw.split(b"\0")[0].decode(errors="replace")
        wanted = READ_IN_FULL.fullmatch(name) and size <= LONGEST_BYTES
        files.append(FirmwareFile(name=name, size_bytes=size, content=_read(ask, key, size) if wanted else None))
    return tuple(sorted(files, key=lambda file: file.name))


def read_keys(ask: Ask) -> dict[str, int]:
    """Read the keys that are no files."""
    if _read(ask, _SIGNATURE, 4) != b"QEMU":
        return {}
    return {name: int.from_bytes(_read(ask, key, size), "little") for name, (key, size) in KEYS.items()}


def read_cmos(ask: Ask) -> dict[int, int]:
    """Read the CMOS without the clock: memory sizes, disk types, boot order."""
    found = {}
    for index in range(0x80):
        if index not in _CLOCK:
            ask(f"o /b {_CMOS_INDEX:#x} {index:#x}")
            found[index] = _byte(ask(f"i /b {_CMOS_DATA:#x}"))
    return found


def boot_order(files: tuple[FirmwareFile, ...]) -> list[str]:
    """Give the firmware's device paths in boot order."""
    content = next((file.content for file in files if file.name == "bootorder"), None) or b""
    return [line for line in content.rstrip(b"\0").decode(errors="replace").split("\n") if line]


def smbios_structures(content: bytes) -> list[tuple[int, bytes, list[str]]]:
    """Split an SMBIOS table into (type, formatted area, strings); handles are left out."""
    found = []
    at = 0
    while at + 4 <= len(content):
        type_, length = content[at], content[at + 1]
        end = content.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            break
        texts = content[at + length : end].split(b"\0") if end > at + length else []
        found.append((type_, content[at + 4 : at + length], [text.decode(errors="replace") for text in texts]))
        at = end + 2
        if type_ == 127:
            break
    return found


def _read(ask: Ask, key: int, size: int) -> bytes:
    ask(f"o /h {_SELECTOR:#x} {key:#x}")
    return _more(ask, size)


def _more(ask: Ask, size: int) -> bytes:
    return bytes(_byte(ask(f"i /b {_DATA:#x}")) for _ in range(size))


def _byte(answer: str) -> int:
    found = _VALUE.search(answer)
    return int(found[1], 16) & 0xFF if found else 0xFF
