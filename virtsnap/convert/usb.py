"""USB: controllers with their companions, hubs, and -usb, -usbdevice."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from virtsnap.convert.build import place
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.machines import X86
from virtsnap.convert.rows import Bus, DeviceRow, Key, read_keys
from virtsnap.convert.values import number, parse_switch

# QEMU's driver -> (libvirt's model, ports on its bus). Source: hw/usb/hcd-*.c.
MODELS: Mapping[str, tuple[str, int]] = {
    "piix3-usb-uhci": ("piix3-uhci", 2),
    "piix4-usb-uhci": ("piix4-uhci", 2),
    "vt82c686b-usb-uhci": ("vt82c686b-uhci", 2),
    "usb-ehci": ("ehci", 6),
    "ich9-usb-ehci1": ("ich9-ehci1", 6),
    "pci-ohci": ("pci-ohci", 3),
    "nec-usb-xhci": ("nec-xhci", 4),
    "qemu-xhci": ("qemu-xhci", 4),
}
COMPANIONS: Mapping[str, str] = {
    "ich9-usb-uhci1": "ich9-uhci1", "ich9-usb-uhci2": "ich9-uhci2", "ich9-usb-uhci3": "ich9-uhci3",
}
# What -usb (or usb=on of the machine) switches on: driver and PCI function. The bus is named by QEMU.
BUILTIN: Mapping[str, tuple[tuple[str, int, int], ...]] = {
    "pc": (("piix3-usb-uhci", 1, 2),),
    "q35": (
        ("ich9-usb-ehci1", 0x1D, 7), ("ich9-usb-uhci1", 0x1D, 0), ("ich9-usb-uhci2", 0x1D, 1),
        ("ich9-usb-uhci3", 0x1D, 2),
    ),
}
BUILTIN_BUS = "usb-bus"


def _ports(value: str) -> str:
    count = number(value)
    if not count.isdigit() or not 1 <= int(count) <= 15:
        raise NotSayable(f"{value} is no number of ports")
    return count


XHCI_KEYS = (Key(key="p2", hole="ports", read=_ports), Key(key="p3", hole="ports", read=_ports))
COMPANION_KEYS = (Key(key="firstport", hole="start_port", read=number),)


def convert_builtin_usb(draft: Draft) -> None:
    """Write the controllers that -usb or -machine usb=on switch on, and make -usbdevice a -device."""
    wanted = False
    for word in draft.group("usb"):
        word.claim_rest(Outcome.MAPPED)
        wanted = True
    for word in draft.group("machine"):
        if word.has("usb"):
            try:
                wanted = parse_switch(word.peek("usb") or "")
                word.claim("usb", Outcome.MAPPED)
            except ValueError:
                pass
    if any(word.peek("type") != "none" for word in draft.group("usbdevice")):
        wanted = True  # QEMU switches the controller on for -usbdevice
    if not wanted:
        return
    for driver, slot, function in BUILTIN.get(draft.machine.family.name, ()):
        model, ports = MODELS.get(driver, (COMPANIONS.get(driver, ""), 0))
        holes: dict[str, str | None] = {"model": model, "index": "0"}
        if driver in COMPANIONS:
            holes["start_port"] = str(2 * (int(driver[-1]) - 1))
        element = draft.fill("controller_usb", holes)
        draft.add(element, *draft.group("usb"))
        address = etree.SubElement(
            element, "address", type="pci", domain="0x0000", bus="0x00", slot=f"0x{slot:02x}",
            function=f"0x{function:x}",
        )
        if (slot, function) == (0x1D, 0):
            address.set("multifunction", "on")
        draft.pci.reserve(slot, function, "USB")
        if driver in MODELS:
            controller = draft.controllers.add("usb", BUILTIN_BUS, element, index=0)
            draft.usb.add_controller(controller, ports)
    _convert_usbdevices(draft)


def _convert_usbdevices(draft: Draft) -> None:
    """-usbdevice NAME is -device usb-NAME on the first bus. Source: usbdevice_create() in QEMU's hw/usb/bus.c."""
    names = {"mouse": "usb-mouse", "tablet": "usb-tablet", "keyboard": "usb-kbd"}
    for word in draft.group("usbdevice"):
        text = word.peek("usbdevice") or ""
        driver = names.get(text)
        if driver is None:
            if text.startswith("host:"):
                _convert_old_host_device(draft, word, text.removeprefix("host:"))
            continue
        element = draft.fill(
            "input", {"type": {"usb-kbd": "keyboard"}.get(driver, driver[4:]), "bus": "usb"}
        )
        draft.add(element, word)
        draft.usb.add(word, element)
        word.claim_rest(Outcome.MAPPED)


def _convert_old_host_device(draft: Draft, word: Word, text: str) -> None:
    """-usbdevice host:BUS.ADDR or host:VENDOR:PRODUCT."""
    holes: dict[str, str | None]
    if ":" in text:
        pair = text.split(":")
        holes = {"vendor_id": f"0x{pair[0].zfill(4)}", "product_id": f"0x{pair[1].zfill(4)}"}
        good = len(pair) == 2 and all(len(part) <= 4 and _is_hex(part) for part in pair)
    else:
        pair = text.split(".")
        good = len(pair) == 2 and all(part.isdigit() and len(part) <= 3 for part in pair)
        holes = {"host_bus": pair[0], "host_device": pair[-1]}
    if not good:
        return
    element = draft.fill("hostdev_usb", holes)
    draft.add(element, word)
    draft.usb.add(word, element)
    word.claim_rest(Outcome.MAPPED)


def _is_hex(text: str) -> bool:
    return bool(text) and all(char in "0123456789abcdefABCDEF" for char in text)


def _build_controller(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert one USB controller; a companion belongs to the controller that its masterbus names."""
    driver = word.peek("driver") or ""
    if not draft.pci.knows(word.peek("bus")):
        return
    if driver in COMPANIONS:
        master = draft.controllers.find(word.peek("masterbus"), "usb") if word.has("masterbus") else None
        if word.has("masterbus") and master is None:
            return
        holes: dict[str, str | None] = {"model": COMPANIONS[driver]}
        holes |= read_keys(word, row.keys, draft.target)
        element = draft.fill("controller_usb", holes)
        if master is not None:
            word.claim("masterbus", Outcome.MAPPED)
            element.set("index", str(master[0].index))
        else:
            controller = draft.controllers.add("usb", _bus_id(word), element)
            draft.usb.add_controller(controller, 2)
    else:
        model, ports = MODELS[driver]
        holes = {"model": model}
        same_ports = (not word.has("p2") and not word.has("p3")) or word.peek("p2") == word.peek("p3")
        if same_ports:
            holes |= read_keys(word, row.keys, draft.target)
        element = draft.fill("controller_usb", holes)
        controller = draft.controllers.add("usb", _bus_id(word), element)
        draft.usb.add_controller(controller, int(element.get("ports") or ports))
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.MAPPED)
    draft.add(element, word)
    place(draft, word, element, Bus.PCI)


def _bus_id(word: Word) -> str | None:
    """Give the name of the bus of a controller: its id, else the one that QEMU would make up."""
    return word.peek("id") or BUILTIN_BUS


def _build_hub(draft: Draft, word: Word, row: DeviceRow) -> None:
    if draft.usb.find(word) is None:
        return
    element = draft.fill(row.template, {})
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.add(element, word)
    draft.usb.add(word, element, is_hub=True)


def settle_usb(draft: Draft) -> None:
    """Give the ports, and say that there is no controller where QEMU would have none and libvirt would add one."""
    draft.usb.assign()
    # libvirt adds a controller of its own on these unless it is told not to
    # (qemuDomainDefaultUSB… in libvirt's qemu_domain.c).
    adds = draft.machine.arch in X86 | {"ppc64", "ppc64le"} and draft.machine.family.pci_root is not None
    if adds and not draft.controllers.of("usb"):
        element = draft.fill("controller_usb", {"index": "0", "model": "none"})
        draft.add(element)




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
        build=_build_controller,
    ),
    DeviceRow(drivers=("usb-hub",), template="hub", bus=Bus.USB, build=_build_hub),
)
