"""virtio-serial and its ports become <controller type='virtio-serial'>, <channel> and <console type='virtio'>.

QEMU numbers the ports of a bus by itself: 0 is kept for the first virtconsole,
all others take the first free number. The numbers are written out, so that
/dev/vport0p1 stays what it was.
"""

from __future__ import annotations

import re

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.controllers import Controller
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS, read_virtio_model
from virtsnap.convert.consoles.chardevs import can_have, find_chardev, put_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, virtio
from virtsnap.convert.values import number_up_to

TYPE = "virtio-serial"


def _build_controller(draft: Draft, word: Word, row: DeviceRow) -> None:
    model = read_virtio_model(word)
    element = build_device(draft, word, row, {"model": None if model == "virtio" else model})
    draft.controllers.add(TYPE, word.peek("id"), element)


def _build_port(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Build a port on the bus it names, else on the first one; without a bus or a backend it stays QEMU's."""
    found = draft.controllers.find(word.peek("bus"), TYPE)
    nr = word.peek("nr") or "0"
    # libvirt's schema has two digits for a port
    if found is None or not re.fullmatch(r"[0-9][0-9]?", nr) or not can_have(draft, find_chardev(draft, word)):
        return
    controller, bus = found
    console = word.take("driver") == "virtconsole"
    number_on_bus = _number_of(draft, word, controller, console)
    name = word.take("name") if not console else None
    for key in ("bus", "nr", "id"):
        word.claim(key, Outcome.IMPLIED if key == "id" else Outcome.MAPPED)
    where = {"controller": str(controller.index), "bus": str(bus), "port": str(number_on_bus)}
    own = {"index": "0"} if console else {"target_type": "virtio", "name": name}
    element = draft.fill(row.template, where | own)
    put_chardev(draft, element, word, path_of_libvirt=True)
    draft.add(element, word)


def strip_port_numbers(draft: Draft) -> None:
    """Take the addresses off the consoles of a bus that has nothing else and of which nothing was said.

    libvirt gives a console no address of its own and leaves the number to QEMU, which then chooses the same.
    """
    said = {
        id(element)
        for word in draft.devices_of(("virtconsole",))
        if word.has("bus") or word.has("nr")
        for element in word.elements
    }
    ports = draft.devices.findall("*/address[@type='virtio-serial']")
    kept = {
        port.get("controller")
        for port in ports
        if (owner := port.getparent()) is not None and (owner.tag != "console" or id(owner) in said)
    }
    for port in ports:
        owner = port.getparent()
        if owner is not None and port.get("controller") not in kept:
            owner.remove(port)


def _number_of(draft: Draft, word: Word, controller: Controller, console: bool) -> int:
    """Give the port's number as virtser_port_device_realize() in QEMU's virtio-serial-bus.c does."""
    said = word.peek("nr")
    if said:
        return int(said)
    taken = {
        int(address.get("port") or 0)
        for address in draft.devices.iterfind("*/address[@type='virtio-serial']")
        if address.get("controller") == str(controller.index)
    }
    first = 0 if console and 0 not in taken else 1
    return next(nr for nr in range(first, 512) if nr not in taken)


ROWS = (
    DeviceRow(
        drivers=virtio("virtio-serial"), template="virtio-serial", bus=Bus.PCI, build=_build_controller,
        keys=(
            Key(key="max_ports", hole="ports", read=number_up_to(2**31 - 1)),
            Key(key="vectors", hole="vectors", read=number_up_to(2**31 - 1)),
            *VIRTIO_KEYS,
        ),
    ),
    DeviceRow(drivers=("virtserialport",), template="channel", bus=Bus.VIRTIO_SERIAL, build=_build_port),
    DeviceRow(drivers=("virtconsole",), template="virtio-console", bus=Bus.VIRTIO_SERIAL, build=_build_port),
)
