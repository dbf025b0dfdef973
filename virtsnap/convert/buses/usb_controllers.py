"""USB controllers of -device, each with the companions that share its ports, and USB hubs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtsnap.convert.buses.plugging import Plugged
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, read_keys
from virtsnap.convert.values import number
from virtsnap.domain_xml.templates import Element


@dataclass(frozen=True, kw_only=True)
class Model:
    """One kind of controller: libvirt's word (None: it has none), and the ports on its bus."""

    name: str | None
    ports: int


# Source: hw/usb/hcd-*.c in QEMU, virDomainControllerModelUSB in libvirt's domain_conf.c.
MODELS: Mapping[str, Model] = {
    "piix3-usb-uhci": Model(name="piix3-uhci", ports=2),
    "piix4-usb-uhci": Model(name="piix4-uhci", ports=2),
    "vt82c686b-usb-uhci": Model(name="vt82c686b-uhci", ports=2),
    "usb-ehci": Model(name="ehci", ports=6),
    "ich9-usb-ehci1": Model(name="ich9-ehci1", ports=6),
    "ich9-usb-ehci2": Model(name=None, ports=6),
    "pci-ohci": Model(name="pci-ohci", ports=3),
    "nec-usb-xhci": Model(name="nec-xhci", ports=4),
    "qemu-xhci": Model(name="qemu-xhci", ports=4),
}
COMPANIONS: Mapping[str, Model] = {
    "ich9-usb-uhci1": Model(name="ich9-uhci1", ports=2),
    "ich9-usb-uhci2": Model(name="ich9-uhci2", ports=2),
    "ich9-usb-uhci3": Model(name="ich9-uhci3", ports=2),
    "ich9-usb-uhci4": Model(name=None, ports=2),
    "ich9-usb-uhci5": Model(name=None, ports=2),
    "ich9-usb-uhci6": Model(name=None, ports=2),
}
XHCI_DEFAULT_PORTS = 4
XHCI_MOST_PORTS = 15


def _ports(value: str) -> str:
    count = int(number(value))
    if not 1 <= count <= XHCI_MOST_PORTS:
        raise NotSayable(f"{value} is no number of ports")
    return str(count)


XHCI_KEYS = (Key(key="p2", hole="ports", read=_ports), Key(key="p3", hole="ports", read=_ports))
COMPANION_KEYS = (Key(key="firstport", hole="start_port", read=number),)


def add_controller(
    draft: Draft, model: Model, holes: Mapping[str, str | None], *, plugged: Plugged, addr: str | None,
    multifunction: str | None = None, words: tuple[Word, ...] = (),
) -> Element:
    """Add a controller that the machine has built in, with the bus that it makes."""
    element = draft.add(draft.fill("controller_usb", {"index": "0", "model": model.name, **holes}), *words)
    function = draft.pci.add(None, element, plugged=plugged, addr=addr)
    function.multifunction = multifunction
    if "start_port" not in holes:
        draft.usb.add_bus(None, draft.controllers.add("usb", None, element), function, model.ports)
    return element


def _build_controller(draft: Draft, word: Word, row: DeviceRow) -> None:
    driver = word.peek("driver") or ""
    model = MODELS[driver]
    id_ = word.peek("id")
    if model.name is None:
        draft.usb.add_bus(id_, None, draft.pci.add(word, None), model.ports)
        return
    holes: dict[str, str | None] = {"index": "0", "model": model.name}
    ports = model.ports
    if row.keys is XHCI_KEYS:
        ports = _xhci_ports(draft, word, holes)
    element = draft.fill(row.template, holes)
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.MAPPED)
    draft.add(element, word)
    draft.usb.add_bus(id_, draft.controllers.add("usb", id_, element), draft.pci.add(word, element), ports)


def _xhci_ports(draft: Draft, word: Word, holes: dict[str, str | None]) -> int:
    """Give the number of ports; where those of USB 2 and 3 differ, libvirt gets the larger, QEMU both as said."""
    said = [word.peek(key) for key in ("p2", "p3")]
    try:
        counts = [XHCI_DEFAULT_PORTS if value is None else int(_ports(value)) for value in said]
    except ValueError:
        return XHCI_DEFAULT_PORTS
    if len(set(counts)) == 1:
        holes |= read_keys(word, XHCI_KEYS, draft.target)
    else:
        holes["ports"] = str(max(counts))
    return max(counts)


def _build_companion(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert a companion, which libvirt knows by the index of its master; one of QEMU's master stays QEMU's."""
    model = COMPANIONS[word.peek("driver") or ""]
    name = word.peek("masterbus")
    master = draft.usb.find(name) if name is not None else None
    if model.name is None or (name is not None and (master is None or master.controller is None)):
        function = draft.pci.add(word, None)
        if name is None:
            draft.usb.add_bus(word.peek("id"), None, function, model.ports)
        return
    holes: dict[str, str | None] = {"index": "0", "model": model.name}
    holes |= read_keys(word, row.keys, draft.target)
    element = draft.fill(row.template, holes)
    for key in ("driver", "masterbus"):
        word.claim(key, Outcome.MAPPED)
    word.claim("id", Outcome.MAPPED)
    draft.add(element, word)
    function = draft.pci.add(word, element)
    if master is not None and master.controller is not None:
        element.set("index", str(master.controller.index))
        return
    id_ = word.peek("id")
    draft.usb.add_bus(id_, draft.controllers.add("usb", id_, element), function, model.ports)


def _build_hub(draft: Draft, word: Word, row: DeviceRow) -> None:
    element = draft.fill(row.template, {})
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.add(element, word)
    draft.usb.add(word, element, is_hub=True)


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=("qemu-xhci", "nec-usb-xhci"), template="controller_usb", bus=Bus.PCI, keys=XHCI_KEYS,
        build=_build_controller,
    ),
    DeviceRow(
        drivers=tuple(name for name in MODELS if "xhci" not in name), template="controller_usb", bus=Bus.PCI,
        build=_build_controller,
    ),
    DeviceRow(
        drivers=tuple(COMPANIONS), template="controller_usb", bus=Bus.PCI, keys=COMPANION_KEYS,
        build=_build_companion,
    ),
    DeviceRow(drivers=("usb-hub",), template="hub", bus=Bus.USB, build=_build_hub),
)
