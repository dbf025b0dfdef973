"""PCI addresses as QEMU would give them, and the numbers that libvirt gives to PCI buses.

QEMU plugs devices in a fixed order, each without an address into the first
free slot of its bus. libvirt assigns by rules of its own, so every address is
worked out here and written down. Order of plugging (QEMU's softmmu/vl.c):

    the machine's own functions · -vga · network cards of -net and -nic ·
    -device in text form, in order · drives with if=virtio · -device in JSON form, in order

A PCI bus is known to QEMU by a name (`pci.0`, `ID.0` or `ID`), to libvirt by
the index of its controller; a controller's index must be larger than that of
the bus it sits on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lxml import etree

from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.machines import Machine
from virtsnap.domain_xml.templates import Element
from virtsnap.errors import CommandLineError


class Plugged(IntEnum):
    """When QEMU plugs a device, earliest first."""

    BUILTIN = 0
    VGA = 1
    NIC = 2
    DEVICE = 3
    DRIVE = 4
    DEVICE_JSON = 5


@dataclass(kw_only=True, eq=False)
class PciFunction:
    """One device on a PCI bus: where it asked to be, and where it ends up."""

    order: tuple[int, int, int]
    bus: str | None
    devfn: tuple[int, int] | None
    element: Element | None
    word: Word | None
    multifunction: str | None = None
    address: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class PciBus:
    """One PCI bus. `controller` is libvirt's element, `parent` the function that makes the bus (None: a root)."""

    name: str
    controller: Element | None
    parent: PciFunction | None
    wanted_index: int | None
    first_slot: int = 0
    index: int = -1
    taken: dict[tuple[int, int], object] = field(default_factory=dict)


def parse_devfn(text: str) -> tuple[int, int]:
    """Read `addr`: SLOT or SLOT.FUNCTION, both hexadecimal with or without 0x; raises ValueError."""
    slot, _, function = text.partition(".")
    try:
        pair = (int(slot, 16), int(function or "0", 16))
    except ValueError:
        pair = (-1, -1)
    if not (0 <= pair[0] < 32 and 0 <= pair[1] < 8):
        raise ValueError(f"{text!r} is not a PCI slot and function")
    return pair


class PciTopology:
    """All PCI buses and functions of one machine; filled by the subjects, resolved by `assign`."""

    def __init__(self, machine: Machine) -> None:
        self._functions: list[PciFunction] = []
        self._buses: dict[str, PciBus] = {}
        self._sequence = 0
        self.root: PciBus | None = None
        family = machine.family
        if family.pci_root is not None:
            self.root = PciBus(
                name=family.pci_root, controller=None, parent=None, wanted_index=0, first_slot=family.first_slot
            )
            self._buses[family.pci_root] = self.root
            for devfn, what in family.builtin_functions.items():
                self.root.taken[devfn] = what

    def reserve(self, slot: int, function: int, what: str) -> None:
        """Take a function of the root bus for something that the machine builds in."""
        if self.root is not None:
            self.root.taken[(slot, function)] = what

    def add(
        self,
        word: Word | None,
        element: Element | None,
        *,
        plugged: Plugged | None = None,
        bus: str | None = None,
        addr: str | None = None,
    ) -> PciFunction:
        """Put a device on a bus.

        Takes `bus`, `addr` and `multifunction` from the word where there is
        one; with `element` None the device is QEMU's alone (passed through)
        and only takes its slot. A word that is here already keeps its turn.
        """
        same = [function for function in self._functions if word is not None and function.word is word]
        known = same[0] if same else None
        if known is not None and (element is None or known.element is not None):
            return known
        if known is not None:
            self._functions.remove(known)
        multifunction = None
        if word is not None and word.group == "device":
            plugged = plugged or (Plugged.DEVICE_JSON if word.properties.json else Plugged.DEVICE)
            take = word.take if element is not None else word.peek
            bus, addr, multifunction = take("bus"), take("addr"), take("multifunction")
        self._sequence += 1
        try:
            devfn = parse_devfn(addr) if addr else None
        except ValueError as exc:
            option = None if word is None else word.option
            where = "" if option is None else f"{option.text}: "
            raise CommandLineError(
                f"{where}{exc}", argument=None if option is None else option.last,
                hint="give SLOT or SLOT.FUNCTION in hexadecimal, such as 1f.2",
            ) from exc
        # QEMU plugs what makes a -device, such as -virtfs, in the order of the command line.
        in_order = word is not None and plugged in {Plugged.DEVICE, Plugged.DEVICE_JSON}
        position = word.option.first if word is not None and in_order else 0
        order = (plugged or Plugged.BUILTIN, position, self._sequence) if known is None else known.order
        function = PciFunction(
            order=order, bus=bus, devfn=devfn, element=element, word=word,
            multifunction=multifunction,
        )
        self._functions.append(function)
        return function

    def add_bus(
        self, name: str, controller: Element | None, parent: PciFunction | None, *, index: int | None = None,
        first_slot: int = 0,
    ) -> PciBus:
        """Add a bus that a bridge, port or host bridge makes; `name` is the id of the device that makes it."""
        bus = PciBus(
            name=name, controller=controller, parent=parent, wanted_index=index, first_slot=first_slot
        )
        self._buses[name] = bus
        return bus

    def knows(self, name: str | None) -> bool:
        """Tell whether a bus of that name (None: the root) is here."""
        return self._find(name) is not None

    def aliases(self) -> Mapping[str, str]:
        """Give libvirt's qdev name for every bus, after `assign`: libvirt calls controller N `pci.N`."""
        names: dict[str, str] = {}
        for bus in self._buses.values():
            names[bus.name] = bus.name if bus is self.root else f"pci.{bus.index}"
        return names

    def assign(self) -> None:
        """Give every function its slot and every bus its index, and write the <address> elements."""
        functions = sorted(self._functions, key=lambda function: function.order)
        for function in functions:
            bus = self._find(function.bus)
            if bus is not None and function.devfn is not None:
                bus.taken.setdefault(function.devfn, function)
        for function in functions:
            bus = self._find(function.bus)
            if bus is not None and function.devfn is None:
                function.devfn = self._first_free(bus)
                if function.devfn is not None:
                    bus.taken[function.devfn] = function
        self._number_buses()
        for function in functions:
            self._write(function)

    def _find(self, name: str | None) -> PciBus | None:
        if name is None:
            return self.root
        return self._buses.get(name) or self._buses.get(name.removesuffix(".0"))

    @staticmethod
    def _first_free(bus: PciBus) -> tuple[int, int] | None:
        for slot in range(bus.first_slot, 32):
            if (slot, 0) not in bus.taken:
                return slot, 0
        return None

    def _number_buses(self) -> None:
        used = {0}
        if self.root is not None:
            self.root.index = 0
        pending = [bus for bus in self._buses.values() if bus is not self.root]
        for bus in pending:
            if bus.wanted_index is not None and bus.wanted_index not in used:
                bus.index = bus.wanted_index
                used.add(bus.index)
        while pending:
            ready = [bus for bus in pending if self._parent_index(bus) is not None] or pending
            for bus in ready:
                above = self._parent_index(bus)
                if bus.index < 0 or (above is not None and bus.index <= above):
                    bus.index = next(n for n in range((above or 0) + 1, 10_000) if n not in used)
                    used.add(bus.index)
                pending.remove(bus)
        for bus in self._buses.values():
            if bus.controller is not None and bus is not self.root:
                bus.controller.set("index", str(bus.index))

    def _parent_index(self, bus: PciBus) -> int | None:
        if bus.parent is None:
            return 0
        above = self._find(bus.parent.bus)
        if above is None:
            return 0
        return above.index if above.index >= 0 else None

    def _write(self, function: PciFunction) -> None:
        bus = self._find(function.bus)
        if bus is None or function.devfn is None:
            return
        slot, number = function.devfn
        if function.element is None:
            if function.word is not None:
                function.address = {"bus": self.aliases()[bus.name], "addr": f"0x{slot:x}.0x{number:x}"}
            return
        address = etree.SubElement(
            function.element, "address", type="pci", domain="0x0000", bus=f"0x{bus.index:02x}",
            slot=f"0x{slot:02x}", function=f"0x{number:x}",
        )
        if function.multifunction is not None:
            address.set("multifunction", "on" if function.multifunction in {"on", "true", "yes"} else "off")
        if function.word is not None:
            function.word.claim("addr", Outcome.MAPPED)

    def passthrough_address(self, word: Word) -> dict[str, str]:
        """Give bus and addr to write for a device that is passed through, after `assign`."""
        for function in self._functions:
            if function.word is word and function.element is None:
                return function.address
        return {}
