"""The domain's head, all that stands outside <devices>: many subjects fill one element.

`-machine`, `-cpu` and `-accel` all have something to say in <features>. So the
subjects only put values into the holes of domain_templates/head/*.xml, and at the
end every template is filled once and merged into the domain. Where each child
stands is libvirt's own order (virDomainDefFormatInternalSetRootName() in domain_conf.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from lxml import etree

from virtsnap.convert.ledger import Word
from virtsnap.convert.rows import Key, Version, read_keys
from virtsnap.domain_xml.templates import Element, Templates

TEMPLATES = ("memoryBacking", "os", "features", "cpu", "clock", "pm", "keywrap", "lifecycle")

ORDER: Mapping[str, tuple[str, ...]] = {
    "domain": (
        "name", "uuid", "genid", "title", "description", "metadata", "maxMemory", "memory", "currentMemory",
        "memtune", "memoryBacking", "vcpu", "vcpus", "iothreads", "iothreadids", "defaultiothread", "cputune",
        "numatune", "sysinfo", "os", "features", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "pm",
        "throttlegroups", "devices", "seclabel", "keywrap", "launchSecurity",
    ),
    "os": (
        "type", "firmware", "loader", "nvram", "kernel", "initrd", "cmdline", "shim", "dtb", "acpi", "boot",
        "bootmenu", "bios", "smbios",
    ),
    "memoryBacking": (
        "hugepages", "nosharepages", "locked", "source", "access", "allocation", "discard",
    ),
    "cpu": ("model", "vendor", "topology", "cache", "maxphysaddr", "feature", "numa"),
    "numa": ("cell", "interconnects"),
    "sysinfo": ("bios", "system", "baseBoard", "chassis", "oemStrings", "entry"),
}  # fmt: skip


class Head:
    """What the subjects have said so far, by template, with the words that said it."""

    def __init__(self) -> None:
        self._holes: dict[str, dict[str, str | None]] = {}
        self._said: list[tuple[str, str, Word]] = []
        self._children: list[tuple[str, Element]] = []

    def append(self, path: str, element: Element, *words: Word) -> Element:
        """Give the element at a path (`os`, `cpu/numa`) one more child."""
        self._children.append((path, element))
        for word in words:
            word.land(element)
        return element

    def put(self, template: str, holes: Mapping[str, str | None], *words: Word) -> None:
        """Fill holes of one template; a later value replaces an earlier one."""
        self._holes.setdefault(template, {}).update(holes)
        for word in words:
            self._said += [(template, hole, word) for hole, value in holes.items() if value is not None]

    def get(self, template: str, hole: str) -> str | None:
        """Give what a hole holds so far."""
        return self._holes.get(template, {}).get(hole)

    def put_keys(self, template: str, keys: Iterable[Key], words: Iterable[Word], target: Version) -> None:
        """Read a table of keys from words of one group, in order, into the holes of one template."""
        rows = tuple(keys)
        for word in words:
            self.put(template, read_keys(word, rows, target), word)

    def finish(self, root: Element, templates: Templates) -> None:
        """Write what the subjects have put into the domain, and bring all children into libvirt's order."""
        self._write(root, templates)
        for element in [root, *root.iter("os", "memoryBacking", "cpu", "numa", "sysinfo")]:
            order = ORDER.get(str(element.tag))
            if order is None or element.getparent() not in (None, root, root.find("cpu")):
                continue
            rank = {tag: number for number, tag in enumerate(order)}
            element[:] = sorted(element, key=lambda child: rank.get(str(child.tag), len(rank)))

    def _write(self, root: Element, templates: Templates) -> None:
        """Fill the templates and merge them into the domain; every word lands where its value stands."""
        for template in TEMPLATES:
            holes = {name: value for name, value in self._holes.get(template, {}).items() if value is not None}
            if not holes:
                continue
            filled = templates.fill(f"head/{template}", holes)
            target = _merge(root, filled)
            places = templates.places(f"head/{template}")
            for name, hole, word in self._said:
                if name == template:
                    word.land(_at(target, places.get(hole, "")))
        for path, element in self._children:
            child_at(root, path).append(element)


def child_at(root: Element, path: str) -> Element:
    """Give the element at a path below the domain (`features/acpi`), making what is missing; "" is the domain."""
    here = root
    for tag in filter(None, path.split("/")):
        found = here.find(tag)
        here = etree.SubElement(here, tag) if found is None else found
    return here


def _merge(root: Element, filled: Element) -> Element:
    """Put the children and attributes of `filled` into the domain's element of that name."""
    if filled.tag == "lifecycle":
        for child in list(filled):
            root.append(child)
        return root
    target = root.find(str(filled.tag))
    if target is None:
        root.append(filled)
        return filled
    for key, value in filled.attrib.items():
        target.set(key, value)
    for child in list(filled):
        target.append(child)
    return target


def _at(element: Element, place: str) -> Element:
    """Give the element at a place such as `features/smm/@state`, or the nearest above it that is there."""
    path = re.sub(r"/@.*$", "", place).partition("/")[2]
    if not path:
        return element
    found = element.find(path)
    return element if found is None else found
