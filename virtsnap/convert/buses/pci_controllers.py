"""PCI bridges, ports and host bridges: each is a controller of libvirt's, which counts buses by their index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lxml import etree

from virtsnap.convert.build import bus_of
from virtsnap.convert.buses.pci import SLOTS
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Version, read_keys
from virtsnap.convert.values import number, on_off, parse_number, size_in


def _between(low: int, high: int, *, as_hex: bool = False) -> Callable[[str], str]:
    def read(value: str) -> str:
        try:
            found = parse_number(value)
        except ValueError as exc:
            raise NotSayable(f"{value!r} is not a number") from exc
        if not low <= found <= high:
            raise NotSayable(f"{value} is not between {low} and {high}")
        return f"0x{found:x}" if as_hex else str(found)

    return read


def _kib(value: str) -> str:
    size = int(number(value))
    if size % 1024:
        raise NotSayable(f"{value} is not a whole number of KiB")
    return str(size // 1024)


PORT_KEYS = (
    Key(key="chassis", hole="chassis", read=_between(0, 255)),
    Key(key="port", hole="port", read=_between(0, 255, as_hex=True)),
    Key(key="hotplug", hole="hotplug", read=on_off, since=(6, 3)),
)
BRIDGE_KEYS = (
    Key(key="chassis_nr", hole="chassis_nr", read=_between(1, 255)),
    Key(key="mem-reserve", hole="mem_reserve", read=_kib, since=(10, 3)),
)
EXPANDER_KEYS = (
    Key(key="bus_nr", hole="bus_nr", read=_between(1, 254)),
    Key(key="numa_node", hole="numa_node", read=number),
)
PHB_KEYS = (
    Key(key="index", hole="phb_index", read=_between(0, 30)),
    Key(key="numa_node", hole="numa_node", read=number),
)


# A port has one slot. libvirt leaves slot 0 of a bus with a hot-plug controller out:
# virDomainPCIAddressBusSetModel() in its domain_addr.c.
ONE_SLOT = frozenset({"pcie-root-port", "pcie-switch-downstream-port"})
FROM_SLOT_1 = frozenset({"pci-bridge", "pcie-to-pci-bridge", "pci-root"})

# What a root port's link is anyway: gen_rp_props in QEMU's gen_pcie_root_port.c, hw_compat_3_1 for older machines.
FAST_LINKS: Mapping[str, str] = {"x-speed": "16", "x-width": "32"}
FAST_LINKS_SINCE = (4, 0)

# Where libvirt adds a host bridge unasked: qemuDomainDefAddDefaultDevices() in its qemu_domain.c.
ROOT_ARCHES = frozenset({"alpha", "ppc", "ppc64", "ppc64le", "sh4", "sh4eb"})
ROOT_BOARDS = frozenset({"versatilepb", "malta"})


def _build_bridge(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert a device that makes a PCI bus. Its id becomes an index; `pci.3` becomes 3 where that is free."""
    driver = word.peek("driver") or ""
    id_ = word.peek("id")
    if not draft.pci.knows(word.peek("bus")) and row.bus is Bus.PCI:
        return  # it sits on a bus that nothing here makes
    # What QEMU has without being told and libvirt would choose otherwise.
    defaults = {"chassis": "0", "port": "0x0"} if row.keys is PORT_KEYS else {}
    holes: dict[str, str | None] = {**row.holes, "model_name": driver, **defaults}
    holes |= read_keys(word, row.keys, draft.target)
    element = draft.fill("controller_pci", holes)
    word.claim("driver", Outcome.MAPPED)
    word.claim("id", Outcome.MAPPED)
    if driver == "pcie-root-port" and draft.machine.is_since(FAST_LINKS_SINCE):
        for key, usual in FAST_LINKS.items():
            if word.peek(key) == usual:
                word.claim(key, Outcome.IMPLIED)
    draft.add(element, word)
    parent = draft.pci.add(word, element) if bus_of(row, driver, draft) is Bus.PCI else None
    found = re.fullmatch(r"pci\.([0-9]{1,4})", id_ or "")
    model = row.holes["model"]
    draft.pci.add_bus(
        id_ or f"{driver}@{draft.words.index(word)}", element, parent, index=int(found[1]) if found else None,
        slots=1 if model in ONE_SLOT else SLOTS, lowest=1 if model in FROM_SLOT_1 else 0, word=word,
    )


@dataclass(frozen=True, kw_only=True)
class RootGlobal:
    """A property of the host bridge that -global sets, and the hole of the controller for it."""

    driver: str
    property: str
    hole: str
    read: Callable[[str], str | None]
    since: Version = (0, 0)


# Source: qemuBuildControllersCommandLine(), qemuBuildGlobalControllerCommandLine() in libvirt's qemu_command.c.
ROOT_GLOBALS: Mapping[str, tuple[RootGlobal, ...]] = {
    "pc": (
        RootGlobal(driver="PIIX4_PM", property="acpi-root-pci-hotplug", hole="hotplug", read=on_off, since=(7, 9)),
        RootGlobal(driver="i440FX-pcihost", property="pci-hole64-size", hole="hole64_kib", read=size_in(1024)),
    ),
    "q35": (RootGlobal(driver="q35-pcihost", property="pci-hole64-size", hole="hole64_kib", read=size_in(1024)),),
}


def _read_globals(draft: Draft) -> tuple[dict[str, str | None], list[Word]]:
    """Take each -global that sets a property of the host bridge."""
    holes: dict[str, str | None] = {}
    words: list[Word] = []
    rows = {
        (row.driver, row.property): row
        for row in ROOT_GLOBALS.get(draft.machine.family.name, ()) if draft.knows(row.since)
    }
    for word in draft.group("global"):
        row = rows.get((word.peek("driver") or "", word.peek("property") or ""))
        value = None if row is None else word.take_read("value", row.read)
        if row is not None and value is not None:
            holes[row.hole] = value
            word.claim_rest(Outcome.MAPPED)
            words.append(word)
    return holes, words


def write_root(draft: Draft) -> None:
    """Write the PCI host bridge of the machine."""
    model = draft.machine.family.pci_root_model
    if model is not None:
        _put_root(draft, model)


def write_board_root(draft: Draft) -> None:
    """Write the host bridge of a board where libvirt adds one unasked, or where a PCI device of libvirt's is."""
    if draft.machine.family.name != "board":
        return
    if draft.machine.arch in ROOT_ARCHES or draft.machine.type in ROOT_BOARDS or draft.pci.used:
        _put_root(draft, "pci-root")


def _put_root(draft: Draft, model: str) -> None:
    root = draft.pci.root
    if root is None or draft.devices.find("controller[@type='pci'][@index='0']") is not None:
        return
    said, words = _read_globals(draft)
    holes: dict[str, str | None] = {"index": "0", "model": model, **said}
    if draft.machine.family.name == "pseries":
        holes |= {"model_name": "spapr-pci-host-bridge", "phb_index": "0"}
    element = draft.fill("controller_pci", holes)
    emulator = draft.devices.find("emulator")
    draft.devices.insert(0 if emulator is None else draft.devices.index(emulator) + 1, element)
    root.controller = element
    for word in words:
        word.land(element)


def strip_zpci(draft: Draft) -> None:
    """Join every zpci of s390 with the device that it names: <zpci> inside its PCI address."""
    for word in draft.devices_of(("zpci",)):
        target = draft.find(word.peek("target"), "device")
        found = [] if target is None else [each.find("address[@type='pci']") for each in target.elements]
        address = next((each for each in found if each is not None), None)
        if address is None or not (word.has("uid") and word.has("fid")):
            continue
        try:
            uid, fid = (parse_number(word.peek(key) or "") for key in ("uid", "fid"))
        except ValueError:
            continue
        if not (0 < uid <= 0xFFFF and 0 <= fid <= 0xFFFFFFFF):
            continue
        etree.SubElement(address, "zpci", uid=f"0x{uid:04x}", fid=f"0x{fid:08x}")
        for key in ("driver", "uid", "fid", "target"):
            word.claim(key, Outcome.MAPPED)
        word.claim("id", Outcome.IMPLIED)
        word.land(address)


def _row(model: str, *drivers: str, keys: tuple[Key, ...] = (), bus: Bus = Bus.PCI) -> DeviceRow:
    return DeviceRow(
        drivers=drivers, template="controller_pci", bus=bus, holes={"model": model}, keys=keys, build=_build_bridge
    )


ROWS: tuple[DeviceRow, ...] = (
    _row("pcie-root-port", "pcie-root-port", "ioh3420", keys=PORT_KEYS),
    _row("pcie-switch-upstream-port", "x3130-upstream"),
    _row("pcie-switch-downstream-port", "xio3130-downstream", keys=PORT_KEYS),
    _row("pci-bridge", "pci-bridge", keys=BRIDGE_KEYS),
    _row("pcie-to-pci-bridge", "pcie-pci-bridge"),
    _row("dmi-to-pci-bridge", "i82801b11-bridge"),
    _row("pci-expander-bus", "pxb", keys=EXPANDER_KEYS),
    _row("pcie-expander-bus", "pxb-pcie", keys=EXPANDER_KEYS),
    _row("pci-root", "spapr-pci-host-bridge", keys=PHB_KEYS, bus=Bus.NONE),
)
