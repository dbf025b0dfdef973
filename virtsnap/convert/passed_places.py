"""Where a device that is passed through sits: the names of buses as libvirt gives them, its slot or port.

libvirt names a bus after its own id of the controller, so that `bus=ehci.0`
may have to read `usb1.0`. A device that names no bus is told the one that
QEMU would have found, because libvirt's controllers come later than it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Word
from virtsnap.convert.qemu_only import WITH_PCI_FUNCTION

# The kinds of controller that a device needs, by the name of its driver.
NEEDS = (
    (re.compile(r"virtserialport|virtconsole"), "virtio-serial"),
    (re.compile(r"scsi-(?:hd|cd|disk|block|generic)"), "scsi"),
    (re.compile(r"ccid-card-.*"), "ccid"),
)
# Controllers of the machine itself: their buses are called the same under libvirt.
BUILT_IN = frozenset({"ide", "floppy-bus"})


@dataclass(frozen=True, kw_only=True)
class Place:
    """The keys that a passed-on device says otherwise; `made_by_libvirt`: libvirt's own -device makes its bus."""

    changes: dict[str, str] = field(default_factory=dict)
    made_by_libvirt: bool = False


def place_of(draft: Draft, word: Word) -> Place:
    """Give the place of a -device, once all addresses are assigned."""
    master = draft.usb.alias_of(word.peek("masterbus") or "")
    found = _bus(draft, word)
    if master is None:
        return found
    return Place(changes={**found.changes, "masterbus": master}, made_by_libvirt=True)


def _bus(draft: Draft, word: Word) -> Place:
    changes = draft.pci.passthrough_address(word)
    if word.peek("driver") in WITH_PCI_FUNCTION:
        return Place()  # its function takes a slot of which nothing can be said
    if changes:
        root = draft.pci.root
        return Place(changes=changes, made_by_libvirt=root is None or changes["bus"] != root.name)
    changes = draft.usb.passthrough_address(word)
    bus = word.peek("bus")
    if not changes and bus is not None:
        name = draft.pci.alias_of(bus) or draft.usb.alias_of(bus) or _other_bus(draft, bus)
        changes = {} if name is None else {"bus": name}
    elif not changes:
        changes = _default_bus(draft, word)
    return Place(changes=changes, made_by_libvirt=bool(changes))


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
