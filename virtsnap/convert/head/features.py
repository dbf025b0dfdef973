"""The switches of -machine and -accel, -no-acpi and -no-hpet become <features>, timers and <keywrap>.

QEMU has ACPI and HPET unless told otherwise; libvirt has ACPI only where
<acpi/> stands, and the HPET unless its timer is `present='no'`.
"""

from __future__ import annotations

from collections.abc import Callable

from virtsnap.convert.consoles.chardevs import claim_fdset
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.topology import max_cpus
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import number, number_up_to, on_off, one_of, parse_switch, size_in

KIB = 1024


def on_off_unless_auto(value: str) -> str | None:
    """Give on or off; `auto` is what the machine does anyway."""
    return None if value == "auto" else on_off(value)


def on_only(value: str) -> str | None:
    """Take on as what the domain has anyway; off has no word here."""
    if on_off(value) == "off":
        raise NotSayable("libvirt has no word for off")
    return None


def _timer_absent(value: str) -> str | None:
    return "no" if on_off_unless_auto(value) == "off" else None


def _irqchip(value: str) -> str:
    return one_of({"split": "qemu", "on": "kvm", "yes": "kvm"})(value)


def _present_if_off(value: str) -> str | None:
    return "" if on_off(value) == "off" else None


def _dump_core(value: str) -> str | None:
    # off is qemu.conf's default (dump_guest_core), so that libvirt says it by itself.
    return "on" if on_off(value) == "on" else None


def _hpt_resizing(value: str) -> str:
    return one_of({word: word for word in ("enabled", "disabled", "required")})(value)


def _words(*words: str) -> Callable[[str], str]:
    return one_of({word: word for word in words})


FEATURES: tuple[Key, ...] = (
    Key(key="smm", hole="smm", read=on_off_unless_auto),
    Key(key="vmport", hole="vmport", read=on_off_unless_auto),
    Key(key="gic-version", hole="gic_version", read=one_of({"2": "2", "3": "3", "host": "host"})),
    Key(key="kernel_irqchip", hole="ioapic", read=_irqchip),
    Key(key="kernel-irqchip", hole="ioapic", read=_irqchip),
    Key(key="aia", hole="aia", read=_words("none", "aplic", "aplic-imsic"), since=(11, 1)),
    Key(key="ras", hole="ras", read=on_off, since=(10, 4)),
    Key(key="i8042", hole="ps2", read=on_off, since=(10, 7)),
    # sPAPR capabilities: qemuAppendDomainFeaturesMachineParam() in qemu_command.c.
    Key(key="resize-hpt", hole="hpt_resizing", read=_hpt_resizing),
    Key(key="cap-hpt-max-page-size", hole="hpt_max_page_kib", read=size_in(KIB)),
    Key(key="cap-htm", hole="htm", read=on_off),
    Key(key="cap-nested-hv", hole="nested_hv", read=on_off),
    Key(key="cap-ccf-assist", hole="ccf_assist", read=on_off),
    Key(key="cap-cfpc", hole="cfpc", read=_words("broken", "workaround", "fixed")),
    Key(key="cap-sbbc", hole="sbbc", read=_words("broken", "workaround", "fixed")),
    Key(key="cap-ibs", hole="ibs", read=_words("broken", "workaround", "fixed-ibs", "fixed-ccd", "fixed-na")),
)
TIMERS: tuple[Key, ...] = (Key(key="hpet", hole="hpet", read=_timer_absent),)
MEMORY: tuple[Key, ...] = (Key(key="mem-merge", hole="nosharepages", read=_present_if_off),)
KEYWRAP: tuple[Key, ...] = (
    Key(key="aes-key-wrap", hole="aes", read=on_off),
    Key(key="dea-key-wrap", hole="dea", read=on_off),
)
ACCEL: tuple[Key, ...] = (
    Key(key="kernel-irqchip", hole="ioapic", read=_irqchip),
    Key(key="tb-size", hole="tb_cache_kib", read=lambda value: str(int(number(value)) * KIB), since=(8, 0)),
    Key(key="dirty-ring-size", hole="kvm_dirty_ring_size", read=number_up_to(65536), since=(8, 0)),
    Key(key="device", hole=None, outcome=Outcome.MANAGED),
)

TABLES = (
    Table(group="machine", keys=FEATURES),
    Table(group="machine", keys=TIMERS),
    Table(group="machine", keys=MEMORY),
    Table(group="machine", keys=KEYWRAP),
    Table(group="accel", keys=ACCEL),
)

# Machines whose guests have ACPI tables unless acpi=off; those for which libvirt wants UEFI as well.
ACPI_FAMILIES = frozenset({"pc", "q35", "virt", "microvm"})
# Source: qemuValidateDomainDefFeatures() in qemu_validate.c.
ACPI_NEEDS_UEFI = frozenset({"aarch64"})


def convert_features(draft: Draft) -> None:
    """Read the machine's and the accelerator's switches."""
    machine, accel = draft.group("machine"), draft.group("accel")
    draft.head.put_keys("features", FEATURES, machine, draft.target)
    draft.head.put_keys("clock", TIMERS, machine, draft.target)
    draft.head.put_keys("memoryBacking", MEMORY, machine, draft.target)
    draft.head.put_keys("keywrap", KEYWRAP, machine, draft.target)
    draft.head.put_keys("features", ACCEL, accel, draft.target)
    if draft.head.get("features", "kvm_dirty_ring_size"):
        draft.head.put("features", {"kvm_dirty_ring": "on"})
    _convert_host_side(draft, accel)
    _convert_acpi(draft)
    _convert_gic(draft)
    for word in draft.group("no-hpet"):
        word.claim_rest(Outcome.MAPPED)
        draft.head.put("clock", {"hpet": "no"}, word)
    for word in machine:
        _convert_usual(draft, word)
    for word in draft.group("tb-size"):
        value = word.take_read("tb-size", lambda text: str(int(number(text)) * KIB))
        draft.head.put("features", {"tb_cache_kib": value}, word)


def _convert_host_side(draft: Draft, accel: list[Word]) -> None:
    for word in accel:
        word.claim("device", Outcome.MANAGED, "libvirt's QEMU opens /dev/kvm itself")
        claim_fdset(draft, word.peek("device") or "")
        if word.peek("thread") == "multi":
            word.claim("thread", Outcome.IMPLIED, "what QEMU does wherever it can")


def _convert_usual(draft: Draft, word: Word) -> None:
    """Claim what libvirt says itself, and <memory dumpCore=…>."""
    dump = word.take_read("dump-guest-core", _dump_core)
    memory = draft.root.find("memory")
    if dump and memory is not None:
        memory.set("dumpCore", dump)
        word.land(memory)
    if draft.machine.family.name == "virt" and draft.machine.arch in ("aarch64", "armv7l"):
        word.take_read("highmem", on_only)
    if word.has("nvdimm") and any(True for _ in draft.devices_of(("nvdimm",))):
        word.take_read("nvdimm", on_only)


def _acpi_wanted(draft: Draft) -> bool:
    """Tell whether QEMU would give the guest ACPI tables."""
    wanted = draft.machine.family.name in ACPI_FAMILIES and draft.machine.arch not in ("riscv32",)
    for word in draft.group("machine", "no-acpi"):
        if word.group == "no-acpi":
            wanted = False
        elif word.peek("acpi") not in (None, "auto"):
            wanted = _switch(word.peek("acpi"), wanted)
    return wanted


def _switch(value: str | None, otherwise: bool) -> bool:
    try:
        return parse_switch(value or "")
    except ValueError:
        return otherwise


def _convert_acpi(draft: Draft) -> None:
    words = [word for word in draft.group("machine", "no-acpi") if word.has("acpi") or word.group == "no-acpi"]
    wanted = _acpi_wanted(draft)
    if wanted and draft.machine.arch in ACPI_NEEDS_UEFI and not has_pflash(draft):
        if draft.group("bios") or any(word.peek("acpi") for word in words):
            # libvirt has <acpi/> on ARM with <loader type='pflash'> only; QEMU's own switch still works.
            for word in words:
                word.claim("acpi", Outcome.PASSTHROUGH)
            draft.pass_on(["-machine", "acpi=on"], *words)
        return
    for word in words:
        word.claim("acpi", Outcome.MAPPED)
        word.claim("no-acpi", Outcome.MAPPED)
    if wanted:
        draft.head.put("features", {"acpi": ""}, *words)


def has_pflash(draft: Draft) -> bool:
    """Tell whether the firmware is in flash memory."""
    if any(word.has("pflash0") for word in draft.group("machine")):
        return True
    return any(word.peek("if") == "pflash" for word in draft.said("drive"))


def _convert_gic(draft: Draft) -> None:
    """Say the GIC that QEMU would take under TCG, where the command line says none.

    libvirt takes one of its own choice (qemuDomainDefEnableDefaultFeatures()), QEMU 2, or 3 for
    more CPUs than a GICv2 serves (finalize_gic_version() in QEMU's hw/arm/virt.c). Under KVM both
    take what the host has.
    """
    if draft.machine.family.name != "virt" or draft.machine.arch not in ("aarch64", "armv7l"):
        return
    if draft.machine.accel == "tcg" and not any(word.has("gic-version") for word in draft.group("machine")):
        draft.head.put("features", {"gic_version": "3" if max_cpus(draft) > 8 else "2"})
