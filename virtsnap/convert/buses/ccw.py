"""Channel addresses of s390 as QEMU would give them: the first free device number, fe.0.0000 on.

Source: css_find_free_devno() and css_create_sch() in QEMU's hw/s390x/css.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxml import etree

from virtsnap.convert.buses.plugging import Order, Plugged, plug_order, when_plugged
from virtsnap.convert.ledger import NotSayable, Word
from virtsnap.domain_xml.templates import Element

Number = tuple[int, int, int]
VIRTUAL_CSSID = 0xFE
_DEVNO = re.compile(r"([0-9a-fA-F]{1,2})\.([0-3])\.([0-9a-fA-F]{1,4})")


@dataclass(kw_only=True, eq=False)
class _Device:
    order: Order
    element: Element
    number: Number | None


class CcwDevices:
    """All devices on channels; filled by the subjects, resolved by `assign`."""

    def __init__(self) -> None:
        self._devices: list[_Device] = []

    def add(self, word: Word | None, element: Element, *, plugged: Plugged | None = None) -> None:
        """Put a device on a channel; takes `devno` from the word."""
        when = plugged or (Plugged.DEVICE if word is None else when_plugged(word))
        said = None if word is None else word.take_read("devno", _written)
        self._devices.append(
            _Device(
                order=plug_order(word, when, len(self._devices)), element=element,
                number=None if said is None else _parse(said),
            )
        )

    def assign(self) -> None:
        """Write the <address> of every device."""
        used = {device.number for device in self._devices if device.number is not None}
        for device in sorted(self._devices, key=lambda device: device.order):
            if device.number is None:
                device.number = next(
                    (VIRTUAL_CSSID, 0, devno) for devno in range(0x10000) if (VIRTUAL_CSSID, 0, devno) not in used
                )
                used.add(device.number)
            cssid, ssid, devno = device.number
            etree.SubElement(
                device.element, "address", type="ccw", cssid=f"0x{cssid:x}", ssid=f"0x{ssid:x}",
                devno=f"0x{devno:04x}",
            )


def _parse(text: str) -> Number | None:
    found = _DEVNO.fullmatch(text)
    if found is None:
        return None
    cssid, ssid, devno = (int(part, 16) for part in found.groups())
    return cssid, ssid, devno


def _written(value: str) -> str:
    if _parse(value) is None:
        raise NotSayable(f"{value} is no device number of the form CSSID.SSID.DEVNO")
    return value
