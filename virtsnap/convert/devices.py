"""Every -device finds its row: the tables of all subjects joined."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

import virtsnap.convert
from virtsnap.convert.build import build_device, bus_of
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Word
from virtsnap.convert.rows import Bus, DeviceRow, Table

# PCI devices of QEMU that libvirt has no word for (`qemu-system-x86_64 -device help`, QEMU 7.2).
QEMU_ONLY_PCI = frozenset({
    "secondary-vga", "ati-vga", "pci-serial-2x", "pci-serial-4x", "edu", "pci-testdev", "rocker", "sdhci-pci",
    "pci-ipmi-bt", "pci-ipmi-kcs", "tpci200", "ctucan_pci", "kvaser_pci", "mioe3680_pci", "pcm3680_pci", "pvrdma",
    "acpi-erst", "virtio-gpu-rutabaga-pci", "vhost-user-gpio-pci", "vhost-user-i2c-pci", "vhost-user-rng-pci",
    "vhost-user-input-pci", "vhost-user-snd-pci",
})


@functools.cache
def subjects() -> tuple[ModuleType, ...]:
    """Give the modules of this room that have tables: ROWS (devices) or TABLES (the keys of other options)."""
    package = virtsnap.convert
    names = [found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    modules = [importlib.import_module(name) for name in sorted(names)]
    return tuple(module for module in modules if hasattr(module, "ROWS") or hasattr(module, "TABLES"))


@functools.cache
def device_rows() -> Mapping[str, DeviceRow]:
    """Give the row of every driver that some subject knows."""
    rows: dict[str, DeviceRow] = {}
    for subject in subjects():
        for row in getattr(subject, "ROWS", ()):
            for driver in row.drivers:
                assert driver not in rows, f"two rows for {driver}"
                rows[driver] = row
    return rows


def tables() -> list[Table]:
    """Give the tables of keys of all subjects, for `--explain` and for the tests."""
    return [table for subject in subjects() for table in getattr(subject, "TABLES", ())]


def convert_devices(draft: Draft) -> None:
    """Convert every -device that has a row, in order; the others stay unclaimed and are passed through."""
    rows = device_rows()
    done: set[int] = set()
    for word in draft.group("device"):
        row = rows.get(word.peek("driver") or "")
        if row is None or draft.target < row.since or (row.once and id(row) in done):
            _keep_slot(draft, word, row)
            continue
        done.add(id(row))
        (row.build or build_device)(draft, word, row)
        _keep_slot(draft, word, row)


def _keep_slot(draft: Draft, word: Word, row: DeviceRow | None) -> None:
    """Let a PCI device that stays QEMU's take its slot, so that those behind it keep theirs."""
    driver = word.peek("driver") or ""
    if word.untouched and (
        driver in QEMU_ONLY_PCI if row is None else bus_of(row, driver, draft) is Bus.PCI
    ):
        draft.pci.add(word, None)
