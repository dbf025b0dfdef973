"""The tables of devices: a row says the drivers, the template and the keys of one kind, and where it sits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Word
from virtsnap.convert.rows import Key, Version


class Bus(Enum):
    """Where a device sits, so which <address> it gets."""

    NONE = "none"
    PCI = "pci"
    CCW = "ccw"
    MMIO = "virtio-mmio"
    USB = "usb"
    VIRTIO_SERIAL = "virtio-serial"
    CCID = "ccid"
    ISA = "isa"
    SPAPR_VIO = "spapr-vio"
    DIMM = "dimm"
    DRIVE = "drive"


Build = Callable[[Draft, Word, "DeviceRow"], object]


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """One kind of device.

    `drivers` are QEMU's names. `template` is filled with the constant `holes`
    and with what `keys` read. `build` replaces the plain way (fill, append,
    address) where a row alone cannot say it. `since` is the first libvirt that
    has the device at all: before it, the device is passed through. `build` may raise NotSayable as long
    as it has claimed nothing: the device then is passed through, too. `once` marks a
    device of which libvirt has one at most: a second one is passed through.
    """

    drivers: tuple[str, ...]
    template: str
    bus: Bus
    holes: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    build: Build | None = None
    since: Version = (0, 0)
    once: bool = False
