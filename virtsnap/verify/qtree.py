"""The text of `info qtree` becomes a tree of devices, each at its place on its bus.

No QMP command gives that tree; the text has kept its shape since QEMU 1.0
(qdev_print() in softmmu/qdev-monitor.c; the lines that a bus adds come from
its print_dev, as pcibus_dev_print() in hw/pci/pci.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Node:
    """A device as printed: `remarks` are the lines that are no property (PCI ids, BARs, mmio)."""

    driver: str
    id: str
    properties: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    buses: list[Bus] = field(default_factory=list)


@dataclass(kw_only=True)
class Bus:
    """A bus as printed, with its devices in QEMU's order (the last plugged first)."""

    name: str
    type: str = ""
    nodes: list[Node] = field(default_factory=list)


_BUS = re.compile(r"bus: (?P<name>.*)")
_DEVICE = re.compile(r'dev: (?P<driver>[^,]+), id "(?P<id>.*)"')
_PROPERTY = re.compile(r"(?P<name>[^\s=]+) = (?P<value>.*)")
# `16 (0x10)`, `4096 (4 KiB)`: the number is said twice.
_TWICE = re.compile(r"(-?\d+) \([^)]*\)")


def parse_qtree(text: str) -> Bus:
    """Read the text; raises ValueError where it is no qtree."""
    root: Bus | None = None
    # What an indent of so many blanks belongs to.
    open_: list[tuple[int, Bus | Node]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            continue
        indent = len(line) - len(line.lstrip())
        while open_ and open_[-1][0] >= indent:
            open_.pop()
        owner = open_[-1][1] if open_ else None
        if found := _BUS.fullmatch(stripped):
            bus = Bus(name=found["name"])
            if isinstance(owner, Node):
                owner.buses.append(bus)
            elif root is None:
                root = bus
            open_.append((indent, bus))
        elif (found := _DEVICE.fullmatch(stripped)) and isinstance(owner, Bus):
            node = Node(driver=found["driver"], id=found["id"])
            owner.nodes.append(node)
            open_.append((indent, node))
        elif isinstance(owner, Bus):
            owner.type = stripped.removeprefix("type ")
        elif isinstance(owner, Node):
            if found := _PROPERTY.fullmatch(stripped):
                owner.properties[found["name"]] = _value(found["value"])
            else:
                owner.remarks.append(stripped)
    if root is None:
        raise ValueError("it is no qtree: it has no bus")
    return root


def _value(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    twice = _TWICE.fullmatch(text)
    return twice[1] if twice else text


def placed(root: Bus) -> Iterator[tuple[str, str, Node]]:
    """Give (place, bus type, device) for every device; a place says nothing of ids."""
    yield from _walk(root, "")


def _walk(bus: Bus, path: str) -> Iterator[tuple[str, str, Node]]:
    counts: dict[str, int] = {}
    # QEMU prints the last plugged first: counted from the other end, the first one keeps its number.
    for node in reversed(bus.nodes):
        where = _place_on(bus.type, node)
        if where is None:
            number = counts[node.driver] = counts.get(node.driver, 0) + 1
            where = node.driver if number == 1 else f"{node.driver}#{number}"
        here = f"{path}/{where}" if path else where
        yield here, bus.type, node
        for index, inner in enumerate(node.buses):
            number_ = inner.name.rsplit(".", 1)[-1]
            label = f":{number_ if number_.isdigit() else index}" if len(node.buses) > 1 else ""
            yield from _walk(inner, here + label)


def _place_on(bus_type: str, node: Node) -> str | None:
    """Give what tells a device from its neighbours on a bus, None where its kind alone does."""
    get = node.properties.get
    kind = bus_type.lower()
    if kind.startswith("pci") and get("addr"):
        return f"pci {get('addr')}"
    if kind == "scsi" and get("scsi-id") is not None:
        return f"scsi {get('channel', '0')}:{get('scsi-id')}:{get('lun', '0')}"
    if kind == "ide" and get("unit") is not None:
        return f"unit {get('unit')}"
    if kind == "usb-bus":
        found = next((m for r in node.remarks if (m := re.search(r"port ([\d.]+)", r))), None)
        return f"port {found[1]}" if found else None
    if kind == "virtio-serial-bus" and get("nr") is not None:
        return f"nr {get('nr')}"
    if kind == "hda" and get("cad") is not None:
        return f"cad {get('cad')}"
    if kind == "floppy-bus" and get("unit") is not None:
        return f"unit {get('unit')}"
    if kind == "isa" and get("iobase") not in (None, "0"):
        return f"{node.driver} {int(get('iobase') or 0):#x}"
    if kind == "i2c-bus" and get("address") is not None:
        return f"i2c {get('address')}"
    return None
