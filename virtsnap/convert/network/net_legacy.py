"""-nic, and the hubs of -net: cards that QEMU plugs in before any -device become <interface>s.

`-net nic` and `-net user` with the same vlan= meet on a hub. One card and
one backend on a hub are a pair, as -nic says in one word. What libvirt has no
word for, such as a hub with more on it, is made of QEMU's own -netdevs. The
words -redir, -tftp, -bootp and -smb of old QEMUs add to the first user network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from virtsnap.command_line.keyval import Property
from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.device_row import Bus
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.machines import ARM
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.network.netdevs import (
    CARD_KEYS,
    Netdev,
    hub_port,
    keep,
    knows_override,
    read_netdev,
    read_unnamed,
)
from virtsnap.convert.network.nic_keys import mac_address
from virtsnap.convert.network.nics import MODEL, driver_holes, isa_place, row_of, write_interface

# Names that -nic and -net take for a card, beside those of drivers.
# Source: nic_model_aliases and pci_nic_models in QEMU's net/net.c and hw/pci/pci.c.
MODEL_ALIASES = {"virtio": "virtio-net-pci", "virtio-net": "virtio-net-pci", "i82559": "i82559er"}

_REDIR = re.compile(r"(?:(?P<protocol>tcp|udp):)?(?P<host_port>[^:]*):(?P<guest>[^:]*):(?P<guest_port>[^:]+)")

# What a word of old QEMUs is called as a key of the user network (QEMU's vl.c, 3.0 and before).
OLD_WORDS = {"redir": "hostfwd", "tftp": "tftp", "bootp": "bootfile", "smb": "smb"}


def convert_nics(draft: Draft) -> None:
    """Convert -nic and -net; call before the devices."""
    extra = _old_words(draft)
    for word in draft.group("nic"):
        if word.peek("type") == "none":
            word.claim_rest(Outcome.IMPLIED)
        else:
            _convert_card(draft, word, word, extra)
    _convert_hubs(draft, extra)
    for word in draft.group(*OLD_WORDS):
        if word.untouched:
            word.claim_rest(Outcome.IMPLIED, "no user network is there to take it")
    _keep_unasked(draft)


def _old_words(draft: Draft) -> list[tuple[Word, Property]]:
    """Read -redir and its like as keys of the user network."""
    found: list[tuple[Word, Property]] = []
    for word in draft.group(*OLD_WORDS):
        value = word.peek(word.group) or ""
        if word.group == "redir":
            said = _REDIR.fullmatch(value)
            if said is None:
                continue
            value = f"{said['protocol'] or 'tcp'}::{said['host_port']}-{said['guest']}:{said['guest_port']}"
        found.append((word, Property(key=OLD_WORDS[word.group], value=value)))
    return found


def _convert_hubs(draft: Draft, extra: list[tuple[Word, Property]]) -> None:
    words = draft.group("net")
    cards = [word for word in words if word.peek("type") == "nic"]
    backends = [word for word in words if word.peek("type") not in {"nic", "none"}]
    for word in words:
        if word.peek("type") == "none":
            word.claim_rest(Outcome.IMPLIED)
    for card in cards:
        if card.has("netdev"):
            _convert_card(draft, card, draft.find(card.peek("netdev"), "netdev"), extra)
    cards = [card for card in cards if not card.has("netdev")]
    for vlan in dict.fromkeys(word.peek("vlan") or "0" for word in [*cards, *backends]):
        on_it = [word for word in cards if (word.peek("vlan") or "0") == vlan]
        behind = [word for word in backends if (word.peek("vlan") or "0") == vlan]
        if not on_it:
            for word in behind:
                word.claim_rest(Outcome.IMPLIED, "no network card is connected to it")
        elif len(on_it) == 1 and len(behind) <= 1:
            _convert_card(draft, on_it[0], behind[0] if behind else None, extra)
        else:
            _convert_hub(draft, vlan, on_it, behind, extra)


def _convert_hub(
    draft: Draft, vlan: str, cards: Sequence[Word], backends: Sequence[Word], extra: list[tuple[Word, Property]]
) -> None:
    """Make a hub with several cards or backends of QEMU's own hub ports, one for each."""
    if not knows_override(draft) or any(_driver_of(draft, card) is None for card in cards):
        return
    behind = list(backends)
    for number, backend in enumerate(backends):
        taken = _take_extra(backend, extra)
        behind += [word for word, _ in taken]
        netdev = keep(draft, backend, taken)
        hub_port(draft, f"virtsnap-hub{vlan}-net{number}", vlan, netdev)
    for number, card in enumerate(cards):
        port = hub_port(draft, f"virtsnap-hub{vlan}-card{number}", vlan)
        card.note("QEMU keeps the hub, and the card is joined to it")
        _write_card(draft, card, Netdev(holes={"type": "user"}, kept=port))
        for word in behind:
            word.land(*card.elements)


def _convert_card(draft: Draft, card: Word, backend: Word | None, extra: list[tuple[Word, Property]]) -> None:
    """Convert a card with the backend that it has to itself (the same word for -nic)."""
    if _driver_of(draft, card) is None:
        return  # a card that libvirt cannot name: QEMU gets the words
    taken: list[tuple[Word, Property]] = []
    netdev: Netdev | None
    if backend is None:
        _leave_alone(draft, card)
        return
    if backend.group == "netdev":
        netdev = read_netdev(draft, backend)
    else:
        taken = _take_extra(backend, extra)
        netdev = read_unnamed(draft, backend, taken)
    if netdev is None or not netdev.can_be_joined(draft):
        return
    _write_card(draft, card, netdev)
    for word, _ in taken:
        word.land(*card.elements)


def _leave_alone(draft: Draft, card: Word) -> None:
    """Pass a card on that has nothing behind it, as the -device that it stands for."""
    driver = _driver_of(draft, card) or ""
    row = row_of(driver)
    if row is None:
        return
    card.note("nothing is behind the card; libvirt's cards always have a network")
    mac = card.peek("mac") or card.peek("macaddr")
    card.passed_as = ["-device", driver if mac is None else f"{driver},mac={mac}"]
    if bus_of(row, driver, draft) is Bus.PCI:
        draft.pci.add(card, None, plugged=Plugged.NIC, addr=card.peek("addr"))


def _take_extra(backend: Word, extra: list[tuple[Word, Property]]) -> list[tuple[Word, Property]]:
    """Give the old words to the first user network that asks."""
    if backend.peek("type") != "user":
        return []
    taken = list(extra)
    extra.clear()
    return taken


def _driver_of(draft: Draft, card: Word) -> str | None:
    """Give the driver of a card, None where libvirt cannot have it."""
    family = draft.machine.family
    mac = card.peek("mac") or card.peek("macaddr")
    try:
        if mac is not None:
            mac_address(mac)
    except NotSayable as exc:
        card.note(str(exc))
        return None
    if family.name == "board":
        # A card that is soldered on: libvirt names it to QEMU by -net on ARM (qemuBuildLegacyNicStr).
        model = card.peek("model") or ""
        on_board = draft.machine.arch in ARM and row_of(model) is None and MODEL.fullmatch(model)
        return model if on_board else None
    driver = card.peek("model") or family.default_nic or ""
    driver = MODEL_ALIASES.get(driver, driver)
    if family.name == "s390-ccw-virtio" and driver == "virtio-net-pci":
        driver = "virtio-net-ccw"
    return driver if row_of(driver) else None


def _write_card(draft: Draft, card: Word, netdev: Netdev) -> None:
    driver = _driver_of(draft, card) or ""
    mac = card.peek("mac") or card.peek("macaddr")
    row = row_of(driver)
    holes = netdev.holes | driver_holes(draft, card, driver, netdev)
    if row is not None and row.bus is Bus.ISA:
        before = [each for each in draft.devices.iterfind("interface/address") if each.get("type") == "isa"]
        holes |= isa_place(len(before))
    element = write_interface(draft, driver, netdev, holes | {"mac": None if mac is None else mac_address(mac)})
    draft.add(element, card, *netdev.words)
    for key in CARD_KEYS - {"addr", "vectors"}:
        card.claim(key, Outcome.MAPPED)
    for key in ("name", "vlan", "id"):
        card.claim(key, Outcome.IMPLIED)
    if card.group == "net":
        card.claim("type", Outcome.MAPPED)
    card.claim("vectors", Outcome.IMPLIED)  # QEMU ignores it where the card has none
    if card.has("vectors") and driver.startswith("virtio-") and knows_override(draft):
        draft.override(element, Property(key="vectors", value=card.peek("vectors") or ""))
        card.claim("vectors", Outcome.PASSTHROUGH, "kept by <qemu:override>")
    bus = Bus.NONE if row is None else bus_of(row, driver, draft)
    if bus is Bus.PCI:
        draft.pci.add(None, element, plugged=Plugged.NIC, addr=card.take("addr"))
    elif row is not None:
        place(draft, card, element, bus)


def _keep_unasked(draft: Draft) -> None:
    """Have QEMU make the card that it would make unasked, where libvirt cannot.

    libvirt starts QEMU with -nodefaults; a board's own card is then not there, or not connected.
    """
    for word in draft.group("net", "nic"):
        if word.implied and word.untouched:
            draft.pass_on(word.option.words)
            draft.warn(f"{word.option.text}: QEMU does so unasked, libvirt cannot; it is passed on")
            word.claim_rest(Outcome.PASSTHROUGH)
