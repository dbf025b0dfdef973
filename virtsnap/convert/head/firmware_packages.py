"""What distributions' packages say of their firmware: the empty variable store beside it, and its features.

A package of edk2 brings a descriptor of each build (share/qemu/firmware/*.json). From
these libvirt, once it is given the path of a build, completes <os firmware='efi'> and
<firmware><feature> by itself; a domain that names the features says the same before it is
defined, and is refused where the package is missing. A path without a
descriptor must not have them: libvirt would find no firmware of that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from virtsnap.convert.draft import Draft

# `firmware='efi'` beside a path, completed by libvirt and accepted from its own output, is as in 10.10 since then.
FEATURES_SINCE = (10, 10)
# Prefixes below which packages, not users, put files.
PACKAGED = ("/usr/share/", "/usr/local/share/", "/opt/")
X86 = frozenset({"pc", "q35"})
Q35 = frozenset({"q35"})
VIRT = frozenset({"virt"})


@dataclass(frozen=True, kw_only=True)
class Build:
    """Builds of firmware: what the paths of their code match, and the store that goes with them.

    `families` are the machines that the package's descriptor names (none: it has no
    descriptor for them); a `secure` build does secure boot, and needs SMM for it; `enrolled`:
    its store holds the usual keys.
    """

    code: str
    store: str
    families: frozenset[str] = frozenset()
    secure: bool = False
    enrolled: bool = False


# The first that matches counts. Source: the descriptors of Debian's ovmf, of Fedora's edk2-ovmf, edk2-aarch64,
# edk2-loongarch64 and edk2-riscv64, and the file lists of openSUSE's qemu-ovmf-x86_64 and of QEMU itself.
BUILDS: tuple[Build, ...] = (
    Build(code=r"(/usr/share/OVMF/OVMF)_CODE_4M\.fd", store=r"\1_VARS_4M.fd", families=X86),
    Build(code=r"(/usr/share/OVMF/OVMF)_CODE_4M\.secboot\.fd", store=r"\1_VARS_4M.fd", families=Q35, secure=True),
    Build(code=r"(/usr/share/OVMF/OVMF)_CODE_4M\.ms\.fd", store=r"\1_VARS_4M.ms.fd", families=Q35, secure=True,
          enrolled=True),
    Build(code=r"(/usr/share/edk2/ovmf/OVMF)_CODE(\.fd|_4M\.qcow2)", store=r"\1_VARS\2", families=X86),
    Build(code=r"(/usr/share/edk2/ovmf/OVMF)_CODE((?:_4M)?\.secboot\.(?:fd|qcow2))", store=r"\1_VARS\2",
          families=Q35, secure=True, enrolled=True),
    Build(code=r"(/usr/share/edk2/aarch64/)QEMU_EFI(?:-silent)?-pflash\.(raw|qcow2)",
          store=r"\1vars-template-pflash.\2", families=VIRT),
    Build(code=r"(/usr/share/edk2/loongarch64/)QEMU_EFI\.fd", store=r"\1QEMU_VARS.fd", families=VIRT),
    Build(code=r"(/usr/share/edk2/riscv/RISCV_VIRT)_CODE\.qcow2", store=r"\1_VARS.qcow2", families=VIRT),
    Build(code=r"(.*/OVMF/OVMF)_CODE(_4M)?\.secboot\.fd", store=r"\1_VARS\2.fd"),
    Build(code=r"(.*)_CODE([^/]*)", store=r"\1_VARS\2"),
    Build(code=r"(.*/ovmf-[^/]*)-code\.bin", store=r"\1-vars.bin"),
    Build(code=r"(.*/)QEMU_EFI(?:-silent)?-pflash\.(raw|qcow2)", store=r"\1vars-template-pflash.\2"),
    Build(code=r"(.*/)QEMU_EFI\.fd", store=r"\1QEMU_VARS.fd"),
    Build(code=r"(.*/)edk2-x86_64-(?:secure-)?code\.fd", store=r"\1edk2-i386-vars.fd"),
    Build(code=r"(.*/)edk2-(?:aarch64|arm)-code\.fd", store=r"\1edk2-arm-vars.fd"),
)  # fmt: skip


def find_build(path: str) -> tuple[Build, str] | None:
    """Find the build that a path of firmware is, and the path of its empty store; None for a user's own file."""
    if not path.startswith(PACKAGED):
        return None
    for build in BUILDS:
        found = re.fullmatch(build.code, path)
        if found:
            return build, found.expand(build.store)
    return None


def write_features(draft: Draft) -> None:
    """Write what a package's descriptor says of the firmware, where libvirt would find that same descriptor.

    It compares machine, formats, SMM and what the domain asks for: qemuFirmwareMatchDomain() in qemu_firmware.c.
    """
    head = draft.head
    found = find_build(head.get("os", "loader") or "")
    if found is None:
        return
    build, store = found
    if build.secure and not head.get("os", "loader_secure"):
        # Without a word libvirt would switch SMM and the flash's protection on, as the descriptor demands.
        head.put("os", {"loader_secure": "no"})
    if not draft.knows(FEATURES_SINCE):
        return
    said: Mapping[str, str | None] = {
        hole: head.get("os", hole)
        for hole in ("loader_type", "loader_readonly", "loader_secure", "loader_format", "nvram_format")
    }
    format_ = "qcow2" if store.endswith(".qcow2") else "raw"
    wanted = {
        "loader_type": "pflash", "loader_readonly": "yes", "loader_secure": "yes" if build.secure else None,
        "loader_format": format_, "nvram_format": format_,
    }  # fmt: skip
    asks_for_more = draft.root.find("launchSecurity") is not None or "yes" in {
        head.get("pm", hole) for hole in ("suspend_to_mem", "suspend_to_disk")
    }
    if said != wanted or asks_for_more or draft.machine.family.name not in build.families:
        return
    features = {"secure-boot": build.secure}
    if head.get("os", "nvram_template"):
        features["enrolled-keys"] = build.enrolled  # a matter of the store that a new one is copied from
    element = etree.Element("firmware")
    for name in sorted(features):
        etree.SubElement(element, "feature", enabled="yes" if features[name] else "no", name=name)
    head.put("os", {"firmware": "efi"})
    head.append("os", element)
