"""Every -device finds its row: the tables of all subjects joined."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from types import ModuleType

import virtsnap.convert
from virtsnap.convert.build import build_device, bus_of
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Word
from virtsnap.convert.network.nics import unknown_card
from virtsnap.convert.passed.qemu_only import WITH_PCI_FUNCTION, bus_of_unknown
from virtsnap.convert.rows import Table
from virtsnap.convert.storage.disk_places import keep_scsi_place

# Devices on a SCSI bus, each of which has an id there.
SCSI = re.compile(r"scsi-(?:hd|cd|disk|block|generic)")


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
    """Convert every -device that has a row, in plugging order; the others stay unclaimed and go to QEMU."""
    rows = device_rows()
    done: set[int] = set()
    for word in sorted(draft.said("device"), key=lambda word: word.properties.json):
        row = rows.get(word.peek("driver") or "") or unknown_card(word)
        if row is not None and _can_stand(draft, word, row) and not (row.once and id(row) in done):
            done.add(id(row))
            try:
                (row.build or build_device)(draft, word, row)
            except NotSayable as exc:
                word.note(str(exc))
        _keep_place(draft, word, row)


def _can_stand(draft: Draft, word: Word, row: DeviceRow) -> bool:
    """Tell whether a device can be libvirt's: its libvirt knows it, and a bus for it where it is on USB."""
    if word.aside or draft.target < row.since:
        return False
    return row.bus is not Bus.USB or draft.usb.controller_of(word) is not None


def _keep_place(draft: Draft, word: Word, row: DeviceRow | None) -> None:
    """Let a device that stays QEMU's take its PCI slot or USB port, so that those behind it keep theirs."""
    if not word.untouched:
        return
    driver = word.peek("driver") or ""
    bus = bus_of(row, driver, draft) if row is not None else bus_of_unknown(driver)
    if bus is Bus.PCI or driver in WITH_PCI_FUNCTION:
        draft.pci.add(word, None)
    elif bus is Bus.USB:
        draft.usb.add(word, None)
    elif SCSI.fullmatch(driver):
        keep_scsi_place(draft, word)
