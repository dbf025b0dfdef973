"""Watchdog cards and what QEMU does when one bites become <watchdog>.

The action is one for all of them in QEMU (-watchdog-action, -action
watchdog=), and stands at each <watchdog> in libvirt. A q35 machine has a
watchdog in its chipset, which counts from the global `noreboot=off` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.buses.pci_keys import ACPI_KEYS
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Version
from virtsnap.convert.values import FALSE_WORDS
from virtsnap.domain_xml.templates import Element

# libvirt's words are QEMU's; its `dump` is a pause after which libvirt does the rest.
ACTIONS = frozenset({"reset", "shutdown", "poweroff", "pause", "none", "inject-nmi"})
UNHEARD = "no watchdog is there to bite"

# Families whose machines may have a watchdog built in, to which the action is said by QEMU's own word.
WITH_BUILTIN = frozenset({"q35", "board"})

CHIPSET_SINCE: Version = (9, 1)
SEVERAL_SINCE: Version = (9, 1)


@dataclass(kw_only=True)
class Watchdogs:
    """The watchdogs of one conversion; they wait for the action."""

    elements: list[Element] = field(default_factory=list)


def _build_watchdog(draft: Draft, word: Word, row: DeviceRow) -> None:
    if draft.part(Watchdogs).elements and not draft.knows(SEVERAL_SINCE):
        return
    draft.part(Watchdogs).elements.append(build_device(draft, word, row))


def convert_watchdogs(draft: Draft) -> None:
    """Convert -watchdog, q35's own watchdog, and the action; call when all devices are converted."""
    _convert_short_form(draft)
    _convert_chipset(draft)
    elements = draft.part(Watchdogs).elements
    action = _take_action(draft, elements)
    for element in elements:
        element.set("action", action)


def _convert_short_form(draft: Draft) -> None:
    for word in draft.group("watchdog"):
        row = next((row for row in ROWS if word.peek("watchdog") in row.drivers), None)
        if row is None:
            continue
        if draft.part(Watchdogs).elements and not draft.knows(SEVERAL_SINCE):
            word.passed_as = ["-device", row.drivers[0]]
            if row.bus is Bus.PCI:
                draft.pci.add(word, None, plugged=Plugged.DEVICE)
            continue
        element = draft.add(draft.fill("watchdog", row.holes), word)
        word.claim("watchdog", Outcome.MAPPED)
        if row.bus is Bus.PCI:
            draft.pci.add(word, element, plugged=Plugged.DEVICE)
        draft.part(Watchdogs).elements.append(element)


def _convert_chipset(draft: Draft) -> None:
    """Turn `-global ICH9-LPC.noreboot=off`, or an action that is said, into q35's own watchdog.

    libvirt writes it into every q35 domain since 9.1, and QEMU 8.0's machines count without being told.
    """
    if not draft.knows(CHIPSET_SINCE) or draft.machine.family.name != "q35":
        return
    if draft.group("watchdog-action") and not draft.part(Watchdogs).elements:
        draft.part(Watchdogs).elements.append(draft.add(draft.fill("watchdog", {"model": "itco"})))
    for word in draft.group("global"):
        said = (word.peek("driver"), word.peek("property"))
        if said == ("ICH9-LPC", "noreboot") and (word.peek("value") or "").lower() in FALSE_WORDS:
            word.claim_rest(Outcome.MAPPED)
            watchdogs = draft.part(Watchdogs).elements
            if not any(element.get("model") == "itco" for element in watchdogs):
                watchdogs.append(draft.add(draft.fill("watchdog", {"model": "itco"}), word))
            word.land(watchdogs[-1])


def _take_action(draft: Draft, elements: list[Element]) -> str:
    """Claim what says the action and give it; the last word counts, QEMU's default is reset."""
    action = "reset"
    for word in draft.group("watchdog-action", "action"):
        key = "watchdog-action" if word.group == "watchdog-action" else "watchdog"
        value = word.peek(key)
        if value is None:
            continue
        if not elements:
            if draft.machine.family.name not in WITH_BUILTIN:
                word.claim(key, Outcome.IMPLIED, UNHEARD)
        elif value in ACTIONS:
            action = value
            word.claim(key, Outcome.MAPPED)
            word.land(*elements)
    return action


ROWS = (
    DeviceRow(
        drivers=("i6300esb",), template="watchdog", bus=Bus.PCI, build=_build_watchdog,
        holes={"model": "i6300esb"}, keys=ACPI_KEYS,
    ),
    *(
        DeviceRow(drivers=(name,), template="watchdog", bus=Bus.NONE, build=_build_watchdog, holes={"model": name})
        for name in ("ib700", "diag288")
    ),
)
