"""Where a device that is passed through sits: the names of buses as libvirt gives them, its slot or port.

libvirt names a bus after its own id of the controller, so that `bus=ehci.0`
may have to read `usb1.0`. A device that names no bus is told the one that
QEMU would have found, because libvirt's controllers come later than it.
"""

from __future__ import annotations

import re

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Word
from virtsnap.convert.passed.qemu_only import WITH_PCI_FUNCTION
from virtsnap.convert.storage.disk_places import kept_scsi_place

# The kinds of controller that a device needs, by the name of its driver.
NEEDS = (
    (re.compile(r"virtserialport|virtconsole"), "virtio-serial"),
    (re.compile(r"ccid-card-.*"), "ccid"),
)
# Controllers of the machine itself: their buses are called the same under libvirt.
BUILT_IN = frozenset({"ide", "floppy-bus"})


def place_of(draft: Draft, word: Word) -> dict[str, str]:
    """Give the keys that a passed-on -device must say otherwise, once all addresses are assigned."""
    master = draft.usb.alias_of(word.peek("masterbus") or "")
    return _bus(draft, word) | ({} if master is None else {"masterbus": master})


def _bus(draft: Draft, word: Word) -> dict[str, str]:
    if word.peek("driver") in WITH_PCI_FUNCTION:
        return {}  # its function takes a slot of which nothing can be said
    changes = draft.pci.passthrough_address(word) or draft.usb.passthrough_address(word)
    changes = changes or kept_scsi_place(draft, word)
    if changes:
        return changes
    bus = word.peek("bus")
    if bus is None:
        return _default_bus(draft, word)
    name = draft.pci.alias_of(bus) or draft.usb.alias_of(bus) or _other_bus(draft, bus)
    return {} if name is None else {"bus": name}


def _other_bus(draft: Draft, bus: str) -> str | None:
    """Give libvirt's name for a bus of a controller that is neither PCI nor USB."""
    found = draft.controllers.find(bus)
    if found is None or found[0].qemu_id in BUILT_IN or not found[0].qemu_id:
        return None
    controller, number = found
    return f"{controller.alias}.{number}"


def _default_bus(draft: Draft, word: Word) -> dict[str, str]:
    """Give the bus of a device that names none: that of the newest controller, which QEMU's search meets first."""
    for drivers, type_ in NEEDS:
        if drivers.fullmatch(word.peek("driver") or ""):
            made = [one for one in draft.controllers.of(type_) if one.element is not None]
            return {"bus": f"{made[-1].alias}.0"} if made else {}
    return {}
