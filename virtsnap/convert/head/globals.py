"""-global DRIVER.PROPERTY=VALUE, where libvirt has an element for what it sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome
from virtsnap.convert.rows import Version
from virtsnap.convert.values import number, one_of, same, yes_no
from virtsnap.domain_xml.templates import Element


@dataclass(frozen=True, kw_only=True)
class GlobalRow:
    """One property that -global sets: the hole of a template of domain_templates/head/ for its value.

    `families` are the machines for which libvirt writes it that way; None: all.
    """

    driver: str
    property: str
    template: str
    hole: str
    read: Callable[[str], str | None] = same
    families: frozenset[str] | None = None
    since: Version = (0, 0)


def _disabled(value: str) -> str:
    return one_of({"1": "no", "0": "yes", "on": "no", "off": "yes", "true": "no", "false": "yes"})(value)


def _secure(value: str) -> str | None:
    return "yes" if yes_no(value) == "yes" else None


ROM_OFF = frozenset({"0", "off", "false"})
PC, Q35 = frozenset({"pc"}), frozenset({"q35"})
GLOBALS: tuple[GlobalRow, ...] = (
    GlobalRow(driver="PIIX4_PM", property="disable_s3", template="pm", hole="suspend_to_mem", read=_disabled,
              families=PC),
    GlobalRow(driver="PIIX4_PM", property="disable_s4", template="pm", hole="suspend_to_disk", read=_disabled,
              families=PC),
    GlobalRow(driver="ICH9-LPC", property="disable_s3", template="pm", hole="suspend_to_mem", read=_disabled,
              families=Q35),
    GlobalRow(driver="ICH9-LPC", property="disable_s4", template="pm", hole="suspend_to_disk", read=_disabled,
              families=Q35),
    GlobalRow(driver="kvm-pit", property="lost_tick_policy", template="clock", hole="pit_tickpolicy",
              read=one_of({"delay": "delay", "discard": "discard"})),
    GlobalRow(driver="mc146818rtc", property="lost_tick_policy", template="clock", hole="rtc_tickpolicy",
              read=one_of({"slew": "catchup"})),
    GlobalRow(driver="mch", property="extended-tseg-mbytes", template="features", hole="tseg_mib", read=number,
              families=Q35),
    GlobalRow(driver="cfi.pflash01", property="secure", template="os", hole="loader_secure", read=_secure),
)  # fmt: skip

# Devices that only one family has: set for another machine, they set nothing.
ELSEWHERE: dict[str, frozenset[str]] = {"PIIX4_PM": PC, "ICH9-LPC": Q35, "mch": Q35, "q35-pcihost": Q35,
                                        "i440FX-pcihost": PC}  # fmt: skip


def convert_globals(draft: Draft) -> None:
    """Read every -global that has a row; the others go to QEMU as they stand."""
    family = draft.machine.family.name
    rows = {(row.driver, row.property): row for row in GLOBALS}
    for word in draft.group("global"):
        driver = word.peek("driver") or ""
        if draft.machine.is_x86 and family not in ELSEWHERE.get(driver, frozenset({family})):
            word.claim_rest(Outcome.IMPLIED, f"a {family} machine has no {driver}")
            continue
        row = rows.get((driver, word.peek("property") or ""))
        if row is None or not draft.knows(row.since) or (row.families and family not in row.families):
            continue
        if row.hole == "loader_secure" and not _can_be_secure(draft):
            continue
        try:
            value = row.read(word.peek("value") or "")
        except NotSayable as exc:
            word.note(str(exc))
            continue
        word.claim_rest(Outcome.MAPPED)
        draft.head.put(row.template, {row.hole: value}, word)
    wants_smm = draft.head.get("features", "tseg_mib") or draft.head.get("os", "loader_secure")
    if wants_smm and not draft.head.get("features", "smm"):
        # QEMU's own choice for Q35 wherever the host can do it; libvirt wants it said beside these two.
        draft.head.put("features", {"smm": "on"})


def _can_be_secure(draft: Draft) -> bool:
    """Tell whether libvirt has <loader secure='yes'>: with flash memory, on Q35, and with SMM.

    Source: qemuValidateDomainDefBoot() in qemu_validate.c.
    """
    head = draft.head
    return (
        head.get("os", "loader_type") == "pflash"
        and draft.machine.family.name == "q35"
        and head.get("features", "smm") != "off"
    )


def convert_card_roms(draft: Draft) -> None:
    """Give the network cards of a model what -global says of their ROM; asked when all cards are there.

    A card that is passed on needs the -global itself.
    """
    for word in draft.group("global"):
        driver = word.peek("driver") or ""
        if word.peek("property") != "rombar" or word.peek("value") not in ROM_OFF or not word.untouched:
            continue
        cards = [card for card in draft.devices.findall("interface") if _driver_of(card) == driver]
        passed = any(other.untouched for other in draft.devices_of((driver,)))
        if not cards or passed:
            continue
        for card in cards:
            if card.find("rom") is None:
                etree.SubElement(card, "rom", bar="off")
        word.claim_rest(Outcome.MAPPED)
        word.land(*cards)


def _driver_of(card: Element) -> str:
    model = card.find("model")
    name = "" if model is None else model.get("type") or ""
    return "virtio-net-pci" if name == "virtio" else name
