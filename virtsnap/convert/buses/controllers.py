"""Controllers other than PCI: which index libvirt gives them, which bus a device's `bus=` means.

QEMU names the bus of a controller after its id (`scsi0.0`, `usb.0`); libvirt
counts controllers per type. This is the map between the two.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from virtsnap.convert.values import is_digits
from virtsnap.domain_xml.templates import Element

# How libvirt names the qdev of controller N, per type: needed where a device
# that is passed through names a bus of a controller that libvirt starts.
ALIASES = {
    "scsi": "scsi{}", "virtio-serial": "virtio-serial{}", "ccid": "ccid{}", "sata": "sata{}", "ide": "ide",
    "fdc": "fdc{}",
}
NEWEST_FIRST = frozenset({"usb", "scsi", "virtio-serial"})


@dataclass(kw_only=True, eq=False)
class Controller:
    """One controller: libvirt's type and index, QEMU's id, and the element (None: built in, without one)."""

    type: str
    index: int
    qemu_id: str
    element: Element | None

    @property
    def alias(self) -> str:
        """The qdev id that libvirt will give it."""
        alias = None if self.element is None else self.element.find("alias")
        if alias is not None:
            return alias.get("name") or ""
        if self.type == "usb":
            return "usb" if self.index == 0 else f"usb{self.index}"
        if self.qemu_id == "ide":
            return "ide"  # built into the machine, and so are the names of its buses
        return ALIASES.get(self.type, self.type + "{}").format(self.index)


class Controllers:
    """All controllers of the domain, by type. `ids` are those of all devices of the command line."""

    def __init__(self, ids: Collection[str] = ()) -> None:
        self.all: list[Controller] = []
        self._ids = ids

    def add(
        self, type_: str, qemu_id: str | None, element: Element | None, *, index: int | None = None
    ) -> Controller:
        """Add a controller; its index comes from an id such as `scsi1`, else it is the next free one."""
        used = {controller.index for controller in self.all if controller.type == type_}
        if index is None and qemu_id is not None:
            found = re.fullmatch(re.escape(type_) + r"([0-9]{0,3})", qemu_id)
            index = int(found.group(1) or 0) if found else None
            if index is not None and not self._reaches(type_, index):
                index = None
        if index is None or index in used:
            index = next(number for number in range(1000) if number not in used)
        controller = Controller(type=type_, index=index, qemu_id=qemu_id or "", element=element)
        self.all.append(controller)
        if element is not None:
            element.set("index", str(index))
        return controller

    def _reaches(self, type_: str, index: int) -> bool:
        """Tell whether ids name all the controllers before this one: libvirt fills a gap with one of its own."""
        return all(f"{type_}{n}" in self._ids or (n == 0 and type_ in self._ids) for n in range(index))

    def of(self, type_: str) -> list[Controller]:
        """Give the controllers of one type in the order they were added."""
        return [controller for controller in self.all if controller.type == type_]

    def find(self, bus: str | None, *types: str) -> tuple[Controller, int] | None:
        """Give the controller and bus number of QEMU's `bus=`; for None the one that QEMU would choose.

        That is the newest one that stands before the device: QEMU looks through a bus's devices from the
        last plugged to the first (qbus_find_recursive() in softmmu/qdev-monitor.c). IDE is another matter:
        its buses get full.
        """
        candidates = [controller for controller in self.all if not types or controller.type in types]
        if bus is None:
            newest = set(types) <= NEWEST_FIRST
            return (candidates[-1 if newest else 0], 0) if candidates else None
        name, _, number = bus.rpartition(".")
        for controller in candidates:
            if controller.qemu_id and controller.qemu_id in {name, bus}:
                return controller, int(number) if name == controller.qemu_id and is_digits(number) else 0
        return None
