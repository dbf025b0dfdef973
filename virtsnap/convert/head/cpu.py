"""-cpu becomes <cpu>, <features><hyperv>, <features><kvm> and the paravirtual clocks among the timers.

The model is written as it stands (mode `custom`): a `host-model` would be the
CPU of whatever host the domain starts on. `host` is `host-passthrough`, `max` is
`maximum`. A model that libvirt does not know leaves -cpu to QEMU as a whole; a
property without a word in libvirt is given to the CPU by -global, which sets it
before -cpu's own properties just as libvirt's -cpu would.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from virtsnap.command_line.keyval import Property
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.cpu_features import canonical, known_model, libvirt_feature
from virtsnap.convert.head.machines import X86
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import (
    FALSE_WORDS,
    TRUE_WORDS,
    long_number,
    number,
    number_between,
    on_off,
    yes_no,
)

MODES: Mapping[str, str] = {"host": "host-passthrough", "max": "maximum"}

# The base class of all CPU types of a target: a -global on it holds for every model.
# Source: TYPE_X86_CPU and its like in QEMU's target/*/cpu-qom.h.
CPU_CLASS: Mapping[str, str] = {
    "x86_64": "x86_64-cpu", "i686": "i386-cpu", "aarch64": "arm-cpu", "armv7l": "arm-cpu", "s390x": "s390x-cpu",
    "ppc64": "powerpc64-cpu", "ppc64le": "powerpc64-cpu", "riscv64": "riscv-cpu", "riscv32": "riscv-cpu",
    "loongarch64": "loongarch-cpu",
}  # fmt: skip
# Architectures for which libvirt checks features against a list of its own, apart from x86.
ARM_FEATURES = frozenset({"sve", *(f"sve{bits}" for bits in range(128, 2049, 128))})
# Properties of an x86 CPU that are on anyway, and the machine's version from which on they are:
# x86_cpu_properties in QEMU's target/i386/cpu.c, pc_compat_2_8 in its hw/i386/pc.c.
USUAL: Mapping[str, tuple[int, int]] = {"vmware-cpuid-freq": (2, 9)}
# Features years younger than these models, which never had them: switched off, they are as they were.
NEVER_THERE = frozenset({"cet-ibt", "cet-ss"})
OLD_MODELS = frozenset({"kvm32", "kvm64", "qemu32", "qemu64"})
# Architectures whose CPUs' switches are all features to libvirt.
FREE_FEATURES = frozenset({"s390x", "riscv64", "riscv32", "loongarch64"})


def _hidden(value: str) -> str | None:
    return "on" if on_off(value) == "off" else None


def _spinlock_retries(value: str) -> str:
    # libvirt takes no fewer: virDomainFeaturesHyperVDefParse() in domain_conf.c.
    return number_between(4095, 2**32 - 1)(value)


def _hyperv_vendor(value: str) -> str:
    if not 0 < len(value) <= 12 or "," in value:
        raise NotSayable("libvirt takes 1 to 12 characters, without a comma")
    return value


def _passthrough(value: str) -> str | None:
    return "passthrough" if on_off(value) == "on" else None


FEATURES: tuple[Key, ...] = (
    Key(key="hv-relaxed", hole="hv_relaxed", read=on_off),
    Key(key="hv-vapic", hole="hv_vapic", read=on_off),
    Key(key="hv-spinlocks", hole="hv_spinlocks_retries", read=_spinlock_retries),
    Key(key="hv-vpindex", hole="hv_vpindex", read=on_off),
    Key(key="hv-runtime", hole="hv_runtime", read=on_off),
    Key(key="hv-synic", hole="hv_synic", read=on_off),
    Key(key="hv-stimer", hole="hv_stimer", read=on_off),
    Key(key="hv-stimer-direct", hole="hv_stimer_direct", read=on_off),
    Key(key="hv-reset", hole="hv_reset", read=on_off),
    Key(key="hv-vendor-id", hole="hv_vendor_id_value", read=_hyperv_vendor),
    Key(key="hv-frequencies", hole="hv_frequencies", read=on_off),
    Key(key="hv-reenlightenment", hole="hv_reenlightenment", read=on_off),
    Key(key="hv-tlbflush", hole="hv_tlbflush", read=on_off),
    # Seen in the schema of 11.3.
    Key(key="hv-tlbflush-direct", hole="hv_tlbflush_direct", read=on_off, since=(11, 3)),
    Key(key="hv-tlbflush-ext", hole="hv_tlbflush_extended", read=on_off, since=(11, 3)),
    Key(key="hv-ipi", hole="hv_ipi", read=on_off),
    Key(key="hv-evmcs", hole="hv_evmcs", read=on_off),
    Key(key="hv-avic", hole="hv_avic", read=on_off, since=(8, 10)),
    Key(key="hv-emsr-bitmap", hole="hv_emsr_bitmap", read=on_off, since=(10, 7)),
    Key(key="hv-xmm-input", hole="hv_xmm_input", read=on_off, since=(10, 7)),
    Key(key="hv-passthrough", hole="hyperv_mode", read=_passthrough, since=(8, 0)),
    Key(key="kvm", hole="kvm_hidden", read=_hidden),
    Key(key="kvm-hint-dedicated", hole="kvm_hint_dedicated", read=on_off),
    Key(key="kvm-poll-control", hole="kvm_poll_control", read=on_off),
    Key(key="kvm-pv-ipi", hole="kvm_pv_ipi", read=on_off),
    Key(key="kvm-pv-eoi", hole="apic_eoi", read=on_off),
    Key(key="kvm-pv-unhalt", hole="pvspinlock", read=on_off),
    Key(key="pmu", hole="pmu", read=on_off),
)
TIMERS: tuple[Key, ...] = (
    Key(key="kvmclock", hole="kvmclock", read=yes_no),
    Key(key="hv-time", hole="hypervclock", read=yes_no),
    Key(key="tsc-frequency", hole="tsc_frequency", read=long_number),
)
CPU: tuple[Key, ...] = (
    Key(key="migratable", hole="migratable", read=on_off),
    Key(key="phys-bits", hole="physaddr_bits", read=number, since=(9, 0)),
    Key(key="host-phys-bits", hole="physaddr_mode", read=_passthrough, since=(9, 0)),
    Key(key="host-phys-bits-limit", hole="physaddr_limit", read=number, since=(9, 3)),
    Key(key="vendor", hole="vendor_id"),
)
CACHE: tuple[Key, ...] = (
    Key(key="l3-cache", hole=None),
    Key(key="host-cache-info", hole=None),
)
TABLES = tuple(Table(group="cpu", keys=keys) for keys in (FEATURES, TIMERS, CPU, CACHE))

# What QEMU sets in every named x86 model before it reads -cpu's properties, by accelerator ("": any): saying it
# again says nothing. Source: x86_cpu_load_model() in target/i386/cpu.c, kvm_default_props in kvm/kvm-cpu.c
# (x2apic: where the interrupt controller is the kernel's), tcg_default_props in tcg/tcg-cpu.c.
MODEL_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "": {"hypervisor": "on"},
    "kvm": {"x2apic": "on"},
    "tcg": {"vme": "off"},
}

# (l3-cache, host-cache-info) -> <cache>; what libvirt makes of it: qemuBuildCpuCommandLine().
CACHES: Mapping[tuple[str | None, str | None], dict[str, str]] = {
    ("on", None): {"cache_level": "3", "cache_mode": "emulate"},
    ("on", "off"): {"cache_level": "3", "cache_mode": "emulate"},
    ("off", "on"): {"cache_mode": "passthrough"},
    ("off", None): {"cache_mode": "disable"},
    ("off", "off"): {"cache_mode": "disable"},
}


def convert_cpu(draft: Draft) -> None:
    """Read the last -cpu, the one that counts."""
    words = draft.group("cpu")
    for word in words[:-1]:
        word.claim_rest(Outcome.IMPLIED, "a later -cpu replaces it")
    if not words:
        return
    word = words[-1]
    arch, model = draft.machine.arch, word.peek("model") or ""
    if arch not in CPU_CLASS or (arch in X86 and model not in MODES and not known_model(model, draft.target)):
        word.note(f"libvirt has no CPU model {model}: QEMU takes the last -cpu that it is given")
        return
    word.take("model")
    mode = MODES.get(model, "custom")
    holes: dict[str, str | None] = {"mode": mode, "check": "none"}
    if mode == "custom":
        # fallback=forbid: libvirt must not put another model in its place.
        holes |= {"match": "exact", "model": model, "fallback": "forbid"}
    draft.head.put("cpu", holes, word)
    _Properties(draft, word, mode).convert()


class _Properties:
    """The properties of one -cpu, under their canonical names, each claimed once."""

    def __init__(self, draft: Draft, word: Word, mode: str) -> None:
        self.draft = draft
        self.word = word
        self.mode = mode
        self.x86 = draft.machine.is_x86
        # The last of several spellings of one property counts.
        self.items: dict[str, Property] = {}
        for item in word.properties:
            if item.key != "model":
                name = canonical(item.key) if self.x86 else item.key
                if name in self.items and self.items[name].key != item.key:
                    word.claim(self.items[name].key, Outcome.IMPLIED, "said again under another name")
                self.items[name] = item

    def convert(self) -> None:
        if self.x86:
            self._read("features", FEATURES)
            self._read("clock", tuple(key for key in TIMERS if self._has_timer(key)))
            self._read("cpu", tuple(key for key in CPU if self._fits(key)))
            self._complete_hyperv()
            self._convert_cache()
            self._convert_physaddr()
            self._convert_check()
            self._claim_usual()
        elif "pmu" in self.items:
            self._read("features", tuple(key for key in FEATURES if key.key == "pmu"))
        self._convert_features()
        self._pass_rest()

    def _read(self, template: str, keys: tuple[Key, ...]) -> None:
        for key in keys:
            item = self.items.get(key.key)
            if item is None or key.hole is None or self.draft.target < key.since:
                continue
            value = self.word.take_read(item.key, key.read)
            if value is not None:
                self.draft.head.put(template, {key.hole: value}, self.word)

    def _has_timer(self, key: Key) -> bool:
        # libvirt compares a TSC frequency with the host's, which only KVM can keep.
        return key.hole != "tsc_frequency" or self.draft.machine.accel == "kvm"

    def _fits(self, key: Key) -> bool:
        if key.hole == "vendor_id":
            said = self.items.get("vendor")
            return self.mode == "custom" and said is not None and len(said.value) == 12
        if key.hole == "migratable":
            return self.mode != "custom"
        return key.hole != "physaddr_limit" or "host-phys-bits" in self.items

    def _complete_hyperv(self) -> None:
        head = self.draft.head
        if head.get("features", "hv_spinlocks_retries"):
            head.put("features", {"hv_spinlocks": "on"})
        if head.get("features", "hv_vendor_id_value"):
            head.put("features", {"hv_vendor_id": "on"})
        if head.get("features", "hv_stimer_direct") and not head.get("features", "hv_stimer"):
            head.put("features", {"hv_stimer": "on"})
        for detail in ("hv_tlbflush_direct", "hv_tlbflush_extended"):
            if head.get("features", detail) and not head.get("features", "hv_tlbflush"):
                head.put("features", {"hv_tlbflush": "on"})
        names = [key.hole for key in FEATURES if key.key.startswith("hv-") and key.hole]
        if any(head.get("features", name) for name in names) and not head.get("features", "hyperv_mode"):
            head.put("features", {"hyperv_mode": "custom"})

    def _convert_cache(self) -> None:
        said = [self.items.get(key.key) for key in CACHE]
        words = [None if item is None else _switch_word(item.value) for item in said]
        holes = CACHES.get((words[0], words[1]))
        if holes is None or (holes["cache_mode"] == "passthrough" and self.mode == "custom"):
            return
        for item in said:
            if item is not None:
                self.word.claim(item.key, Outcome.MAPPED)
        self.draft.head.put("cpu", holes, self.word)

    def _convert_physaddr(self) -> None:
        head = self.draft.head
        if head.get("cpu", "physaddr_mode") is None and head.get("cpu", "physaddr_bits"):
            head.put("cpu", {"physaddr_mode": "emulate"})
        elif head.get("cpu", "physaddr_mode"):
            head.put("cpu", {"physaddr_bits": None})

    def _convert_check(self) -> None:
        if "check" in self.items:
            self.word.claim("check", Outcome.IMPLIED, "QEMU only warns, with or without it")
        enforce = self.items.get("enforce")
        if enforce is not None and _switch_word(enforce.value) == "on":
            # Not `full`: that refuses features that QEMU adds as well, x2apic under KVM among them.
            note = "check='partial': libvirt refuses a host whose CPU has less"
            self.word.claim("enforce", Outcome.SUBSTITUTED, note)
            self.draft.head.put("cpu", {"check": "partial"}, self.word)

    def _claim_usual(self) -> None:
        for key, since in USUAL.items():
            item = self.items.get(key)
            if item is not None and _switch_word(item.value) == "on" and self.draft.machine.is_since(since):
                self.word.claim(item.key, Outcome.IMPLIED, "on anyway, of this machine's version on")
        for name in NEVER_THERE & self.items.keys():
            item = self.items[name]
            if _switch_word(item.value) == "off" and self.word.peek("model") in OLD_MODELS:
                self.word.claim(item.key, Outcome.IMPLIED)

    def _convert_features(self) -> None:
        arch = self.draft.machine.arch
        claimed = {item.key for item in self.word.properties} - {item.key for item in self.word.unclaimed()}
        for name, item in self.items.items():
            state = _switch_word(item.value)
            if item.key in claimed or state is None:
                continue
            if arch == "armv7l" and name == "aarch64" and state == "off":
                self.word.claim(item.key, Outcome.MAPPED)  # libvirt's arch says it
                continue
            if self._is_default(name, state):
                self.word.claim(item.key, Outcome.IMPLIED, "QEMU sets it by itself in a named model")
                continue
            feature = self._feature(arch, name)
            if feature is None:
                continue
            self.word.claim(item.key, Outcome.MAPPED)
            policy = "require" if state == "on" else "disable"
            self.draft.head.append("cpu", etree.Element("feature", policy=policy, name=feature))

    def _is_default(self, name: str, state: str) -> bool:
        if not self.x86 or self.mode != "custom":
            return False
        if name == "x2apic" and _irqchip_in_qemu(self.draft):
            return False
        return any(
            MODEL_DEFAULTS.get(accel, {}).get(name) == state for accel in ("", self.draft.machine.accel)
        )

    def _feature(self, arch: str, name: str) -> str | None:
        if arch in X86:
            return libvirt_feature(name, self.draft.target)
        if arch in FREE_FEATURES or (arch in ("aarch64", "armv7l") and name in ARM_FEATURES):
            return name
        return None

    def _pass_rest(self) -> None:
        for item in self.word.unclaimed():
            name = canonical(item.key) if self.x86 else item.key
            self.word.claim(item.key, Outcome.PASSTHROUGH, "kept by -global")
            value = {"yes": "on", "no": "off"}.get(item.value, item.value)
            class_ = CPU_CLASS[self._emulator_arch()]
            self.draft.pass_on(["-global", f"{class_}.{name}={value}"], self.word)

    def _emulator_arch(self) -> str:
        emulator = self.draft.command_line.emulator
        return "i686" if emulator.endswith("system-i386") else self.draft.machine.arch


def _irqchip_in_qemu(draft: Draft) -> bool:
    """Tell whether KVM is told to leave the interrupt controllers to QEMU."""
    return any(
        _switch_word(word.peek(key) or "") == "off"
        for word in draft.group("machine", "accel")
        for key in ("kernel-irqchip", "kernel_irqchip")
    )


def _switch_word(value: str) -> str | None:
    lowered = value.lower()
    if lowered in TRUE_WORDS:
        return "on"
    return "off" if lowered in FALSE_WORDS else None

