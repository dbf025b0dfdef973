"""What no subject has claimed goes to QEMU as it stands.

A single property of a device that libvirt has is kept by <qemu:override>, so
that the device stays libvirt's; whole options by <qemu:commandline>. Ids that
libvirt changes (buses) are rewritten in what is passed on.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lxml import etree

from virtsnap.command_line.keyval import Properties, Property, join_commas, parse_keyval
from virtsnap.convert.draft import QEMU_NAMESPACE, Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.passed.passed_paths import absolute_paths
from virtsnap.convert.passed.passed_places import place_of
from virtsnap.convert.unwritten.environment import passed_environment
from virtsnap.convert.values import FALSE_WORDS, TRUE_WORDS, is_digits, parse_size_bytes
from virtsnap.domain_xml.templates import Element

QEMU = f"{{{QEMU_NAMESPACE}}}"

# Buses that the machine itself brings: they are there before any -device.
BUILT_IN_BUS = re.compile(r"(?:pci|pcie|isa)\.0|(?:ide|usb-bus)\.[0-9]+|main-system-bus")

# Devices whose port is a number; that of a USB device is a text (`1.2`).
PCI_PORT = re.compile(r"pcie-root-port|ioh3420|xio3130-downstream|cxl-.*")
# Names that a user gives, which may look like numbers.
NAMES = frozenset({"id", "drive", "chardev", "netdev", "fsdev", "memdev", "rng", "audiodev"})

# <qemu:override> came with libvirt 8.2.
OVERRIDE_SINCE = (8, 2)
# libvirt 7.9 writes -device in JSON, for QEMU 6.2 and later.
JSON_SINCE = (7, 9)

# QEMU properties that are on/off/auto enums: given in JSON they are strings,
# not booleans. Source: OnOffAuto properties of QEMU's hw/.
ON_OFF_AUTO = frozenset({
    "disable-legacy", "share-rw-auto", "write-cache", "page-per-vq-auto", "seg_max_adjust-auto", "ramfb-auto",
    "msi", "msix", "kernel_irqchip", "x-no-mmap-auto", "acpi-auto", "loadparm-auto", "display", "vmgenid",
    "old_msi", "intremap",
})
# Properties that are strings although their values look like numbers.
STRINGS = frozenset({
    "serial", "product", "ver", "vendor", "device_id", "name", "mac", "addr", "bus", "romfile", "driver", "id",
    "drive", "netdev", "chardev", "memdev", "audiodev", "iothread", "host", "x-speed", "x-width",
})


# Options that QEMU merges when they come again, so that a leftover key can be given on its own.
# Source: QemuOptsList.merge_lists and the keyval merges in QEMU's softmmu/vl.c.
MERGED = frozenset({"machine", "boot", "m", "smp", "overcommit", "name", "msg", "sandbox", "rtc"})


def convert_rest(draft: Draft) -> None:
    """Pass on what is left: properties of libvirt's devices by override, the rest by commandline."""
    overrides: dict[int, tuple[Element, list[Property]]] = {}
    for element, item in draft.overrides:
        overrides.setdefault(id(element), (element, []))[1].append(item)
    args: list[str] = list(draft.extra_arguments)
    whole: list[Word] = []
    passed: list[Word] = list(draft.extra_words)
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
        elif left and (device := _device_of(draft, word)) is not None and draft.knows(OVERRIDE_SINCE):
            overrides.setdefault(id(device), (device, []))[1].extend(left)
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
    environment = passed_environment(draft, QEMU + "env")
    if args or environment:
        commandline = etree.SubElement(draft.root, QEMU + "commandline", nsmap={"qemu": QEMU_NAMESPACE})
        for argument in _behind_libvirts(args) if draft.knows(JSON_SINCE) else args:
            etree.SubElement(commandline, QEMU + "arg", value=argument)
        commandline.extend(environment)
        for word in passed:
            word.land(commandline)


def _device_of(draft: Draft, word: Word) -> Element | None:
    """Give the device of libvirt's that a -device became; features and the like have no properties to override."""
    if word.group != "device":
        return None
    return next((element for element in word.elements if element.getparent() is draft.devices), None)


def _names(items: list[Property]) -> str:
    return ", ".join(item.key for item in items)


def _whole(draft: Draft, word: Word) -> list[str]:
    """Give the words of an option that nothing but QEMU understands."""
    if word.group == "device":
        changes = absolute_paths(draft, word) | word.passed_with | place_of(draft, word)
        if changes:
            return [word.option.spelling, _with_changes(word, changes)]
    elif word.passed_as is None:
        changes = absolute_paths(draft, word)
        if changes:
            return [word.option.spelling, _with_changes(word, changes)]
    words = word.passed_as or word.option.words
    more = word.passed_with | draft.pci.passthrough_address(word)
    if more and words[-2:-1] == ["-device"]:
        return [*words[:-1], f"{words[-1]},{join_commas([*more.items()])}"]
    return words


def _with_changes(word: Word, changes: dict[str, str]) -> str:
    """Write an option's argument anew, some keys having other values."""
    if word.properties.json:
        document: dict[str, Any] = json.loads(word.option.argument or "{}")
        return json.dumps(document | {key: _json_change(document, key, changes[key]) for key in changes})
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


def _behind_libvirts(args: Iterable[str]) -> Iterator[str]:
    """Write devices on a bus of libvirt's in JSON, as libvirt does.

    QEMU makes the devices in the flat notation first and those in JSON after them
    (qemu_create_cli_devices() in its softmmu/vl.c): the bus would not be there yet.
    """
    before = ""
    for argument in args:
        flat = before == "-device" and not argument.startswith("{")
        items = parse_keyval(argument, "driver") if flat else Properties()
        buses = [items.get(key) for key in ("bus", "masterbus")]
        elsewhere = any(bus and not BUILT_IN_BUS.fullmatch(bus) for bus in buses)
        if elsewhere and not any("." in item.key for item in items):
            texts = NAMES if PCI_PORT.fullmatch(items.get("driver") or "") else NAMES | {"port"}
            yield json.dumps({item.key: item.value if item.key in texts else _json_value(item) for item in items})
        else:
            yield argument
        before = argument


def _json_change(document: Mapping[str, Any], key: str, value: str) -> str | int | bool:
    """Give a changed value its type in JSON: that of the value in its place, else what the key wants."""
    usb_port = key == "port" and not PCI_PORT.fullmatch(document.get("driver", ""))
    if usb_port or isinstance(document.get(key), str):
        return value
    return _json_value(Property(key=key, value=value))


def _json_value(item: Property) -> str | int | bool:
    type_, value = override_value(item)
    if type_ == "bool":
        return value == "true"
    return value if type_ == "string" else int(value)


def override_value(item: Property) -> tuple[str, str]:
    """Give type and value of an overriding property.

    libvirt starts devices in JSON, where QEMU is strict about types: a switch must be
    a boolean, a number a number, an on/off/auto choice a string.
    """
    value = item.value
    if item.key.endswith("-reserve"):
        with contextlib.suppress(ValueError):
            value = str(parse_size_bytes(value))
    if item.key not in STRINGS and item.key not in ON_OFF_AUTO:
        if value.lower() in TRUE_WORDS | FALSE_WORDS and value.lower() not in {"y", "n"}:
            return "bool", "true" if value.lower() in TRUE_WORDS else "false"
        if is_digits(value):
            return "unsigned", value
        if value.startswith("-") and is_digits(value[1:]):
            return "signed", value
        if value.lower().startswith("0x"):
            try:
                return "unsigned", str(int(value, 16))
            except ValueError:
                pass
    return "string", value
