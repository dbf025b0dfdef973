"""-boot, bootindex= and direct kernels become <os><boot>, <bootmenu>, <bios>, <kernel> and what belongs to it.

Devices with a bootindex have a <boot order> of their own. Where those are what
libvirt itself makes of <os><boot dev='hd'/> and its like, the shorter form is
written. Without any, -boot's letters are, or QEMU's default of hard disk, floppy,
CD (`cad`), with the network last as SeaBIOS has it. libvirt gives a bootindex
to the first device of each kind, and always says strict=on.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import loadparm, settle_boot_order
from virtsnap.convert.ledger import NotSayable, Outcome, Word, refuse
from virtsnap.convert.rows import Key, Table, Version
from virtsnap.convert.values import number_between, number_up_to, yes_no
from virtsnap.domain_xml.templates import Element

LETTERS: Mapping[str, str] = {"a": "fd", "b": "fd", "c": "hd", "d": "cdrom", "n": "network"}
# What a BIOS tries where -boot says nothing: QEMU's `cad`, then the network cards' ROMs.
DEFAULT_ORDER = ("hd", "fd", "cdrom", "network")


def _timeout(value: str) -> str:
    # Source: virDomainDefParseBootXML() in domain_conf.c.
    return number_between(-1, 65535)(value)


# The files of a direct boot: option and element have the same name. <shim> is in the schema of 11.3.
KERNEL_FILES: Mapping[str, Version] = {"kernel": (0, 0), "initrd": (0, 0), "shim": (11, 3), "dtb": (0, 0)}
MENU: tuple[Key, ...] = (
    Key(key="menu", hole="bootmenu", read=yes_no),
    Key(key="splash-time", hole="bootmenu_timeout_ms", read=number_up_to(65535)),
    Key(key="reboot-timeout", hole="reboot_timeout_ms", read=_timeout),
)
TABLES = (
    Table(group="machine", keys=(Key(key="loadparm", hole="loadparm", read=loadparm),)),
    Table(group="boot", keys=(Key(key="order", hole="dev"), Key(key="once", hole="dev"), *MENU,
                              Key(key="strict", hole=None))),
)  # fmt: skip


def convert_kernel(draft: Draft) -> None:
    """Write the kernel that QEMU loads itself, with its initrd, shim, command line and device tree."""
    for group, since in KERNEL_FILES.items():
        for word in draft.group(group):
            if not draft.knows(since):
                word.note(f"<{group}> is for libvirt {'.'.join(map(str, since))} and later")
                continue
            path = word.take_read(group, draft.absolute)
            if path:
                draft.head.put("os", {group: path}, word)
    for word in draft.group("append"):
        draft.head.put("os", {"cmdline": word.take("append")}, word)
    if draft.head.get("os", "kernel") is None:
        # Without a kernel QEMU refuses the first two (qemu_validate_options() in vl.c), libvirt the last.
        draft.head.put("os", {"initrd": None, "cmdline": None, "shim": None})


def convert_boot(draft: Draft) -> None:
    """Write what is booted, once all devices are there."""
    words = draft.group("boot")
    draft.head.put_keys("os", MENU, words, draft.target)
    if draft.head.get("os", "bootmenu_timeout_ms") and draft.head.get("os", "bootmenu") != "yes":
        # libvirt wants menu=on beside it; without a menu QEMU's timeout is the splash picture's.
        draft.head.put("os", {"bootmenu_timeout_ms": None})
        for word in words:
            word.claim("splash-time", Outcome.DROPPED, "libvirt has it with menu=on only")
    strict = _claim_strict(words)
    settle_boot_order(draft)
    indexed = {
        int(boot.get("order") or 0): device
        for device in draft.devices
        for boot in device.findall("boot")
        if boot.get("order")
    }
    order = _letters(draft, words)
    if indexed:
        _convert_loadparm(draft, indexed[min(indexed)])
        devs = _devs_of(draft, indexed)
        for word in words:
            word.claim("order", Outcome.SUBSTITUTED, "bootindex= comes first")
            word.claim("once", Outcome.SUBSTITUTED, "bootindex= comes first")
        if devs is None or not strict:
            return
        for device in indexed.values():
            for boot in device.findall("boot"):
                if boot.attrib.keys() == ["order"]:
                    device.remove(boot)
    elif order:
        devs = order
    else:
        # strict=on without a bootindex boots nothing, so libvirt's own default does no harm.
        devs = [] if strict else [kind for kind in DEFAULT_ORDER if _kinds(draft)[kind]]
    for dev in devs or ["hd"]:
        draft.head.append("os", etree.Element("boot", dev=dev), *words)


def _convert_loadparm(draft: Draft, first: Element) -> None:
    """Give the machine's loadparm to what is booted first, where libvirt has it (<boot loadparm>)."""
    boot = first.find("boot")
    for word in draft.group("machine"):
        if word.has("loadparm") and boot is not None and boot.get("loadparm") is None:
            value = word.take_read("loadparm", loadparm)
            if value is not None:
                boot.set("loadparm", value)
                word.land(boot)


def _claim_strict(words: list[Word]) -> bool:
    strict = False
    for word in words:
        value = word.peek("strict")
        if value is None:
            continue
        try:
            strict = yes_no(value) == "yes"
        except NotSayable:
            continue  # QEMU gets it, and says what it thinks of it
        if strict:
            word.claim("strict", Outcome.IMPLIED)
        else:
            word.claim("strict", Outcome.SUBSTITUTED, "libvirt always says on: only what it names is booted")
    return strict


def _letters(draft: Draft, words: list[Word]) -> list[str]:
    """Read order= and once=; the latter has no word in libvirt and goes first."""
    found: list[str] = []
    for word in words:
        for key in ("once", "order"):
            text = word.peek(key)
            if text is None:
                continue
            if not text or set(text) - set("abcdefghijklmnop"):
                why = f"{key}={text!r} is not made of drive letters"
                raise refuse(word.option, why, "give letters such as cdn")
            found = [LETTERS[letter] for letter in text if letter in LETTERS] + (found if key == "order" else [])
            note = "libvirt has no word for `once`: it comes first at every start" if key == "once" else None
            word.claim(key, Outcome.MAPPED if note is None else Outcome.SUBSTITUTED, note)
    if any(word.has("once") for word in words) and not any(word.has("order") for word in words):
        found += [kind for kind in DEFAULT_ORDER if _kinds(draft)[kind]]
    once = [LETTERS[letter] for word in words for letter in word.peek("once") or "" if letter in LETTERS]
    return list(dict.fromkeys(once + found))


def _kind(device: Element) -> str | None:
    """Tell which <boot dev> a device answers to."""
    if device.tag == "interface":
        return "network"
    if device.tag == "disk":
        return {"cdrom": "cdrom", "floppy": "fd"}.get(device.get("device") or "disk", "hd")
    return None


def _kinds(draft: Draft) -> dict[str, list[Element]]:
    """Give the devices that each <boot dev> stands for, in libvirt's order."""
    kinds: dict[str, list[Element]] = {kind: [] for kind in DEFAULT_ORDER}
    for device in draft.devices:
        kind = _kind(device)
        if kind is not None:
            kinds[kind].append(device)
    return kinds


def _devs_of(draft: Draft, indexed: dict[int, Element]) -> list[str] | None:
    """Give the list of <boot dev> from which libvirt would make just these bootindexes; None where it would not.

    It counts every dev in the list and gives its number to the first device of that kind
    (qemuBuildBootindex… in qemu_command.c). So a number without a device is a kind without one.
    """
    kinds = _kinds(draft)
    if max(indexed) > len(DEFAULT_ORDER):
        return None
    empty = [kind for kind in ("cdrom", "network", "hd", "fd") if not kinds[kind]]
    devs: list[str] = []
    for order in range(1, max(indexed) + 1):
        device = indexed.get(order)
        if device is None:
            if not empty:
                return None
            devs.append(empty.pop(0))
            continue
        kind = _kind(device)
        if kind is None or kinds[kind][0] is not device or kind in devs or device.get("type") == "vhostuser":
            return None
        if any(boot.attrib.keys() != ["order"] for boot in device.findall("boot")):
            return None
        devs.append(kind)
    return devs
