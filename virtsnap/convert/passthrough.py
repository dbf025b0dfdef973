"""What no subject has claimed goes to QEMU as it stands.

A single property of a device that libvirt has is kept by <qemu:override>, so
that the device stays libvirt's; whole options by <qemu:commandline>. Ids that
libvirt changes (buses) are rewritten in what is passed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lxml import etree

from virtsnap.command_line.keyval import Property, join_commas
from virtsnap.convert.draft import QEMU_NAMESPACE, Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.values import FALSE_WORDS, TRUE_WORDS
from virtsnap.domain_xml.templates import Element

QEMU = f"{{{QEMU_NAMESPACE}}}"

# <qemu:override> came with libvirt 8.2.
OVERRIDE_SINCE = (8, 2)

# QEMU properties that are on/off/auto enums: given in JSON they are strings,
# not booleans. Source: OnOffAuto properties of QEMU's hw/.
ON_OFF_AUTO = frozenset({
    "disable-legacy", "share-rw-auto", "write-cache", "page-per-vq-auto", "seg_max_adjust-auto", "ramfb-auto",
    "msi", "msix", "kernel_irqchip", "x-no-mmap-auto", "acpi-auto", "loadparm-auto", "display", "vmgenid",
    "old_msi", "intremap",
})
# Properties that are strings although their values look like numbers.
STRINGS = frozenset({"serial", "product", "ver", "vendor", "device_id", "name", "mac", "addr", "bus", "romfile"})


# Options that QEMU merges when they come again, so that a leftover key can be given on its own.
# Source: QemuOptsList.merge_lists and the keyval merges in QEMU's softmmu/vl.c.
MERGED = frozenset({"machine", "boot", "m", "smp", "overcommit", "name", "msg", "sandbox", "rtc"})


def convert_rest(draft: Draft) -> None:
    """Pass on what is left: properties of libvirt's devices by override, the rest by commandline."""
    overrides: dict[int, tuple[Element, list[Property]]] = {}
    for element, item in draft.overrides:
        overrides.setdefault(id(element), (element, []))[1].append(item)
    args: list[str] = [*draft.made_up]
    whole: list[Word] = []
    passed: list[Word] = []
    for word in draft.words:
        left = word.unclaimed()
        if word.implied:
            continue
        if word.untouched or (word.outcome is Outcome.PASSTHROUGH and not left and not word.elements):
            if word.untouched:
                draft.warn(f"{word.option.text}: passed through to QEMU as it stands")
            word.claim_rest(Outcome.PASSTHROUGH)
            whole.append(word)
            passed.append(word)
        elif left and word.group == "device" and word.elements and draft.knows(OVERRIDE_SINCE):
            overrides.setdefault(id(word.elements[0]), (word.elements[0], []))[1].extend(left)
            word.claim_rest(Outcome.PASSTHROUGH, f"{_names(left)}: kept by <qemu:override>")
        elif word.passed_as is not None and word.elements:
            args += word.passed_as
            word.claim_rest(Outcome.PASSTHROUGH)
            passed.append(word)
        elif left and word.group in MERGED:
            args += [f"-{word.group}", join_commas([(item.key, item.value) for item in left])]
            word.claim_rest(Outcome.PASSTHROUGH, f"{_names(left)}: kept by <qemu:commandline>")
            passed.append(word)
        elif left:
            word.claim_rest(Outcome.DROPPED, f"{_names(left)}: libvirt has no word for it")
            draft.warn(f"{word.option.text}: {_names(left)} dropped, libvirt has no word for it")
    if overrides:
        _write_overrides(draft.root, overrides.values())
    # after the overrides, which give some devices the names that others refer to
    args = [argument for word in whole for argument in _whole(draft, word)] + args
    if args:
        commandline = etree.SubElement(draft.root, QEMU + "commandline", nsmap={"qemu": QEMU_NAMESPACE})
        for argument in args:
            etree.SubElement(commandline, QEMU + "arg", value=argument)
        for word in passed:
            word.land(commandline)


def _names(items: list[Property]) -> str:
    return ", ".join(item.key for item in items)


def _whole(draft: Draft, word: Word) -> list[str]:
    """Give the words of an option that nothing but QEMU understands."""
    changes = _changes(draft, word)
    if changes:
        return [word.option.spelling, _with_changes(word, changes)]
    words = word.passed_as or word.option.words
    more = word.passed_with | draft.pci.passthrough_address(word)
    if more and words[-2:-1] == ["-device"]:
        return [*words[:-1], f"{words[-1]},{join_commas([*more.items()])}"]
    return words


def _changes(draft: Draft, word: Word) -> dict[str, str]:
    """Give the keys that must read otherwise: buses that libvirt calls otherwise, slots, relative paths."""
    if word.group == "device":
        return word.passed_with | (draft.pci.passthrough_address(word) or _bus_of_libvirt(draft, word))
    key = {"drive": "file", "blockdev": "filename"}.get(word.group)
    path = word.peek(key) if key and word.option.argument is not None else None
    if not key or not path or path.startswith("/") or ":" in path.partition("/")[0]:
        return {}
    return {key: draft.absolute(path)}


def _bus_of_libvirt(draft: Draft, word: Word) -> dict[str, str]:
    """Give the name of a bus whose controller libvirt starts: it begins with libvirt's id of the controller."""
    bus = word.peek("bus") or ""
    id_, dot, number = bus.rpartition(".")
    for controller in draft.controllers.all:
        if controller.qemu_id == (id_ or bus) and controller.qemu_id not in {"", controller.alias}:
            return {"bus": controller.alias + dot + number if id_ else controller.alias}
    return {}


def _with_changes(word: Word, changes: dict[str, str]) -> str:
    """Write an option's argument anew, some keys having other values."""
    if word.properties.json:
        document: dict[str, Any] = json.loads(word.option.argument or "{}")
        return json.dumps(document | changes)
    given = [item for item in word.properties if item.given]
    if len(given) == 1 and word.option.spelling.lstrip("-") != word.group:
        return changes[given[0].key]  # a short form: -hda FILE
    pairs = [(item.key, item.value) for item in given if item.key not in changes] + list(changes.items())
    if word.group != "device":
        return join_commas(pairs)
    driver = [value.replace(",", ",,") for key, value in pairs if key == "driver"]
    rest = [(key, value) for key, value in pairs if key != "driver"]
    return ",".join([*driver[:1], *filter(None, [join_commas(rest)])])


def _write_overrides(root: Element, overrides: Iterable[tuple[Element, list[Property]]]) -> None:
    block = etree.SubElement(root, QEMU + "override", nsmap={"qemu": QEMU_NAMESPACE})
    for number, (element, left) in enumerate(overrides):
        alias = element.find("alias")
        if alias is None:
            alias = etree.SubElement(element, "alias", name=f"ua-dev{number}")
        device = etree.SubElement(block, QEMU + "device", alias=alias.get("name") or "")
        frontend = etree.SubElement(device, QEMU + "frontend")
        for item in left:
            type_, value = override_value(item)
            etree.SubElement(frontend, QEMU + "property", name=item.key, type=type_, value=value)


def override_value(item: Property) -> tuple[str, str]:
    """Give type and value of an overriding property.

    libvirt starts devices in JSON, where QEMU is strict about types: a switch must be
    a boolean, a number a number, an on/off/auto choice a string.
    """
    value = item.value
    if item.key not in STRINGS and item.key not in ON_OFF_AUTO:
        if value.lower() in TRUE_WORDS | FALSE_WORDS and value.lower() not in {"y", "n"}:
            return "bool", "true" if value.lower() in TRUE_WORDS else "false"
        if value.isdigit():
            return "unsigned", value
        if value.startswith("-") and value[1:].isdigit():
            return "signed", value
        if value.lower().startswith("0x"):
            try:
                return "unsigned", str(int(value, 16))
            except ValueError:
                pass
    return "string", value
