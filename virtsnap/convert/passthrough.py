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
    args: list[str] = list(draft.extra_arguments)
    passed: list[Word] = list(draft.extra_words)
    for word in draft.words:
        left = word.unclaimed()
        if word.implied:
            continue
        if word.untouched or (word.outcome is Outcome.PASSTHROUGH and not left and not word.elements):
            if word.untouched:
                draft.warn(f"{word.option.text}: passed through to QEMU as it stands")
            word.claim_rest(Outcome.PASSTHROUGH)
            args += _whole(draft, word)
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
    address = draft.pci.passthrough_address(word) if word.group == "device" else {}
    if address:
        return [word.option.spelling, _with_address(word, address)]
    return word.passed_as or word.option.words


def _with_address(word: Word, address: dict[str, str]) -> str:
    """Write a device's argument anew with the bus name that libvirt gives and the slot that QEMU would choose."""
    if word.properties.json:
        document: dict[str, Any] = json.loads(word.option.argument or "{}")
        return json.dumps(document | address)
    pairs = [(item.key, item.value) for item in word.properties if item.key not in address]
    driver = next((value for key, value in pairs if key == "driver"), "")
    rest = [(key, value) for key, value in pairs if key != "driver"]
    return ",".join([driver.replace(",", ",,"), join_commas([*rest, *address.items()])])


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
