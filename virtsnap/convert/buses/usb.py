"""-usb, -machine usb=on and -usbdevice: the USB controllers of a machine, and old words for devices on them.

-usbdevice NAME is -device by an old name, on the first controller. Source:
usbdevice_create() in QEMU's hw/usb/bus.c, pc_init1(), pc_q35_init(), spapr_machine_init().
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from virtsnap.command_line.chardev_text import parse_chardev_text
from virtsnap.command_line.keyval import Properties, Property, SyntaxFault, join_commas
from virtsnap.command_line.options import parse_options
from virtsnap.convert.buses.plugging import Plugged
from virtsnap.convert.buses.usb_controllers import COMPANIONS, MODELS, add_controller
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word, refuse
from virtsnap.convert.values import parse_switch

# Driver and PCI address of what `usb=on` switches on, per family.
BUILTIN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "pc": (("piix3-usb-uhci", "1.2"),),
    "q35": (
        ("ich9-usb-ehci1", "1d.7"), ("ich9-usb-uhci1", "1d.0"), ("ich9-usb-uhci2", "1d.1"),
        ("ich9-usb-uhci3", "1d.2"),
    ),
}
# Boards whose controller libvirt can have: versatile_init(), realview_init() in QEMU's hw/arm.
OHCI_BOARDS = re.compile(r"versatile.*|realview-.*")
# Up to this version a pseries had an OHCI: use_ohci_by_default in QEMU's hw/ppc/spapr.c.
OHCI_PSERIES = re.compile(r"pseries-2\.[1-5]")
# libvirt adds no controller of its own to these: qemuDomainDefAddDefaultDevices() in its qemu_domain.c.
WITHOUT_NONE = frozenset({"s390-ccw-virtio", "board"})

OLD_NAMES: Mapping[str, tuple[str, str]] = {
    "mouse": ("mouse", "usb"), "tablet": ("tablet", "usb"), "keyboard": ("keyboard", "usb"),
}
# Old names of devices that stay QEMU's: the driver, and its character device where the word names none.
OTHER_NAMES: Mapping[str, tuple[str, str | None]] = {
    "wacom-tablet": ("usb-wacom-tablet", None), "braille": ("usb-braille", "braille"),
    "serial": ("usb-serial", "null"),
}


def convert_machine_usb(draft: Draft) -> None:
    """Write the controllers that the machine has built in, then the devices of -usbdevice."""
    words = [word for word in draft.words if word.group in {"usb", "usbdevice"} or _machine_says(word)]
    wanted: bool | None = None
    for word in words:
        wanted = _machine_switch(word) if word.group == "machine" else True
    if wanted is None and draft.machine.family.name == "pseries" and not draft.group("nodefaults"):
        wanted = _has_display(draft)  # a pseries with a display has USB unless it is told not to
    if wanted and _add_builtin(draft, tuple(draft.group("usb"))):
        for word in draft.group("usb"):
            word.claim_rest(Outcome.MAPPED)
    elif draft.machine.family.name != "board":
        for word in draft.group("usb"):
            word.claim_rest(Outcome.IMPLIED, "this machine has no USB controller of its own")
    for word in draft.group("machine"):
        if not wanted or draft.machine.family.name != "board" or draft.controllers.of("usb"):
            word.claim("usb", Outcome.MAPPED if wanted else Outcome.IMPLIED)
    for word in draft.group("usbdevice"):
        _convert_usbdevice(draft, word)


def _machine_says(word: Word) -> bool:
    return word.group == "machine" and word.has("usb")


def _machine_switch(word: Word) -> bool:
    try:
        return parse_switch(word.peek("usb") or "")
    except ValueError:
        return False


def _has_display(draft: Draft) -> bool:
    word = draft.last("vga")
    return word is not None and word.peek("vga") != "none"


def _add_builtin(draft: Draft, words: tuple[Word, ...]) -> bool:
    family = draft.machine.family.name
    devices = BUILTIN.get(family, ())
    if family == "pseries":
        driver = "pci-ohci" if OHCI_PSERIES.match(draft.machine.type) else "nec-usb-xhci"
        add_controller(draft, MODELS[driver], {}, plugged=Plugged.MACHINE_USB, addr=None, words=words)
        if _has_display(draft):
            for name in ("keyboard", "mouse"):
                _imply(draft, "-usbdevice", name)
        return True
    if family == "board" and OHCI_BOARDS.fullmatch(draft.machine.type):
        add_controller(draft, MODELS["pci-ohci"], {}, plugged=Plugged.MACHINE_USB, addr=None, words=words)
        return True
    for driver, addr in devices:
        companion = driver in COMPANIONS
        model = COMPANIONS[driver] if companion else MODELS[driver]
        holes = {"start_port": str(2 * (int(driver[-1]) - 1))} if companion else {}
        add_controller(
            draft, model, holes, plugged=Plugged.MACHINE_USB, addr=addr, words=words,
            # All of them: ehci_create_ich9_with_companions() in QEMU's hw/usb/hcd-ehci-pci.c.
            multifunction="on" if driver.startswith("ich9-usb") else None,
        )
    return bool(devices)


def _convert_usbdevice(draft: Draft, word: Word) -> None:
    text = word.peek("usbdevice") or ""
    if text == "none":
        word.claim_rest(Outcome.IMPLIED)
        return
    if draft.usb.controller_of(word) is None:
        return
    if text in OLD_NAMES:
        type_, bus = OLD_NAMES[text]
        element = draft.fill("input", {"type": type_, "bus": bus})
        draft.add(element, word)
        draft.usb.add(word, element)
        word.claim_rest(Outcome.MAPPED)
    elif text.startswith("host:"):
        _convert_host(draft, word, text.removeprefix("host:"))
    elif text.partition(":")[0] in OTHER_NAMES:
        draft.usb.add(word, None)


def _pass_on(word: Word, address: dict[str, str]) -> None:
    """Write an old word as -device: as -usbdevice it would switch on a controller beside libvirt's."""
    name, _, text = (word.peek("usbdevice") or "").partition(":")
    driver, backend = OTHER_NAMES[name]
    device = {"driver": driver, **address}
    word.passed_as = []
    if backend is not None:
        try:
            items = parse_chardev_text(text or backend)
        except SyntaxFault as exc:
            raise refuse(word.option, str(exc), f"give a character device, as in {name}:pty") from exc
        device["chardev"] = f"virtsnap-usb{word.option.first}"
        first, *rest = items
        words = Properties(items=(Property(key="id", value=device["chardev"]), *rest))
        word.passed_as += ["-chardev", f"{first.value},{join_commas(words)}"]
    word.passed_as += ["-device", json.dumps(device)]


def _imply(draft: Draft, *argument: str) -> Word:
    """Add an option that an old word stands for."""
    option = parse_options([draft.command_line.emulator, *argument]).options[0]
    word = Word(option, implied=True)
    draft.words.append(word)
    return word


def _convert_host(draft: Draft, word: Word, text: str) -> None:
    """-usbdevice host:BUS.ADDR or host:VENDOR:PRODUCT, the first in decimal, the second in hexadecimal."""
    place = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})", text)
    product = re.fullmatch(r"([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4})", text)
    holes: dict[str, str | None] = {}
    if place is not None:
        holes |= {"host_bus": str(int(place[1])), "host_device": str(int(place[2]))}
    elif product is not None:
        holes |= {"vendor_id": f"0x{int(product[1], 16):04x}", "product_id": f"0x{int(product[2], 16):04x}"}
        holes["startup_policy"] = "optional"  # QEMU starts without the device, too
    else:
        return
    element = draft.add(draft.fill("hostdev_usb", holes), word)
    draft.usb.add(word, element)
    word.claim_rest(Outcome.MAPPED)


def settle_usb(draft: Draft) -> None:
    """Give the ports, and say that there is no controller where QEMU would have none."""
    draft.usb.assign()
    for word in draft.group("usbdevice"):
        address = draft.usb.passthrough_address(word)
        if address:
            _pass_on(word, address)
    family = draft.machine.family
    can_have = family.pci_root_model is not None and family.name not in WITHOUT_NONE
    # libvirt 9.0 gives microvm a PCI controller for USB, and then finds that there is no PCI.
    can_have = can_have or family.name == "microvm"
    if can_have and "riscv" not in draft.machine.arch and not draft.controllers.of("usb"):
        draft.add(draft.fill("controller_usb", {"index": "0", "model": "none"}))
