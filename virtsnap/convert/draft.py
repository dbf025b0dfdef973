"""The domain in the making: what every subject module reads, and where it adds its part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lxml import etree

from virtsnap.command_line.keyval import Property
from virtsnap.command_line.options import CommandLine
from virtsnap.convert.buses.controllers import Controllers
from virtsnap.convert.buses.pci import PciTopology
from virtsnap.convert.buses.usb_ports import UsbPorts
from virtsnap.convert.head.head import Head, child_at
from virtsnap.convert.head.machines import Machine
from virtsnap.convert.ledger import Word, words_of
from virtsnap.convert.rows import Version
from virtsnap.convert.values import absolute_path
from virtsnap.domain_xml.templates import Element, Templates

Part = TypeVar("Part")

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

# Which key names the thing that an option of a group defines.
ID_KEYS: Mapping[str, str] = {
    "device": "id", "drive": "id", "blockdev": "node-name", "netdev": "id", "chardev": "id", "object": "id",
    "audiodev": "id", "fsdev": "id", "tpmdev": "id",
}


class Draft:
    """One conversion under way.

    `words` are the options with their account, those that QEMU adds by itself
    (`Word.implied`) at the end. `root` is the <domain>, made from the
    machine's template; `devices` its <devices>.
    """

    def __init__(
        self,
        command_line: CommandLine,
        machine: Machine,
        *,
        target: Version,
        templates: Templates,
        name: str,
        base: Path,
        find_program: Callable[[str], str | None] | None = None,
    ) -> None:
        self.command_line = command_line
        self.machine = machine
        self.target = target
        self.templates = templates
        self.name = name
        self.base = base
        self.find_program = find_program
        self.words: list[Word] = words_of(command_line.options)
        self.warnings: list[str] = []
        self.overrides: list[tuple[Element, Property]] = []
        self.head = Head()
        self.extra_arguments: list[str] = []
        self.extra_words: list[Word] = []
        self.pci = PciTopology(machine)
        self.controllers = Controllers({word.peek("id") or "" for word in self.said("device")})
        self.usb = UsbPorts(self.pci, lambda: self.add(self.fill("hub", {})))
        self._parts: dict[type[Any], Any] = {}
        self.root: Element = etree.Element("domain")
        self.devices: Element = etree.SubElement(self.root, "devices")

    def start(self, root: Element) -> None:
        """Take the filled machine template as the domain."""
        self.root = root
        devices = root.find("devices")
        self.devices = etree.SubElement(root, "devices") if devices is None else devices

    def group(self, *names: str) -> list[Word]:
        """Give the words of some groups that can be converted, in the order of the command line."""
        return [word for word in self.said(*names) if not word.aside]

    def said(self, *names: str) -> list[Word]:
        """Give all words of some groups, those too that are set aside: what QEMU sees of the command line."""
        return [word for word in self.words if word.group in names]

    def last(self, name: str) -> Word | None:
        """Give the last word of a group: for most plain options it is the one that counts."""
        words = self.group(name)
        return words[-1] if words else None

    def find(self, id_: str | None, *groups: str) -> Word | None:
        """Give the word that defines an id, looking in the groups in their order."""
        if id_ is None:
            return None
        for group in groups:
            for word in self.group(group):
                if word.peek(ID_KEYS.get(group, "id")) == id_:
                    return word
        return None

    def devices_of(self, drivers: Sequence[str]) -> Iterator[Word]:
        """Give the -device words of some drivers, in order."""
        for word in self.group("device"):
            if word.peek("driver") in drivers:
                yield word

    def fill(self, template: str, holes: Mapping[str, str | None]) -> Element:
        """Fill a template of domain_templates/devices/."""
        return self.templates.fill(f"devices/{template}", holes)

    def add(self, element: Element, *words: Word) -> Element:
        """Append a device to <devices> and note which words it stands for."""
        self.devices.append(element)
        for word in words:
            word.land(element)
        return element

    def override(self, device: Element, item: Property) -> None:
        """Have QEMU start one of libvirt's devices with another value of a property (<qemu:override>, 8.2 on)."""
        self.overrides.append((device, item))

    def child(self, path: str) -> Element:
        """Give the element at a path below the domain (`features/acpi`), making what is missing."""
        return child_at(self.root, path)

    def knows(self, since: Version) -> bool:
        """Tell whether the libvirt that this is written for has what came with a version."""
        return self.target >= since

    def absolute(self, path: str) -> str:
        """Give the path of a file as an absolute one; raises NotSayable where libvirt has no room for it."""
        return absolute_path(self.in_base(path))

    def in_base(self, path: str) -> str:
        """Give a path from the folder in which the command line was written; relative ones start at `base`."""
        return path if path.startswith("/") else os.path.normpath(self.base / path)

    def part(self, kind: type[Part]) -> Part:
        """Give what one subject keeps for this conversion: an object of its class, made at the first asking."""
        if kind not in self._parts:
            self._parts[kind] = kind()
        part: Part = self._parts[kind]
        return part

    def pass_on(self, arguments: Sequence[str], *words: Word) -> None:
        """Give QEMU arguments of its own by <qemu:commandline>, for what some words say and libvirt cannot."""
        self.extra_arguments += arguments
        self.extra_words += words

    def warn(self, text: str) -> None:
        """Add a warning to the report, once."""
        if text not in self.warnings:
            self.warnings.append(text)
