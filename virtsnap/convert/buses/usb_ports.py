"""USB buses and ports as QEMU gives them: the newest controller, the first free port, a hub where ports run out.

Source: usb_bus_new(), usb_claim_port() and usb_hub_realize() in QEMU's hw/usb/,
qbus_find_recursive() in its softmmu/qdev-monitor.c. A device without a bus
goes to the controller that the search meets first, which is the newest; one
without a port takes the first free one of its bus. Before a device that is no
hub would take the last port of a bus, QEMU plugs a hub of eight ports into it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.convert.buses.controllers import Controller
from virtsnap.convert.buses.pci import PciFunction, PciTopology
from virtsnap.convert.buses.plugging import Order, plug_order, when_plugged
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.domain_xml.templates import Element

HUB_PORTS = 8
# Ports of hubs within hubs, to the depth that USB has room for and libvirt's schema too (usbPort).
_PORT = re.compile(r"[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,3}")
AUTOMATIC_NAME = "usb-bus"


@dataclass(kw_only=True, eq=False)
class UsbBus:
    """One bus: the id of the device that makes it, and libvirt's controller (None: it stays QEMU's)."""

    id: str | None
    controller: Controller | None
    function: PciFunction
    ports: int
    free: list[str] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class UsbDevice:
    """One device to be plugged; `element` is None where it stays QEMU's."""

    order: Order
    word: Word
    element: Element | None
    is_hub: bool
    place: tuple[Controller, str] | None = None


class UsbPorts:
    """All USB buses and devices; filled by the subjects, resolved by `assign`."""

    def __init__(self, pci: PciTopology, make_hub: Callable[[], Element]) -> None:
        self._pci = pci
        self._make_hub = make_hub
        self._buses: list[UsbBus] = []
        self._devices: list[UsbDevice] = []

    def add_bus(self, id_: str | None, controller: Controller | None, function: PciFunction, ports: int) -> None:
        """Add the bus of a controller that sits at a PCI function."""
        self._buses.append(UsbBus(id=id_, controller=controller, function=function, ports=ports))

    def find(self, bus: str | None, order: Order | None = None) -> UsbBus | None:
        """Give the bus of a name, or for None the one that a device plugged at `order` would go to."""
        if bus is not None:
            return next((each for name, each in self._names() if bus in {name, each.id}), None)
        there = [each for each in self._buses if order is None or each.function.order < order]
        return max(there, key=lambda each: self._pci.path(each.function), default=None)

    def controller_of(self, word: Word) -> Controller | None:
        """Give libvirt's controller for a device; None where its bus stays QEMU's, and so must the device."""
        bus = self.find(word.peek("bus"), _order(word))
        return None if bus is None else bus.controller

    def add(self, word: Word, element: Element | None, *, is_hub: bool = False) -> None:
        """Put a device on the bus that its word names; without an element it only takes a port."""
        self._devices.append(UsbDevice(order=_order(word), word=word, element=element, is_hub=is_hub))

    def assign(self) -> None:
        """Give every device its port, in the order in which QEMU plugs them, and write the addresses."""
        for bus in self._buses:
            bus.free = [str(number + 1) for number in range(bus.ports)]
        for device in sorted(self._devices, key=lambda device: device.order):
            found = self.find(device.word.peek("bus"), device.order)
            if found is None:
                continue
            port = self._claim(found, device)
            if port is None or found.controller is None:
                continue
            if device.element is None:
                device.place = found.controller, port
                continue
            _write(device.element, found.controller, port)
            for key in ("bus", "port"):
                device.word.claim(key, Outcome.MAPPED)

    def passthrough_address(self, word: Word) -> dict[str, str]:
        """Give bus and port to write for a device that is passed through, after `assign`."""
        for device in self._devices:
            if device.word is word and device.place is not None:
                controller, port = device.place
                return {"bus": f"{controller.alias}.0", "port": port}
        return {}

    def alias_of(self, bus: str) -> str | None:
        """Give the name that a bus has under libvirt."""
        found = self.find(bus)
        return None if found is None or found.controller is None else f"{found.controller.alias}.0"

    def _names(self) -> list[tuple[str, UsbBus]]:
        """Give every bus by its name: QEMU counts those of devices without an id, in plugging order."""
        names = [(f"{bus.id}.0", bus) for bus in self._buses if bus.id is not None]
        unnamed = sorted((bus for bus in self._buses if bus.id is None), key=lambda bus: bus.function.order)
        return names + [(f"{AUTOMATIC_NAME}.{number}", bus) for number, bus in enumerate(unnamed)]

    def _claim(self, bus: UsbBus, device: UsbDevice) -> str | None:
        """Take a port off a bus: the one that is said, else the first free one."""
        said = device.word.peek("port")
        port: str | None
        if said:
            port = said if _PORT.fullmatch(said) else None
            if port in bus.free:
                bus.free.remove(port)
        else:
            if len(bus.free) == 1 and not device.is_hub and bus.controller is not None:
                at = bus.free.pop()
                _write(self._make_hub(), bus.controller, at)
                bus.free += _ports_of_hub(at)
            port = bus.free.pop(0) if bus.free else None
        if device.is_hub and port is not None:
            bus.free += _ports_of_hub(port)
        return port


def _order(word: Word) -> Order:
    return plug_order(word, when_plugged(word), 0)


def _ports_of_hub(port: str) -> list[str]:
    return [f"{port}.{number + 1}" for number in range(HUB_PORTS)]


def _write(element: Element, controller: Controller, port: str) -> None:
    etree.SubElement(element, "address", type="usb", bus=str(controller.index), port=port)
