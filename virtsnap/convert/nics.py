"""Network cards: -device, -nic and -net nic become <interface>, joined with what is behind them."""

from __future__ import annotations

from lxml import etree

from virtsnap.command_line.keyval import Properties, Property, join_commas
from virtsnap.convert.build import bus_of, place
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.netdevs import Netdev, read_netdev
from virtsnap.convert.nic_keys import (
    NIC_KEYS,
    PCI_KEYS,
    PCI_MODELS,
    SPAPR_MODELS,
    USB_MODELS,
    VIRTIO_NET_KEYS,
    mac_address,
)
from virtsnap.convert.pci import Plugged
from virtsnap.convert.pci_keys import settle_rom
from virtsnap.convert.rows import Bus, DeviceRow, read_keys, virtio, virtio_model
from virtsnap.convert.values import parse_number, parse_switch
from virtsnap.domain_xml.templates import Element

# Names that -nic and -net take for a card, beside those of drivers.
# Source: pci_init_nic_devices() and qemu_find_nic_model() in QEMU's net/net.c.
MODEL_ALIASES = {"virtio": "virtio-net-pci", "virtio-net": "virtio-net-pci", "i82559": "i82559er"}

# Cards that a machine has soldered on: only QEMU's -net can switch them on.
_FIRST_FREE_MAC = 0x56
_MAC_BASE = "52:54:00:12:34:"


class MacAddresses:
    """The addresses that QEMU gives to cards without one: 52:54:00:12:34:56, 57, …, leaving out those in use.

    Source: qemu_macaddr_default_if_unset() in QEMU's net/net.c. It is asked
    once for each card, in the order in which QEMU makes them.
    """

    def __init__(self) -> None:
        self._used: set[int] = set()

    def given(self, mac: str) -> None:
        """Note an address that a card says itself."""
        if mac.lower().startswith(_MAC_BASE):
            self._used.add(int(mac[-2:], 16))

    def next(self) -> str:
        """Give the next free address."""
        number = next(each for each in range(_FIRST_FREE_MAC, 0x100) if each not in self._used)
        self._used.add(number)
        return f"{_MAC_BASE}{number:02x}"


def convert_nics(draft: Draft) -> None:
    """Convert -nic and -net, which QEMU does before any -device, and write out the MACs of all cards."""
    _convert_nic_words(draft)
    _convert_net_words(draft)


def settle_macs(draft: Draft) -> None:
    """Give every card without a MAC the one that QEMU would; call when all cards are there.

    -net and -nic come first, then -device in text form, then in JSON form.
    """
    addresses = MacAddresses()
    order = {"nic": 0, "net": 1}
    cards = [word for word in draft.words if any(element.tag == "interface" for element in word.elements)]
    cards.sort(key=lambda word: order.get(word.group, 3 if word.properties.json else 2))
    seen: set[int] = set()
    for word in cards:
        for element in word.elements:
            if element.tag != "interface" or id(element) in seen:
                continue
            seen.add(id(element))
            mac = element.find("mac")
            if mac is None:
                mac = etree.Element("mac", address=addresses.next())
                element.insert(0, mac)
            else:
                addresses.given(mac.get("address") or "")


def _build_nic(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join a -device with its -netdev."""
    driver = word.peek("driver") or ""
    backend = draft.find(word.peek("netdev"), "netdev")
    if backend is None:
        return  # without a backend libvirt has no interface; QEMU gets the card as it is
    mac = word.peek("mac")
    if mac is not None:
        try:
            mac_address(mac)
        except NotSayable as exc:
            word.note(str(exc))
            return
    netdev = read_netdev(draft, backend)
    if netdev.kept is not None and not draft.knows((8, 2)):
        return
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    if netdev.kept is None:
        word.claim("netdev", Outcome.MAPPED)
        backend.claim("id", Outcome.IMPLIED)
    else:
        word.claim("netdev", Outcome.SUBSTITUTED, f"QEMU keeps {netdev.kept}; the card is joined to it")
    holes: dict[str, str | None] = dict(netdev.holes)
    holes |= _driver_holes(draft, word, row, netdev)
    holes |= {"model": virtio_model(driver) if driver.startswith("virtio-") else driver}
    holes |= read_keys(word, row.keys, draft.target)
    settle_rom(word, holes)
    element = draft.fill("interface", holes)
    draft.add(element, word, *netdev.words)
    _finish(draft, element, netdev)
    if holes.get("teaming") == "persistent" and word.peek("id"):
        # <teaming> names its partner by alias, and libvirt lets us choose those that begin with ua-.
        name = word.peek("id") or ""
        etree.SubElement(element, "alias", name=name if name.startswith("ua-") else f"ua-{name}")
    place(draft, word, element, bus_of(row, driver, draft))


def _driver_holes(draft: Draft, word: Word, row: DeviceRow, netdev: Netdev) -> dict[str, str | None]:
    """Give what <driver> says of queues and vhost; both are said at the backend and at the card."""
    holes: dict[str, str | None] = {}
    if not (word.peek("driver") or "").startswith("virtio-"):
        return holes
    if netdev.queues > 1:
        holes["queues"] = str(netdev.queues)
        # libvirt switches mq on and computes the vectors itself: two for each queue, two more for
        # the control queue and the configuration (qemuBuildNicDevProps in its qemu_command.c).
        try:
            if word.has("mq") and parse_switch(word.peek("mq") or ""):
                word.claim("mq", Outcome.IMPLIED)
            if word.has("vectors") and parse_number(word.peek("vectors") or "") == 2 * netdev.queues + 2:
                word.claim("vectors", Outcome.IMPLIED)
        except ValueError:
            pass
    if netdev.vhost is False or (netdev.vhost is None and netdev.holes.get("type") in {"ethernet", "bridge"}):
        given = any(word.has(key) for word in netdev.words for key in ("fd", "fds"))
        if not given:
            # QEMU uses vhost when it is told to; libvirt whenever the host has it.
            holes["driver_name"] = "qemu"
    return holes


def _finish(draft: Draft, element: Element, netdev: Netdev) -> None:
    if netdev.kept is not None:
        draft.override(element, Property(key="netdev", value=netdev.kept))


def _convert_nic_words(draft: Draft) -> None:
    """Convert -nic: backend and card in one."""
    for word in draft.group("nic"):
        if word.peek("type") == "none":
            word.claim_rest(Outcome.IMPLIED)
            continue
        _convert_pair(draft, word, word)


def _convert_net_words(draft: Draft) -> None:
    """Convert -net: each `nic` is paired with the backend on its hub (vlan), in order."""
    cards = [word for word in draft.group("net") if word.peek("type") == "nic"]
    backends = [word for word in draft.group("net") if word.peek("type") not in {"nic", "none"}]
    for word in draft.group("net"):
        if word.peek("type") == "none":
            word.claim_rest(Outcome.IMPLIED)
    for card in cards:
        named = draft.find(card.peek("netdev"), "netdev")
        vlan = card.peek("vlan") or "0"
        backend = named or next((each for each in backends if (each.peek("vlan") or "0") == vlan), None)
        if backend in backends:
            backends.remove(backend)
        _convert_pair(draft, card, backend)
    for word in backends:
        if word.untouched:
            word.claim_rest(Outcome.IMPLIED, "no network card is connected to it")


def _convert_pair(draft: Draft, card: Word, backend: Word | None) -> None:
    """Write the <interface> of a card of -nic or -net nic and its backend (the same word for -nic)."""
    family = draft.machine.family
    driver = card.peek("model") or family.default_nic or ""
    driver = MODEL_ALIASES.get(driver, driver)
    if draft.machine.family.name == "s390-ccw-virtio" and driver == "virtio-net-pci":
        driver = "virtio-net-ccw"
    row = next((row for row in ROWS if driver in row.drivers), None)
    mac = card.peek("mac") or card.peek("macaddr")
    if row is None or family.name == "board" or (mac is not None and not _is_mac(mac)):
        return  # a card of the board's own, or one that libvirt cannot name: QEMU gets the words
    holes: dict[str, str | None] = {"type": "user"}
    netdev = Netdev(holes=holes)
    if backend is not None:
        for key in ("model", "mac", "macaddr", "vlan", "name"):
            if backend is card:
                backend.claim(key, Outcome.MAPPED)
        netdev = _backend_of(draft, backend)
    else:
        draft.warn(f"{card.option.text}: nothing is behind this card; it gets a user network")
    holes = dict(netdev.holes)
    holes |= {
        "model": virtio_model(driver) if driver.startswith("virtio-") else driver,
        "mac": None if mac is None else mac_address(mac),
    }
    for key in ("type", "model", "mac", "macaddr", "vlan", "name", "netdev"):
        card.claim(key, Outcome.MAPPED)
    card.claim("id", Outcome.IMPLIED)
    if backend is not None:
        for key in ("vlan", "name", "id"):
            if backend.group != "netdev" or netdev.kept is None:
                backend.claim(key, Outcome.IMPLIED)
    holes |= _driver_holes_of_pair(driver, netdev)
    element = draft.fill("interface", holes)
    draft.add(element, card, *netdev.words)
    if backend is not None and backend.group != "netdev":
        backend.land(element)
    _finish(draft, element, netdev)
    bus = bus_of(row, driver, draft)
    if bus is Bus.PCI:
        draft.pci.add(None, element, plugged=Plugged.NIC, addr=card.take("addr"))
    else:
        place(draft, card, element, bus)


def _driver_holes_of_pair(driver: str, netdev: Netdev) -> dict[str, str | None]:
    if driver.startswith("virtio-") and netdev.holes.get("type") in {"ethernet", "bridge"} and not netdev.vhost:
        return {"driver_name": "qemu"}
    return {}


def _backend_of(draft: Draft, backend: Word) -> Netdev:
    """Read the backend of -nic or -net; what libvirt cannot say is passed on as a -netdev with an id of ours."""
    if backend.group == "netdev":
        return read_netdev(draft, backend)
    id_ = backend.peek("id") or f"virtsnap-net{len(draft.overrides)}"
    card_keys = {"model", "mac", "macaddr", "vlan", "name", "netdev", "addr", "vectors", "id"}
    items = [item for item in backend.properties if item.key not in card_keys]
    netdev = read_netdev(draft, backend, id_)
    if netdev.kept is not None:
        words = Properties(items=(*items[:1], Property(key="id", value=id_), *items[1:]))
        backend.passed_as = ["-netdev", join_commas(words)]
        for item in items:
            backend.claim(item.key, Outcome.PASSTHROUGH)
        backend.note(f"QEMU gets it as -netdev {id_}; the card is joined to it")
    return netdev


def _is_mac(text: str) -> bool:
    try:
        mac_address(text)
    except NotSayable:
        return False
    return True


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=virtio("virtio-net"), template="interface", bus=Bus.PCI, build=_build_nic,
        keys=(*NIC_KEYS, *VIRTIO_NET_KEYS, *PCI_KEYS),
    ),
    DeviceRow(
        drivers=PCI_MODELS, template="interface", bus=Bus.PCI, build=_build_nic, keys=(*NIC_KEYS, *PCI_KEYS)
    ),
    DeviceRow(drivers=USB_MODELS, template="interface", bus=Bus.USB, build=_build_nic, keys=NIC_KEYS),
    DeviceRow(drivers=SPAPR_MODELS, template="interface", bus=Bus.SPAPR_VIO, build=_build_nic, keys=NIC_KEYS),
)
