"""USB addresses as QEMU would give them: the first free port, and a hub of its own where ports run out.

Source: usb_claim_port() and usb_hub_realize() in QEMU's hw/usb/. A device
without a port takes the first free one of its bus; before the last free port
of a bus would be taken, QEMU plugs a hub into it. A hub adds eight ports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.convert.controllers import Controller, Controllers
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.domain_xml.templates import Element

HUB_PORTS = 8


@dataclass(kw_only=True, eq=False)
class UsbDevice:
    """One device to be plugged."""

    word: Word | None
    element: Element
    controller: Controller
    port: str | None
    is_hub: bool


@dataclass(kw_only=True)
class UsbPorts:
    """All USB devices; filled by the subjects, resolved by `assign`."""

    controllers: Controllers
    make_hub: Callable[[], Element]
    devices: list[UsbDevice] = field(default_factory=list)
    port_counts: dict[int, int] = field(default_factory=dict)

    def add_controller(self, controller: Controller, ports: int) -> None:
        """Say how many ports a controller has."""
        self.port_counts[id(controller)] = ports

    def find(self, word: Word) -> Controller | None:
        """Give the controller of a device's bus, or None where there is none of that name."""
        found = self.controllers.find(word.peek("bus"), "usb")
        return found[0] if found else None

    def add(self, word: Word, element: Element, *, is_hub: bool = False) -> None:
        """Put a device on the bus that its word names."""
        controller = self.find(word)
        if controller is None:
            return
        port = word.peek("port")
        if port is not None and not all(part.isdigit() and int(part) for part in port.split(".")):
            port = None
        else:
            word.claim("port", Outcome.MAPPED)
        word.claim("bus", Outcome.MAPPED)
        self.devices.append(
            UsbDevice(word=word, element=element, controller=controller, port=port, is_hub=is_hub)
        )

    def assign(self) -> None:
        """Give every device its port, in the order in which QEMU plugs them, and write the addresses."""
        free: dict[int, list[str]] = {}
        order = sorted(self.devices, key=lambda device: device.word is not None and device.word.properties.json)
        for device in order:
            key = id(device.controller)
            ports = free.setdefault(key, [str(n + 1) for n in range(self.port_counts.get(key, 2))])
            if device.port is None:
                if len(ports) == 1 and not device.is_hub:
                    at = ports.pop()
                    hub = self.make_hub()
                    _write(hub, device.controller, at)
                    ports += [f"{at}.{n + 1}" for n in range(HUB_PORTS)]
                device.port = ports.pop(0) if ports else None
            elif device.port in ports:
                ports.remove(device.port)
            if device.port is None:
                continue
            if device.is_hub:
                ports += [f"{device.port}.{n + 1}" for n in range(HUB_PORTS)]
            _write(device.element, device.controller, device.port)


def _write(element: Element, controller: Controller, port: str) -> None:
    etree.SubElement(element, "address", type="usb", bus=str(controller.index), port=port)
