"""usb-redir becomes <redirdev>, and the filter of its devices the domain's one <redirfilter>.

libvirt has one filter for all redirected devices: it stands for those of QEMU
where they are the same for all of them. Source: virDomainRedirFilterUSBDevDefFormat()
in libvirt's domain_conf.c, usbredirfilter_string_to_rules() in libusbredirparser.
"""

from __future__ import annotations

import re

from lxml import etree

from virtsnap.convert.build import build_device
from virtsnap.convert.consoles.chardevs import can_have, find_chardev, put_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import boot_order
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key
from virtsnap.domain_xml.templates import Element

_RULE = re.compile(
    r"(?P<class>-1|0x[0-9a-fA-F]{1,2}|[0-9]{1,3}):(?P<vendor>-1|0x[0-9a-fA-F]{1,4}):(?P<product>-1|0x[0-9a-fA-F]{1,4}):"
    r"(?P<version>-1|0x[0-9a-fA-F]{1,4}):(?P<allow>[01])"
)


def _build_redirdev(draft: Draft, word: Word, row: DeviceRow) -> None:
    if not can_have(draft, find_chardev(draft, word)):
        return
    element = build_device(draft, word, row)
    put_chardev(draft, element, word)
    _take_filter(draft, word)


def _take_filter(draft: Draft, word: Word) -> None:
    """Write the filter once, and claim it of every device where all have the same."""
    text = word.peek("filter")
    filters = {other.peek("filter") for other in draft.devices_of(("usb-redir",))}
    rules = None if text is None or len(filters) != 1 else _read_rules(text)
    if rules is None:
        return
    found = draft.devices.find("redirfilter")
    if found is None:
        found = etree.SubElement(draft.devices, "redirfilter")
        found.extend(rules)
    word.claim("filter", Outcome.MAPPED)
    word.land(found)


def _read_rules(text: str) -> list[Element] | None:
    rules = []
    for part in text.split("|"):
        found = _RULE.fullmatch(part)
        if found is None:
            return None
        rule = etree.Element("usbdev")
        for key, digits in (("class", 2), ("vendor", 4), ("product", 4)):
            if found[key] != "-1":
                rule.set(key, f"0x{int(found[key], 0):0{digits}X}")
        if found["version"] != "-1":
            version = int(found["version"], 16)  # in binary-coded decimal, as USB descriptors have it
            rule.set("version", f"{version >> 8:x}.{version & 0xFF:02x}")
        rule.set("allow", "yes" if found["allow"] == "1" else "no")
        rules.append(rule)
    return rules


ROWS: tuple[DeviceRow, ...] = (
    DeviceRow(
        drivers=("usb-redir",), template="redirdev", bus=Bus.USB, build=_build_redirdev,
        keys=(Key(key="bootindex", hole="boot_order", read=boot_order),),
    ),
)
