"""The keys that every PCI device has: its option ROM and its place in ACPI's numbering."""

from __future__ import annotations

from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key
from virtsnap.convert.values import absolute_path, number_up_to, on_off


def _bar(value: str) -> str:
    return on_off({"1": "on", "0": "off"}.get(value, value))


def _file(value: str) -> str:
    if not value.startswith("/"):
        raise NotSayable("a name in QEMU's own folder; libvirt takes an absolute path only")
    return absolute_path(value)


def _empty(value: str) -> bool:
    return value == ""


def _filled(value: str) -> bool:
    return value != ""


# libvirt has <rom> for network cards and devices of the host; an empty name
# means no ROM at all (virDomainDeviceInfoFormat, qemuBuildRomProps).
ROM_KEYS: tuple[Key, ...] = (
    Key(key="rombar", hole="rom_bar", read=_bar),
    Key(key="romfile", hole="rom_enabled", read=lambda value: "no", since=(4, 3), when=_empty),
    Key(key="romfile", hole="rom_file", read=_file, when=_filled),
)
ACPI_KEYS: tuple[Key, ...] = (
    Key(key="acpi-index", hole="acpi_index", read=number_up_to(2**32 - 1), since=(7, 3)),
)
PCI_KEYS: tuple[Key, ...] = (*ROM_KEYS, *ACPI_KEYS)


def settle_rom(word: Word, holes: dict[str, str | None]) -> None:
    """Say nothing of the BAR where there is no ROM: libvirt refuses the two together, and the guest sees none."""
    if holes.get("rom_enabled") == "no" and holes.pop("rom_bar", None) is not None:
        word.claim("rombar", Outcome.IMPLIED)
