"""The plain way from a row to a device: fill the template, append the element, give it its address."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from virtsnap.convert.buses.ccw import CcwDevices
from virtsnap.convert.buses.pci_keys import settle_rom
from virtsnap.convert.buses.virtio_keys import read_virtio_model
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import read_keys
from virtsnap.convert.values import hexadecimal
from virtsnap.domain_xml.templates import Element


def build_device(
    draft: Draft, word: Word, row: DeviceRow, holes: Mapping[str, str | None] | None = None
) -> Element:
    """Build a device the plain way: fill the row's template, append it, give it its address.

    `holes` adds to what the row's constants and keys fill.
    """
    driver = word.take("driver") or ""
    known = draft.templates.holes_of(f"devices/{row.template}")
    filled: dict[str, str | None] = dict(row.holes)
    if "virtio_model" in known:
        filled["virtio_model"] = read_virtio_model(word)
    filled |= read_keys(word, row.keys, draft.target)
    filled |= holes or {}
    settle_rom(word, filled)
    element = draft.fill(row.template, filled)
    word.claim("id", Outcome.IMPLIED)
    draft.add(element, word)
    place(draft, word, element, bus_of(row, driver, draft))
    return element


def bus_of(row: DeviceRow, driver: str, draft: Draft) -> Bus:
    """Tell the bus of a device: the row's, or for virtio and vhost devices the one in the driver's name."""
    if row.bus is not Bus.PCI:
        return row.bus
    if driver.endswith("-ccw"):
        return Bus.CCW
    if not driver.startswith(("virtio-", "vhost-")):
        return Bus.PCI
    if driver.endswith("-device"):
        return Bus.MMIO
    if draft.machine.family.name == "s390-ccw-virtio" and "-pci" not in driver:
        return Bus.CCW
    return Bus.PCI


def place(draft: Draft, word: Word, element: Element, bus: Bus) -> None:
    """Give a device the address that the word says or that QEMU would choose."""
    if bus is Bus.PCI:
        draft.pci.add(word, element)
    elif bus is Bus.CCW:
        draft.part(CcwDevices).add(word, element)
    elif bus is Bus.USB:
        draft.usb.add(word, element)
    elif bus is Bus.MMIO:
        etree.SubElement(element, "address", type="virtio-mmio")
    elif element.find("address") is not None:
        return  # the template's own
    elif bus is Bus.SPAPR_VIO:
        reg = word.take_read("reg", hexadecimal(8))
        if reg is not None:
            etree.SubElement(element, "address", type="spapr-vio", reg=reg)
    elif bus is Bus.ISA:
        # libvirt writes an ISA address with a port only; QEMU's own default stands where none is said.
        port = word.take_read("ioport", hexadecimal(3, 0xFFFF)) or word.take_read("iobase", hexadecimal(3, 0xFFFF))
        if port is not None:
            etree.SubElement(element, "address", type="isa", iobase=port)
