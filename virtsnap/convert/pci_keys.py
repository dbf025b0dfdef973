"""The keys that every PCI device has: its option ROM and its place in ACPI's numbering."""

from __future__ import annotations

from virtsnap.convert.rows import Key
from virtsnap.convert.values import number, on_off

PCI_KEYS: tuple[Key, ...] = (
    Key(key="rombar", hole="rom_bar", read=lambda value: on_off({"1": "on", "0": "off"}.get(value, value))),
    Key(key="romfile", hole="rom_file", read=lambda value: value or None),
    Key(key="acpi-index", hole="acpi_index", read=number, since=(7, 3)),
)
