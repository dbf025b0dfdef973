"""Network cards: a -device and its -netdev become one <interface>."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxml import etree

from virtsnap.command_line.keyval import Property
from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.pci_keys import PCI_KEYS, settle_rom
from virtsnap.convert.buses.virtio_keys import read_virtio_model
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.network.netdevs import Netdev, read_netdev
from virtsnap.convert.network.nic_keys import (
    ISA_KEYS,
    ISA_MODELS,
    ISA_PORTS,
    NIC_KEYS,
    PCI_MODELS,
    SPAPR_MODELS,
    USB_MODELS,
    VIRTIO_NET_KEYS,
    mac_address,
)
from virtsnap.convert.rows import read_keys, virtio, virtio_model
from virtsnap.convert.values import own_alias, parse_number, parse_switch
from virtsnap.domain_xml.templates import Element

Holes = dict[str, str | None]

# Cards whose MTU libvirt can set (qemuDomainNetSupportsMTU in libvirt's qemu_domain.c).
WITH_MTU = frozenset({"ethernet", "bridge", "vhostuser"})


def _build_nic(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join a -device with its -netdev; a card without one stays QEMU's, because libvirt's always have one."""
    backend = draft.find(word.peek("netdev"), "netdev")
    mac = word.peek("mac")
    if backend is None or not _can_have(word, mac):
        return
    netdev = read_netdev(draft, backend)
    if not netdev.can_be_joined(draft):
        return
    driver = word.take("driver") or ""
    word.claim("id", Outcome.IMPLIED)
    if netdev.kept is None:
        word.claim("netdev", Outcome.MAPPED)
    else:
        word.claim("netdev", Outcome.SUBSTITUTED, f"QEMU keeps {netdev.kept}; the card is joined to it")
    keys = [key for key in row.keys if key.hole != "mtu" or netdev.holes.get("type") in WITH_MTU]
    holes: Holes = netdev.holes | driver_holes(draft, word, driver, netdev) | read_keys(word, keys, draft.target)
    settle_rom(word, holes)
    if driver.startswith("virtio-"):
        holes["model"] = read_virtio_model(word)
    if row.bus is Bus.ISA:
        holes = isa_place(0) | holes
    element = write_interface(draft, driver, netdev, holes)
    draft.add(element, word, *netdev.words)
    if holes.get("teaming") == "persistent" and word.peek("id"):
        # <teaming> names its partner by alias, and libvirt lets us choose those that begin with ua-.
        alias = teaming_alias(word.peek("id"))
        if alias is not None:
            etree.SubElement(element, "alias", name=alias)
    place(draft, word, element, bus_of(row, driver, draft))


def teaming_alias(id_: str | None) -> str | None:
    """Give the alias by which the two cards of a team know each other; None where libvirt takes no such alias."""
    return own_alias(id_ if (id_ or "").startswith("ua-") else f"ua-{id_ or ''}")


def _can_have(word: Word, mac: str | None) -> bool:
    try:
        return mac is None or bool(mac_address(mac))
    except NotSayable as exc:
        word.note(str(exc))
        return False


def write_interface(draft: Draft, driver: str, netdev: Netdev, holes: Mapping[str, str | None]) -> Element:
    """Fill the template of a card, joined to what QEMU keeps where libvirt has no word for it."""
    model = virtio_model(driver) if driver.startswith("virtio-") else driver
    element = draft.fill("interface", {"model": model, **holes})
    if netdev.kept is not None:
        draft.override(element, Property(key="netdev", value=netdev.kept))
    return element


def driver_holes(draft: Draft, word: Word, driver: str, netdev: Netdev) -> Holes:
    """Give what <driver> says of queues and vhost; both are said at the backend and at the card."""
    holes: Holes = {}
    if not driver.startswith("virtio-"):
        return holes
    if netdev.queues > 1:
        holes["queues"] = str(netdev.queues)
    # QEMU itself gives a card without queues the four vectors on machines of 6.0 and later.
    if netdev.queues > 1 or draft.machine.is_since((6, 0)):
        _claim_vectors(word, netdev.queues)
    if netdev.vhost == "force":
        holes["driver_name"] = "vhost"
    elif netdev.vhost == "off":
        # QEMU uses vhost when it is told to; libvirt whenever the host has it.
        holes["driver_name"] = "qemu"
    return holes


def _claim_vectors(word: Word, queues: int) -> None:
    """Claim what libvirt works out itself: mq, and two vectors for each queue, two more for control and changes.

    Source: qemuBuildNicDevProps() in libvirt's qemu_command.c.
    """
    try:
        if queues > 1 and word.has("mq") and parse_switch(word.peek("mq") or ""):
            word.claim("mq", Outcome.IMPLIED)
        if word.has("vectors") and parse_number(word.peek("vectors") or "") == 2 * queues + 2:
            word.claim("vectors", Outcome.IMPLIED)
    except ValueError:
        word.note("mq or vectors is not what QEMU takes")


# What libvirt's schema takes as the name of a card.
MODEL = re.compile(r"[a-zA-Z0-9_-]+")


def unknown_card(word: Word) -> DeviceRow | None:
    """Give a row to a card on PCI of a model that is in no table: libvirt hands any model's name on to QEMU."""
    if not MODEL.fullmatch(word.peek("driver") or ""):
        return None
    return UNKNOWN if word.has("netdev") and word.has("addr") else None


def isa_place(number: int) -> Holes:
    """Give port and interrupt of the ISA card with a number."""
    port, irq = ISA_PORTS[number % len(ISA_PORTS)]
    return {"iobase": port, "irq": irq}


def row_of(driver: str) -> DeviceRow | None:
    """Give the row of a card's driver."""
    return next((row for row in ROWS if driver in row.drivers), None)


UNKNOWN = DeviceRow(
    drivers=(), template="interface", bus=Bus.PCI, build=_build_nic, keys=(*NIC_KEYS, *PCI_KEYS)
)
ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=virtio("virtio-net"), template="interface", bus=Bus.PCI, build=_build_nic,
        keys=(*NIC_KEYS, *VIRTIO_NET_KEYS, *PCI_KEYS),
    ),
    DeviceRow(
        drivers=PCI_MODELS, template="interface", bus=Bus.PCI, build=_build_nic, keys=(*NIC_KEYS, *PCI_KEYS)
    ),
    DeviceRow(
        drivers=ISA_MODELS, template="interface", bus=Bus.ISA, build=_build_nic, keys=(*NIC_KEYS, *ISA_KEYS)
    ),
    DeviceRow(drivers=USB_MODELS, template="interface", bus=Bus.USB, build=_build_nic, keys=NIC_KEYS),
    DeviceRow(drivers=SPAPR_MODELS, template="interface", bus=Bus.SPAPR_VIO, build=_build_nic, keys=NIC_KEYS),
)
