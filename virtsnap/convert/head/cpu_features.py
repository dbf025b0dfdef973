"""The names of x86 CPU models and features that libvirt knows, and what QEMU calls them.

libvirt refuses to start a domain with a name that is not in its CPU map, so
what is not here goes to QEMU as it stands. Source: libvirt's src/cpu_map/.
"""

from __future__ import annotations

from collections.abc import Mapping

from virtsnap.convert.rows import Version

_MODELS_9_0 = """
486 pentium pentium2 pentium3 pentiumpro coreduo n270 core2duo qemu32 kvm32 cpu64-rhel5 cpu64-rhel6 qemu64 kvm64
Conroe Penryn Nehalem Nehalem-IBRS Westmere Westmere-IBRS SandyBridge SandyBridge-IBRS IvyBridge IvyBridge-IBRS
Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS
Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS
Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS
Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS
Cascadelake-Server Cascadelake-Server-noTSX Icelake-Client Icelake-Client-noTSX
Icelake-Server Icelake-Server-noTSX Cooperlake Snowridge
athlon phenom Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5
EPYC EPYC-IBPB EPYC-Rome EPYC-Milan Dhyana
"""
MODELS: Mapping[str, Version] = {
    **dict.fromkeys(_MODELS_9_0.split(), (0, 0)),
    "SapphireRapids": (9, 4), "GraniteRapids": (9, 10), "EPYC-Genoa": (10, 1), "SierraForest": (11, 0),
}  # fmt: skip

_FEATURES_9_0 = """
3dnow 3dnowext 3dnowprefetch abm acpi adx aes amd-no-ssb amd-ssbd amd-stibp amx-bf16 amx-int8 amx-tile apic arat
arch-capabilities arch-lbr avic avx avx-vnni avx2 avx512-4fmaps avx512-4vnniw avx512-bf16 avx512-fp16
avx512-vp2intersect avx512-vpopcntdq avx512bitalg avx512bw avx512cd avx512dq avx512er avx512f avx512ifma avx512pf
avx512vbmi avx512vbmi2 avx512vl avx512vnni bmi1 bmi2 bus-lock-detect cid cldemote clflush clflushopt clwb clzero
cmov cmp-legacy core-capability cr8legacy cx16 cx8 dca de decodeassists ds ds-cpl dtes64 erms est extapic f16c
flushbyasid fma fma4 fpu fsgsbase fsrm fxsr fxsr-opt gfni hle ht hypervisor ia64 ibpb ibrs ibrs-all ibs intel-pt
intel-pt-lip invpcid invtsc la57 lahf-lm lbrv lm lwp mca mce md-clear mds-no misalignsse mmx mmxext monitor movbe
movdir64b movdiri mpx msr mtrr nodeid-msr npt nrip-save nx osvw pae pat pause-filter pbe pcid pclmulqdq pcommit
pdcm pdpe1gb perfctr-core perfctr-nb pfthreshold pge pks pku pn pni popcnt pschange-mc-no pse pse36 rdctl-no
rdpid rdrand rdseed rdtscp rsba rtm sep serialize sgx sgx-debug sgx-exinfo sgx-kss sgx-mode64 sgx-provisionkey
sgx-tokenkey sgx1 sgx2 sgxlc sha-ni skinit skip-l1dfl-vmentry smap smep smx spec-ctrl split-lock-detect ss ssb-no
ssbd sse sse2 sse4.1 sse4.2 sse4a ssse3 stibp svm svm-lock svme-addr-chk syscall taa-no tbm tce tm tm2 topoext tsc
tsc-adjust tsc-deadline tsc-scale tsx-ctrl tsx-ldtrk umip v-vmsave-vmload vaes vgif virt-ssbd vmcb-clean vme vmx
vpclmulqdq waitpkg wbnoinvd wdt x2apic xfd xgetbv1 xop xsave xsavec xsaveerptr xsaveopt xsaves xtpr
"""
# Added one by one between 9.1 and 11.0; before 11.0 they go to QEMU by -global, with the same result.
_FEATURES_11_0 = """
amx-fp16 auto-ibrs avx-ifma avx-ne-convert avx-vnni-int8 cmpccxadd fb-clear fbsdp-no flush-l1d fsrc fsrs fzrm
gds-no ibpb-brtype lfence-always-serializing mcdt-no no-nested-data-bp null-sel-clr-base overflow-recov pbrsb-no
prefetchiti psdp-no rfds-no sbdr-ssdp-no sbpb srso-no succor vnmi
"""
FEATURES: Mapping[str, Version] = {
    **dict.fromkeys(_FEATURES_9_0.split(), (0, 0)),
    **dict.fromkeys(_FEATURES_11_0.split(), (11, 0)),
}

# What libvirt calls otherwise than QEMU does (after `_` became `-`).
LIBVIRT_NAMES: Mapping[str, str] = {
    "pclmulqdq": "pclmuldq", "ds-cpl": "ds_cpl", "tsc-adjust": "tsc_adjust", "fxsr-opt": "fxsr_opt",
    "lahf-lm": "lahf_lm", "cmp-legacy": "cmp_legacy", "nodeid-msr": "nodeid_msr", "perfctr-core": "perfctr_core",
    "perfctr-nb": "perfctr_nb",
}  # fmt: skip

# QEMU's other spellings of a feature. Source: x86_cpu_register_feature_bit_props() in target/i386/cpu.c.
_ALIASES: Mapping[str, str] = {
    "sse3": "pni", "sse4-1": "sse4.1", "sse4-2": "sse4.2", "xd": "nx", "ffxsr": "fxsr-opt", "i64": "lm",
    "pclmuldq": "pclmulqdq", "hv-apicv": "hv-avic",
}  # fmt: skip


def canonical(name: str) -> str:
    """Give QEMU's first name of an x86 CPU property: dashes, aliases resolved."""
    dashed = name.replace("_", "-")
    return _ALIASES.get(dashed, dashed)


def libvirt_feature(name: str, target: Version) -> str | None:
    """Give libvirt's name of an x86 feature (a canonical name of QEMU's), None where `target` has none."""
    since = FEATURES.get(name)
    if since is None and name.startswith("vmx-"):
        since = (10, 1)  # all VMX controls came with libvirt 10.1
    if since is None or target < since:
        return None
    return LIBVIRT_NAMES.get(name, name)


def known_model(name: str, target: Version) -> bool:
    """Tell whether `target` knows an x86 CPU model."""
    since = MODELS.get(name)
    return since is not None and target >= since
