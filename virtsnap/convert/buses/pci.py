"""PCI addresses as QEMU would give them, and the numbers that libvirt gives to PCI buses.

QEMU plugs devices one after another (plugging.py), each without an address
into the first free slot of its bus. libvirt assigns by rules of its own, so
every address is worked out here and written down.

A PCI bus is known to QEMU by a name (`pci.0`, or the id of the bridge that
makes it), to libvirt by the index of its controller. The indices have no
gaps, because libvirt fills a gap with a controller of its own, and one is
larger than that of the bus that its controller sits on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.command_line.keyval import Property
from virtsnap.convert.buses.plugging import Order, Plugged, plug_order, when_plugged
from virtsnap.convert.head.machines import Machine
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.domain_xml.templates import Element
from virtsnap.errors import CommandLineError

__all__ = ["PciBus", "PciFunction", "PciTopology", "Plugged", "parse_devfn"]

Devfn = tuple[int, int]
SLOTS = 32
# Here a guest knows PCI functions by the numbers of their zpci, not by their slots.
SLOTLESS = frozenset({"s390-ccw-virtio"})
# Names under which command lines know the PCI bus of a board; which one it is, only QEMU's board knows.
BOARD_NAMES = frozenset({"pci", "pci.0", "pcie", "pcie.0"})


@dataclass(kw_only=True, eq=False)
class PciFunction:
    """One device on a PCI bus: where it asked to be, and where it ends up."""

    order: Order
    bus: str | None
    devfn: Devfn | None
    element: Element | None
    word: Word | None
    multifunction: str | None = None


@dataclass(kw_only=True, eq=False)
class PciBus:
    """One PCI bus.

    `controller` is libvirt's element, `parent` the function that makes the bus
    (None: a host bridge, made at `order`). Devices may sit in the slots below
    `slots`; `lowest` is the first one that libvirt accepts.
    """

    name: str
    controller: Element | None
    parent: PciFunction | None
    wanted_index: int | None
    order: Order = (0, 0, 0)
    slots: int = SLOTS
    lowest: int = 0
    index: int = -1
    taken: dict[Devfn, object] = field(default_factory=dict)

    @property
    def alias(self) -> str:
        """The name of the bus in the QEMU that libvirt starts."""
        own = None if self.controller is None else self.controller.find("alias")
        name = f"pci.{self.index}" if own is None else own.get("name") or ""
        # A host bridge that is a -device of its own (pseries) numbers the buses behind it.
        return f"{name}.0" if self.parent is None else name


def parse_devfn(text: str) -> Devfn:
    """Read `addr`: SLOT or SLOT.FUNCTION, both hexadecimal with or without 0x; raises ValueError."""
    slot, _, function = text.partition(".")
    try:
        pair = (int(slot, 16), int(function or "0", 16))
    except ValueError:
        pair = (-1, -1)
    if not (0 <= pair[0] < SLOTS and 0 <= pair[1] < 8):
        raise ValueError(f"{text!r} is not a PCI slot and function")
    return pair


class PciTopology:
    """All PCI buses and functions of one machine; filled by the subjects, resolved by `assign`."""

    def __init__(self, machine: Machine) -> None:
        self._functions: list[PciFunction] = []
        self._buses: dict[str, PciBus] = {}
        self._sequence = 0
        self._family = machine.family.name
        # Nothing is known of what a board has built in, so that no free slot of it is known.
        self._guesses = machine.family.name != "board"
        self.root: PciBus | None = None
        family = machine.family
        if family.pci_root is not None:
            lowest = 1 if family.pci_root_model == "pci-root" else 0
            self.root = PciBus(name=family.pci_root, controller=None, parent=None, wanted_index=0, lowest=lowest)
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

        Reads `bus`, `addr` and `multifunction` of a -device, and claims them
        once the bus is known; with `element` None the device is QEMU's alone
        (passed through) and only takes its slot. A word that is here already
        keeps its turn. Raises CommandLineError for an address that is none.
        """
        known = next((each for each in self._functions if word is not None and each.word is word), None)
        if known is not None and (element is None or known.element is not None):
            return known
        multifunction = None
        if word is not None:
            plugged = plugged or when_plugged(word)
            if word.group == "device":
                bus, addr, multifunction = word.peek("bus"), word.peek("addr"), word.peek("multifunction")
        self._sequence += 1
        function = PciFunction(
            order=plug_order(word, plugged or Plugged.BUILTIN, self._sequence, self._family), bus=bus,
            devfn=_read_devfn(word, addr), element=element, word=word, multifunction=multifunction,
        )
        if known is None:
            self._functions.append(function)
        else:
            function.order = known.order
            self._functions[self._functions.index(known)] = function
        return function

    def add_bus(
        self, name: str, controller: Element | None, parent: PciFunction | None, *, index: int | None = None,
        slots: int = SLOTS, lowest: int = 0, word: Word | None = None,
    ) -> PciBus:
        """Add a bus that a bridge, port or host bridge makes; `name` is the id of the device that makes it."""
        order = plug_order(word, when_plugged(word), 0) if word is not None else (0, 0, 0)
        bus = PciBus(
            name=name, controller=controller, parent=parent, wanted_index=index, slots=slots, lowest=lowest,
            order=order,
        )
        self._buses[name] = bus
        return bus

    @property
    def used(self) -> bool:
        """Whether a device of libvirt's sits on a PCI bus."""
        return any(function.element is not None for function in self._functions)

    def knows(self, name: str | None) -> bool:
        """Tell whether a bus of that name (None: the root) is here."""
        return self.root is not None if name is None else self._named(name) is not None

    def bus_of(self, function: PciFunction) -> PciBus | None:
        """Give the bus of a function, or None where nothing here makes it.

        A device that names none goes to the host bridge that was made last:
        qbus_find_recursive() in QEMU's softmmu/qdev-monitor.c meets the newest device first.
        """
        if function.bus is not None:
            return self._named(function.bus)
        hosts = [bus for bus in self._buses.values() if bus.parent is None and bus.order <= function.order]
        return max(hosts, key=lambda bus: bus.order, default=None)

    def path(self, function: PciFunction) -> tuple[Order, ...]:
        """Give the turns of a function and of all above it, the host bridge's first.

        Of two devices QEMU's search for a bus meets that with the larger path first.
        """
        bus = self.bus_of(function)
        if bus is None:
            return (function.order,)
        above = self.path(bus.parent) if bus.parent is not None else (bus.order,)
        return (*above, function.order)

    def assign(self) -> list[tuple[Element, Property]]:
        """Give every function its slot and every bus its index, and write the <address> elements.

        Returns what libvirt cannot be told of them, to be kept by <qemu:override>.
        """
        functions = sorted(self._functions, key=lambda function: function.order)
        for function in functions:
            bus = self.bus_of(function)
            if bus is not None and function.devfn is not None:
                bus.taken.setdefault(function.devfn, function)
        for function in functions:
            bus = self.bus_of(function)
            if bus is not None and function.devfn is None and (self._guesses or bus is not self.root):
                function.devfn = _first_free(bus, 0)
                if function.devfn is not None:
                    bus.taken[function.devfn] = function
        _number(self.root, self._buses.values(), {id(bus): self._above(bus) for bus in self._buses.values()})
        moved = [each for function in functions for each in self._write(function)]
        for function in functions:
            self._hold(function)
        return moved

    def _named(self, name: str) -> PciBus | None:
        found = self._buses.get(name) or self._buses.get(name.removesuffix(".0"))
        if found is None and self._family == "board" and name in BOARD_NAMES:
            return self.root
        return found

    def _above(self, bus: PciBus) -> PciBus | None:
        return None if bus.parent is None else self.bus_of(bus.parent)

    def _write(self, function: PciFunction) -> Iterable[tuple[Element, Property]]:
        bus = self.bus_of(function)
        if bus is None or function.devfn is None:
            return
        slot, number = function.devfn
        if function.element is None:
            return
        if slot < bus.lowest:
            free = _first_free(bus, bus.lowest)
            if free is None:
                return
            bus.taken[free] = function
            if self._family not in SLOTLESS:
                yield function.element, Property(key="addr", value=f"0x{slot:x}.0x{number:x}")
            slot, number = free
        address = _put_address(function.element, bus.index, (slot, number))
        if function.multifunction is not None:
            address.set("multifunction", "on" if function.multifunction in {"on", "true", "yes"} else "off")
        if function.word is not None and function.word.group == "device":
            for key in ("bus", "addr", "multifunction"):
                function.word.claim(key, Outcome.MAPPED)

    def _hold(self, function: PciFunction) -> None:
        """Give a device whose bus nothing here makes some free slot in libvirt's eyes, the last there is.

        Bus and address of its own stay as they are said, by override. Without an
        address libvirt would choose one, and on PCI Express add a port for it.
        """
        if function.element is None or self.bus_of(function) is not None or self.root is None or not self._guesses:
            return
        free = next((slot for slot in reversed(range(SLOTS)) if self._is_free(slot)), None)
        if free is not None:
            self.root.taken[(free, 0)] = function
            _put_address(function.element, 0, (free, 0))

    def _is_free(self, slot: int) -> bool:
        assert self.root is not None
        return not any((slot, number) in self.root.taken for number in range(8))

    def passthrough_address(self, word: Word) -> dict[str, str]:
        """Give bus and addr to write for a device that is passed through, after `assign`."""
        for function in self._functions:
            bus = self.bus_of(function) if function.word is word and function.element is None else None
            if bus is not None and function.devfn is not None:
                slot, number = function.devfn
                alias = bus.name if bus is self.root else bus.alias
                return {"bus": alias, "addr": f"0x{slot:x}.0x{number:x}"}
        return {}

    def alias_of(self, name: str) -> str | None:
        """Give the name that a bus other than the first has under libvirt, after `assign`."""
        bus = self._named(name)
        return None if bus is None or bus is self.root else bus.alias


def _put_address(element: Element, bus: int, devfn: Devfn) -> Element:
    slot, number = devfn
    return etree.SubElement(
        element, "address", type="pci", domain="0x0000", bus=f"0x{bus:02x}", slot=f"0x{slot:02x}",
        function=f"0x{number:x}",
    )


def _read_devfn(word: Word | None, addr: str | None) -> Devfn | None:
    if not addr or addr == "-1":
        return None
    try:
        return parse_devfn(addr)
    except ValueError as exc:
        option = None if word is None else word.option
        where = "" if option is None else f"{option.text}: "
        raise CommandLineError(
            f"{where}{exc}", argument=None if option is None else option.last,
            hint="give SLOT or SLOT.FUNCTION in hexadecimal, such as 1f.2",
        ) from exc


def _first_free(bus: PciBus, start: int) -> Devfn | None:
    """Give the first slot whose function 0 is free: do_pci_register_device() in QEMU's hw/pci/pci.c."""
    return next(((slot, 0) for slot in range(start, bus.slots) if (slot, 0) not in bus.taken), None)


def _number(root: PciBus | None, buses: Iterable[PciBus], above: dict[int, PciBus | None]) -> None:
    """Give every bus its index: that of its id where this keeps the order and leaves no gap, else the next one."""
    if root is not None:
        root.index = 0
    others = [bus for bus in buses if bus is not root]
    used = {0} | {bus.wanted_index for bus in others if bus.wanted_index is not None}
    given = {0}
    for bus in sorted(others, key=lambda bus: bus.order):
        parent = above[id(bus)]
        least = 0 if parent is None else parent.index
        bus.index = bus.wanted_index if bus.wanted_index is not None else -1
        if bus.index <= least or bus.index in given:
            bus.index = next(n for n in range(max(least, 0) + 1, 10_000) if n not in used | given)
        given.add(bus.index)
    for index, bus in enumerate(sorted(others, key=lambda bus: bus.index), start=1):
        bus.index = index
        if bus.controller is not None:
            bus.controller.set("index", str(index))
