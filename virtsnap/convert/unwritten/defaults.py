"""What QEMU adds by itself becomes words of its own, so that every subject converts them like written ones.

Without -nodefaults a machine comes with a network card, a display adapter, a
serial and a parallel port, a floppy and a CD drive, unless the command line
names one of its own. libvirt always starts QEMU with -nodefaults, so what the
guest would have seen has to stand in the domain. Source: qemu_disable_default_devices(),
qemu_create_default_devices() and default_list in QEMU's softmmu/vl.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from virtsnap.command_line.options import parse_options
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.values import is_digits

VGA_DRIVERS = frozenset({
    "VGA", "isa-vga", "cirrus-vga", "isa-cirrus-vga", "vmware-svga", "qxl-vga", "virtio-vga", "virtio-vga-gl",
    "ati-vga", "vhost-user-vga", "virtio-gpu-pci", "virtio-gpu-gl-pci",
})


@dataclass(frozen=True, kw_only=True)
class Default:
    """One device that comes unasked: what cancels it, and the words that stand for it.

    `groups` and `drivers` (of -device and -global) cancel it; so does an index
    of -drive that is taken already (`drive`: interface, index; the interface
    None is the machine's own).
    """

    groups: frozenset[str] = frozenset()
    drivers: frozenset[str] = frozenset()
    drive: tuple[str | None, int] | None = None


DEFAULTS: Mapping[str, Default] = {
    "net": Default(groups=frozenset({"net", "netdev", "nic"})),
    "vga": Default(groups=frozenset({"vga"}), drivers=VGA_DRIVERS),
    "serial": Default(groups=frozenset({"serial"}), drivers=frozenset({"isa-serial", "sclpconsole"})),
    "parallel": Default(groups=frozenset({"parallel"}), drivers=frozenset({"isa-parallel"})),
    "floppy": Default(drivers=frozenset({"isa-fdc", "floppy"}), drive=("floppy", 0)),
    "cdrom": Default(
        drivers=frozenset({"ide-cd", "ide-hd", "ide-drive", "scsi-cd", "scsi-hd"}), drive=(None, 2)
    ),
}

# Which defaults a family has, and the words that they stand for; the network
# card's and the display's model are the machine's row.
FAMILY_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "pc": ("vga", "net", "serial", "parallel", "floppy", "cdrom"),
    "q35": ("vga", "net", "serial", "parallel", "cdrom"),
    "isapc": ("vga", "net", "serial", "parallel", "floppy", "cdrom"),
    "virt": ("net", "serial"),
    "pseries": ("vga", "net", "serial", "cdrom"),
    "s390-ccw-virtio": ("net", "serial"),
    "microvm": ("serial",),
    "board": ("net",),
}


NODE_FAMILIES = frozenset({"pc", "q35"})
NODE_SINCE = (5, 1)


def convert_defaults(draft: Draft) -> None:
    """Add the implied words to the draft; claims -nodefaults, which libvirt always gives."""
    if _node_comes_unasked(draft):
        _add(draft, ["-numa", "node"])
    nodefaults = draft.group("nodefaults")
    for word in nodefaults:
        word.claim_rest(Outcome.IMPLIED, "libvirt always starts QEMU with -nodefaults")
    if nodefaults:
        return
    for name in FAMILY_DEFAULTS.get(draft.machine.family.name, ()):
        if not _cancelled(draft, DEFAULTS[name]):
            _add(draft, _words_of(draft, name))


def _node_comes_unasked(draft: Draft) -> bool:
    """Tell whether QEMU makes one NUMA node of the whole machine: where memory can be plugged and none is named.

    Source: numa_complete_configuration() in QEMU's hw/core/numa.c; PCs of before 5.1 did it on fewer occasions.
    """
    if draft.machine.family.name not in NODE_FAMILIES or not draft.machine.is_since(NODE_SINCE):
        return False
    return not draft.group("numa") and any(word.peek("slots") not in (None, "0") for word in draft.group("m"))


def _cancelled(draft: Draft, default: Default) -> bool:
    if draft.said(*default.groups):
        return True
    named = {word.peek("driver") for word in draft.said("device", "global")}
    if named & default.drivers:
        return True
    return default.drive is not None and any(
        _sits_at(draft, word, *default.drive) for word in draft.said("drive")
    )


def _sits_at(draft: Draft, word: Word, interface: str | None, index: int) -> bool:
    """Tell whether a -drive takes an index of an interface, given as index= or as bus= and unit=."""
    own = draft.machine.family.default_drive_if
    if (word.peek("if") or own) != (interface or own):
        return False
    if word.has("index"):
        return word.peek("index") == str(index)
    if word.has("bus") or word.has("unit"):
        units = draft.machine.family.drive_units
        bus, unit = word.peek("bus") or "0", word.peek("unit") or "0"
        return is_digits(bus) and is_digits(unit) and int(bus) * units + int(unit) == index
    return False


def _words_of(draft: Draft, name: str) -> list[str]:
    family = draft.machine.family
    nographic = bool(draft.group("nographic"))
    match name:
        case "net":
            if family.name == "board":
                return ["-nic", "user"]  # whatever card the board has, if any
            return ["-net", f"nic,model={family.default_nic}", "-net", "user"] if family.default_nic else []
        case "vga":
            return ["-vga", family.default_vga] if family.default_vga else []
        case "serial":
            return ["-serial", "mon:stdio" if nographic else "vc"]
        case "parallel":
            return ["-parallel", "null" if nographic else "vc"]
        case "floppy":
            return ["-drive", "if=floppy,index=0"]
        case _:
            return ["-drive", f"if={family.default_drive_if},index=2,media=cdrom"]


def _add(draft: Draft, words: list[str]) -> None:
    for option in parse_options([draft.command_line.emulator, *words]).options:
        draft.words.append(Word(replace(option, first=-1, last=-1), implied=True))
