"""Every -device finds its row: the tables of all subjects joined."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import ModuleType

from virtsnap.convert import (
    chardevs,
    disk_sources,
    disks,
    iothreads,
    misc_devices,
    scsi_hostdevs,
    serials,
    storage_controllers,
    vhost_user_disks,
    virtio_serial,
)
from virtsnap.convert.build import build_device
from virtsnap.convert.draft import Draft
from virtsnap.convert.rows import DeviceRow, Table

# Every subject module has ROWS (devices) or TABLES (the keys of other options), or both.
SUBJECTS: tuple[ModuleType, ...] = (
    chardevs,
    disk_sources,
    disks,
    iothreads,
    misc_devices,
    scsi_hostdevs,
    serials,
    storage_controllers,
    vhost_user_disks,
    virtio_serial,
)


@functools.cache
def device_rows() -> Mapping[str, DeviceRow]:
    """Give the row of every driver that some subject knows."""
    rows: dict[str, DeviceRow] = {}
    for subject in SUBJECTS:
        for row in getattr(subject, "ROWS", ()):
            for driver in row.drivers:
                assert driver not in rows, f"two rows for {driver}"
                rows[driver] = row
    return rows


def tables() -> list[Table]:
    """Give the tables of keys of all subjects, for `--explain` and for the tests."""
    return [table for subject in SUBJECTS for table in getattr(subject, "TABLES", ())]


def convert_devices(draft: Draft) -> None:
    """Convert every -device that has a row, in order; the others stay unclaimed and are passed through."""
    rows = device_rows()
    done: set[int] = set()
    for word in draft.group("device"):
        row = rows.get(word.peek("driver") or "")
        if row is None or draft.target < row.since or (row.once and id(row) in done):
            continue
        done.add(id(row))
        (row.build or build_device)(draft, word, row)
