"""Devices of the host given to the guest: PCI and mediated devices, USB devices, USB redirection, smart cards."""

from __future__ import annotations

import re

from lxml import etree

from virtsnap.convert.boot_order import boot_order
from virtsnap.convert.build import build_device
from virtsnap.convert.chardevs import can_have, find_chardev, put_chardev
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.pci_keys import PCI_KEYS
from virtsnap.convert.rows import Bus, DeviceRow, Key
from virtsnap.convert.values import number, on_off, parse_number, parse_switch

_PCI_ADDRESS = re.compile(
    r"(?:(?P<domain>[0-9a-fA-F]{1,8}):)?(?P<bus>[0-9a-fA-F]{1,2}):(?P<slot>[0-9a-fA-F]{1,2})\.(?P<function>[0-7])"
)
_MDEV = re.compile(r".*/(?P<uuid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/?")
_USB_PATH = re.compile(r"/dev/bus/usb/(?P<bus>\d{1,3})/(?P<device>\d{1,3})")

BOOT_KEYS = (Key(key="bootindex", hole="boot_order", read=boot_order), Key(key="loadparm", hole="loadparm"))
MDEV_KEYS = (
    Key(key="display", hole="display", read=on_off),
    Key(key="ramfb", hole="ramfb", read=on_off, since=(5, 9)),
)


def _build_vfio(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert vfio-pci, vfio-ccw and vfio-ap: by host address, or by the mediated device's UUID."""
    driver = word.peek("driver") or ""
    mdev = _MDEV.fullmatch(word.peek("sysfsdev") or "")
    if mdev is not None:
        mdev_row = DeviceRow(
            drivers=row.drivers, template="hostdev_mdev", bus=row.bus, keys=(*MDEV_KEYS, *BOOT_KEYS, *PCI_KEYS)
        )
        model = {"vfio-pci-nohotplug": "vfio-pci"}.get(driver, driver)
        build_device(draft, word, mdev_row, {"model": model, "uuid": mdev["uuid"]})
        word.claim("sysfsdev", Outcome.MAPPED)
        return
    host = _PCI_ADDRESS.fullmatch(word.peek("host") or "")
    if host is None or driver != "vfio-pci":
        return
    holes: dict[str, str | None] = {
        "host_domain": f"0x{int(host['domain'] or '0', 16):04x}", "host_bus": f"0x{int(host['bus'], 16):02x}",
        "host_slot": f"0x{int(host['slot'], 16):02x}", "host_function": f"0x{host['function']}",
    }
    if int(host["slot"], 16) > 31 or int(host["domain"] or "0", 16) > 0xFFFF:
        return
    partner = word.peek("failover_pair_id")
    if partner is not None:
        name = partner if partner.startswith("ua-") else f"ua-{partner}"
        holes |= {"teaming": "transient", "teaming_persistent": name}
        word.claim("failover_pair_id", Outcome.MAPPED)
    build_device(draft, word, row, holes)
    word.claim("host", Outcome.MAPPED)


def _build_usb_host(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert usb-host: by vendor and product, by bus and address, or by its node in /dev."""
    holes: dict[str, str | None] = {}
    path = _USB_PATH.fullmatch(word.peek("hostdevice") or "")
    try:
        if path is not None:
            holes |= {"host_bus": str(int(path["bus"])), "host_device": str(int(path["device"]))}
        if word.has("hostbus") and word.has("hostaddr"):
            bus, device = (number(word.peek(key) or "") for key in ("hostbus", "hostaddr"))
            holes |= {"host_bus": bus, "host_device": device}
        if word.has("vendorid") and word.has("productid"):
            vendor, product = (parse_number(word.peek(key) or "") for key in ("vendorid", "productid"))
            holes |= {"vendor_id": f"0x{vendor & 0xFFFF:04x}", "product_id": f"0x{product & 0xFFFF:04x}"}
    except ValueError:
        return
    if not holes:
        return
    if word.has("guest-reset") and draft.knows((7, 1)):
        try:
            resets, all_ = (parse_switch(word.peek(key) or "on") for key in ("guest-reset", "guest-resets-all"))
        except ValueError:
            return
        holes["guest_reset"] = "off" if not resets else None if all_ else "uninitialized"
        word.claim("guest-reset", Outcome.MAPPED)
        word.claim("guest-resets-all", Outcome.MAPPED)
    build_device(draft, word, row, holes)
    for key in ("hostdevice", "hostbus", "hostaddr", "vendorid", "productid"):
        word.claim(key, Outcome.MAPPED)


def _build_redirdev(draft: Draft, word: Word, row: DeviceRow) -> None:
    if not can_have(draft, find_chardev(draft, word)):
        return
    element = build_device(draft, word, row)
    put_chardev(draft, element, word)


def _build_smartcard(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert a card in a usb-ccid reader: the host's own, one made of certificates, or one behind a chardev."""
    driver = word.peek("driver")
    holes: dict[str, str | None] = {}
    if driver == "ccid-card-passthru":
        if not can_have(draft, find_chardev(draft, word)):
            return
        holes["mode"] = "passthrough"
    elif word.peek("backend") == "nss-emulated":
        holes["mode"] = "host"
    elif word.peek("backend") == "certificates" and all(word.has(f"cert{n}") for n in (1, 2, 3)):
        holes |= {"mode": "host-certificates", "database": word.take("db")}
        holes |= {f"cert{n}": word.take(f"cert{n}") for n in (1, 2, 3)}
    else:
        return
    reader = draft.controllers.find(word.peek("bus"), "ccid")
    if reader is None:
        return
    element = draft.fill("smartcard", holes)
    for key in ("driver", "backend", "bus"):
        word.claim(key, Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    draft.add(element, word)
    if driver == "ccid-card-passthru":
        put_chardev(draft, element, word)
    etree.SubElement(element, "address", type="ccid", controller=str(reader[0].index), slot="0")


def _build_ccid(draft: Draft, word: Word, row: DeviceRow) -> None:
    id_ = word.peek("id")
    element = build_device(draft, word, row)
    draft.controllers.add("ccid", id_, element)


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=("vfio-pci", "vfio-pci-nohotplug"), template="hostdev_pci", bus=Bus.PCI,
        keys=(*BOOT_KEYS, *PCI_KEYS), build=_build_vfio,
    ),
    DeviceRow(drivers=("vfio-ccw",), template="hostdev_mdev", bus=Bus.CCW, keys=BOOT_KEYS, build=_build_vfio),
    DeviceRow(drivers=("vfio-ap",), template="hostdev_mdev", bus=Bus.NONE, build=_build_vfio),
    DeviceRow(
        drivers=("usb-host",), template="hostdev_usb", bus=Bus.USB,
        keys=(Key(key="bootindex", hole="boot_order", read=boot_order),), build=_build_usb_host,
    ),
    DeviceRow(
        drivers=("usb-redir",), template="redirdev", bus=Bus.USB,
        keys=(Key(key="bootindex", hole="boot_order", read=boot_order),), build=_build_redirdev,
    ),
    DeviceRow(drivers=("usb-ccid",), template="controller_ccid", bus=Bus.USB, build=_build_ccid),
    DeviceRow(
        drivers=("ccid-card-emulated", "ccid-card-passthru"), template="smartcard", bus=Bus.CCID,
        build=_build_smartcard,
    ),
)
