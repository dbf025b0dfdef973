"""Devices of the host given to the guest become <hostdev>: PCI and mediated devices, USB devices."""

from __future__ import annotations

import re

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.pci_keys import PCI_KEYS
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import LOADPARM, boot_order
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.network.nics import teaming_alias
from virtsnap.convert.rows import Key
from virtsnap.convert.values import number_up_to, on_off, parse_number, parse_switch

_PCI_ADDRESS = re.compile(
    r"(?:(?P<domain>[0-9a-fA-F]{1,8}):)?(?P<bus>[0-9a-fA-F]{1,2}):(?P<slot>[0-9a-fA-F]{1,2})\.(?P<function>[0-7])"
)
_MDEV = re.compile(r".*/(?P<uuid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/?")
_USB_PATH = re.compile(r"/dev/bus/usb/(?P<bus>[0-9]{1,3})/(?P<device>[0-9]{1,3})")

BOOT_KEYS = (Key(key="bootindex", hole="boot_order", read=boot_order), LOADPARM)
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
    host = _PCI_ADDRESS.fullmatch(word.peek("host") or _in_sysfs(word))
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
        name = teaming_alias(partner)
        if name is None:
            raise NotSayable(f"libvirt takes no alias such as {partner!r}")
        holes |= {"teaming": "transient", "teaming_persistent": name}
        word.claim("failover_pair_id", Outcome.MAPPED)
    build_device(draft, word, row, holes)
    for key in ("host", "sysfsdev"):
        word.claim(key, Outcome.MAPPED)


def _in_sysfs(word: Word) -> str:
    """Give the PCI address at the end of a path such as /sys/bus/pci/devices/0000:01:00.0."""
    return (word.peek("sysfsdev") or "").rstrip("/").rpartition("/")[2]


def _build_usb_host(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert usb-host: by vendor and product, by bus and address, or by its node in /dev."""
    holes: dict[str, str | None] = {}
    path = _USB_PATH.fullmatch(word.peek("hostdevice") or "")
    try:
        if path is not None:
            holes |= {"host_bus": str(int(path["bus"])), "host_device": str(int(path["device"]))}
        if word.has("hostbus") and word.has("hostaddr"):
            bus, device = (number_up_to(999)(word.peek(key) or "") for key in ("hostbus", "hostaddr"))
            holes |= {"host_bus": bus, "host_device": device}
        if word.has("vendorid") and word.has("productid"):
            vendor, product = (parse_number(word.peek(key) or "") for key in ("vendorid", "productid"))
            holes |= {"vendor_id": f"0x{vendor & 0xFFFF:04x}", "product_id": f"0x{product & 0xFFFF:04x}"}
            # QEMU starts without the device, too.
            holes["startup_policy"] = "optional"
    except ValueError:
        return
    if not holes:
        return
    if word.has("guest-reset") and draft.knows((7, 1)):
        try:
            resets = parse_switch(word.peek("guest-reset") or "on")
            always = parse_switch(word.peek("guest-resets-all") or "off")
        except ValueError:
            return
        holes["guest_reset"] = "off" if not resets else "on" if always else "uninitialized"
        word.claim("guest-reset", Outcome.MAPPED)
        word.claim("guest-resets-all", Outcome.MAPPED)
    build_device(draft, word, row, holes)
    for key in ("hostdevice", "hostbus", "hostaddr", "vendorid", "productid"):
        word.claim(key, Outcome.MAPPED)


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
)
