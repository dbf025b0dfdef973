"""-serial, -parallel, -debugcon and the serial -devices become <serial>, <parallel> and <console>.

What `-serial` makes depends on the machine: an ISA port on a PC, the board's
own UART on ARM and RISC-V, a paravirtual terminal on POWER, SCLP on s390. The
first <serial> stands a second time as a <console>, as libvirt has it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtsnap.convert.build import bus_of, place
from virtsnap.convert.consoles.chardevs import can_have, find_chardev, put_chardev, read_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.machines import ARM, MachineFamily
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Version, read_keys
from virtsnap.convert.values import number_up_to
from virtsnap.domain_xml.templates import Element

DEBUGCON_SINCE: Version = (8, 1)


@dataclass(frozen=True, kw_only=True)
class Port:
    """What -serial makes on a machine: libvirt's target type and model (None: the board's own, without a word)."""

    target_type: str | None
    model: str | None


ISA = Port(target_type="isa-serial", model="isa-serial")
PL011 = Port(target_type="system-serial", model="pl011")
UART_16550A = Port(target_type="system-serial", model="16550a")
VTY = Port(target_type="spapr-vio-serial", model="spapr-vty")
SCLP = Port(target_type="sclp-serial", model="sclpconsole")
SCLP_LINE_MODE = Port(target_type="sclp-serial", model="sclplmconsole")
BOARD = Port(target_type=None, model=None)

# The ports of a machine family in the order of -serial; the last one stands for all that follow.
# Source: serial_hd() in QEMU's hw/*/; libvirt's qemuDomainChrDefPostParse().
FAMILY_PORTS: Mapping[str, tuple[Port, ...]] = {
    "pc": (ISA,),
    "q35": (ISA,),
    "isapc": (ISA,),
    "microvm": (ISA,),
    "pseries": (VTY,),
    "s390-ccw-virtio": (SCLP, SCLP_LINE_MODE),
}
# <serial>s of these kinds stand as a <console> too (virDomainDefAddConsoleCompat() in libvirt's domain_conf.c).
CONSOLE_TARGETS = frozenset({"isa-serial", "system-serial", "spapr-vio-serial", "sclp-serial"})
WITHOUT_PARALLEL = frozenset({"virt", "pseries", "s390-ccw-virtio", "microvm", "xenpv"})


def convert_serials(draft: Draft) -> None:
    """Convert -serial, -parallel and -debugcon, which the machine makes before any -device."""
    for index, word in enumerate(draft.said("serial")):
        if word.aside:
            continue
        port = _port(draft, index)
        _convert_short_form(draft, word, "serial", {
            "target_type": port.target_type, "model": port.model, "port": str(index),
        })
    for index, word in enumerate(draft.said("parallel")):
        if draft.machine.family.name in WITHOUT_PARALLEL:
            word.claim_rest(Outcome.IMPLIED, "the machine has no parallel port")
        elif not word.aside:
            _convert_short_form(draft, word, "parallel", {"port": str(index)})
    if draft.knows(DEBUGCON_SINCE):
        for word in draft.group("debugcon"):
            _convert_short_form(draft, word, "serial", {
                "target_type": "isa-debug", "model": "isa-debugcon", "port": _next_port(draft, "serial"),
                "iobase": _debugcon_iobase(draft),
            })


def convert_consoles(draft: Draft) -> None:
    """Let the first <serial> stand as the first <console> too, and number the consoles."""
    first = draft.devices.find("serial")
    consoles = draft.devices.findall("console")
    if first is not None and _target(first).get("type") in CONSOLE_TARGETS:
        stub = draft.fill("console", {"target_type": "serial", "port": _target(first).get("port")})
        stub.set("type", first.get("type") or "pty")
        for index, child in enumerate(child for child in first if child.tag not in {"target", "alias", "address"}):
            stub.insert(index, copy.deepcopy(child))
        stub.extend(copy.deepcopy(address) for address in first.findall("address"))
        before = consoles[0] if consoles else draft.devices.findall("serial")[-1].getnext()
        if before is None:
            draft.devices.append(stub)
        else:
            before.addprevious(stub)
        consoles = [stub, *consoles]
    for index, console in enumerate(consoles):
        if _target(console).get("type") != "serial":
            _target(console).set("port", str(index))


def _target(element: Element) -> Element:
    target = element.find("target")
    assert target is not None, "every template of a port has a <target>"
    return target


def _port(draft: Draft, index: int) -> Port:
    family: MachineFamily = draft.machine.family
    if family.name == "virt":
        return PL011 if draft.machine.arch in ARM else UART_16550A
    ports = FAMILY_PORTS.get(family.name, (BOARD,))
    return ports[min(index, len(ports) - 1)]


def _next_port(draft: Draft, tag: str) -> str:
    ports = [int(_target(other).get("port") or 0) for other in draft.devices.findall(tag)]
    return str(max(ports, default=-1) + 1)


def _debugcon_iobase(draft: Draft) -> str | None:
    """Take the I/O port that -global sets, as edk2's users do: `-global isa-debugcon.iobase=0x402`."""
    iobase = None
    for word in draft.group("global"):
        if word.peek("driver") == "isa-debugcon" and word.peek("property") == "iobase":
            iobase = word.take_read("value", IOBASE.read)
            word.claim_rest(Outcome.MAPPED)
    return iobase


def _convert_short_form(draft: Draft, word: Word, template: str, holes: dict[str, str | None]) -> None:
    """Convert an option that carries its backend in itself, or names a -chardev by `chardev:ID`."""
    if word.peek("backend") == "none":
        word.claim_rest(Outcome.IMPLIED)
        return
    backend: Word | None = word
    if word.peek("backend") == "chardev":
        backend = find_chardev(draft, word, "id")
    source = read_chardev(draft, backend)
    if source is None:
        return
    if source.word is not word:
        word.claim_rest(Outcome.MAPPED)
    element = draft.fill(template, holes)
    source.put_into(element)
    draft.add(element, word, source.word)


def _build_serial(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Build a port that a -device makes; QEMU counts ISA ports by themselves, all others just in order."""
    if not can_have(draft, find_chardev(draft, word)):
        return
    driver = word.take("driver") or ""
    holes: dict[str, str | None] = {**row.holes, "port": _next_port(draft, row.template)}
    if row.holes.get("target_type") == "isa-serial":
        ports = [_target(other) for other in draft.devices.findall("serial")]
        holes["port"] = str(sum(port.get("type") == "isa-serial" for port in ports))
    if row.holes.get("target_type") == "isa-debug":
        holes["iobase"] = _debugcon_iobase(draft)
    element = draft.fill(row.template, holes | read_keys(word, row.keys, draft.target))
    word.claim("id", Outcome.IMPLIED)
    put_chardev(draft, element, word)
    draft.add(element, word)
    place(draft, word, element, bus_of(row, driver, draft))


def _build_sclp(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Build an SCLP console: <console>, or a <serial> where its id is what libvirt calls one."""
    if not can_have(draft, find_chardev(draft, word)):
        return
    word.take("driver")
    if (word.peek("id") or "").startswith("serial"):
        element = draft.fill("serial", {
            "target_type": "sclp-serial", "model": row.holes["serial_model"], "port": _next_port(draft, "serial"),
        })
    else:
        element = draft.fill("console", {"target_type": row.holes["target_type"], "port": "0"})
    word.claim("id", Outcome.IMPLIED)
    put_chardev(draft, element, word)
    draft.add(element, word)


def _hex_up_to(limit: int, width: int = 0) -> Callable[[str], str]:
    """Make a reader that gives a number in hexadecimal, of so many digits at least."""
    within = number_up_to(limit)
    return lambda value: f"0x{int(within(value)):0{width}x}"


IOBASE = Key(key="iobase", hole="iobase", read=_hex_up_to(0xFFFF))
ISA_KEYS: tuple[Key, ...] = (
    Key(key="index", hole="port", read=number_up_to(0xFFFF)),
    IOBASE,
    Key(key="irq", hole="irq", read=_hex_up_to(0xF)),
)

ROWS = (
    DeviceRow(
        drivers=("isa-serial",), template="serial", bus=Bus.ISA, build=_build_serial, keys=ISA_KEYS,
        holes={"target_type": "isa-serial", "model": "isa-serial"},
    ),
    DeviceRow(
        # libvirt tells QEMU neither number nor address of a parallel port
        drivers=("isa-parallel",), template="parallel", bus=Bus.NONE, build=_build_serial,
    ),
    DeviceRow(
        drivers=("pci-serial",), template="serial", bus=Bus.PCI, build=_build_serial,
        holes={"target_type": "pci-serial", "model": "pci-serial"},
    ),
    DeviceRow(
        drivers=("usb-serial",), template="serial", bus=Bus.USB, build=_build_serial,
        holes={"target_type": "usb-serial", "model": "usb-serial"},
    ),
    DeviceRow(
        drivers=("spapr-vty",), template="serial", bus=Bus.SPAPR_VIO, build=_build_serial,
        keys=(Key(key="reg", hole="reg", read=_hex_up_to(0xFFFFFFFF, 8)),),
        holes={"target_type": "spapr-vio-serial", "model": "spapr-vty"},
    ),
    DeviceRow(
        drivers=("isa-debugcon",), template="serial", bus=Bus.ISA, build=_build_serial, since=DEBUGCON_SINCE,
        keys=(IOBASE,),
        holes={"target_type": "isa-debug", "model": "isa-debugcon"},
    ),
    DeviceRow(
        drivers=("sclpconsole",), template="console", bus=Bus.NONE, build=_build_sclp,
        holes={"target_type": "sclp", "serial_model": "sclpconsole"},
    ),
    DeviceRow(
        drivers=("sclplmconsole",), template="console", bus=Bus.NONE, build=_build_sclp,
        holes={"target_type": "sclplm", "serial_model": "sclplmconsole"},
    ),
)
