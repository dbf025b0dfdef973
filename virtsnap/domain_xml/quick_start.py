"""A definition is told which of its questions libvirt need not ask a new QEMU.

At each start libvirt reads every feature of the guest's CPU out of QEMU, one
question a feature: some 400 round trips (qemuMonitorJSONGetGuestCPU, libvirt
5.0 and later), two thirds of the time that a small guest takes to come back.
Before QEMU could answer so, libvirt read the CPUID words instead, in three
questions, and still does where it is told that QEMU lacks the capability:

    <qemu:capabilities><qemu:del capability='cpu-unavailable-features'/></qemu:capabilities>

The words say the same but for features that are no CPUID bits: those in MSRs,
which emulation does not have, and KVM's and Hyper-V's own. A definition that
names one in an MSR (Snowridge's, if only as disabled) libvirt does not start
without the capability, nor may a later libvirt know it: so whoever starts a
domain by such a definition tries again without it.
"""

from __future__ import annotations

from lxml import etree

from virtsnap.domain_xml.live import QEMU_NS

CAPABILITY = "cpu-unavailable-features"
_LIST, _WITHOUT = f"{{{QEMU_NS}}}capabilities", f"{{{QEMU_NS}}}del"
_X86 = ("x86_64", "i686")


def start_quickly(domain: etree._Element) -> bool:
    """Have libvirt ask little when it starts this `<domain>`; say whether that changes the definition.

    Nothing is changed where the answers could differ: a guest that is not emulated, or whose CPU has features
    of a hypervisor's; nor where the definition itself says something about the capability.
    """
    os_type = domain.find("os/type")
    arch = None if os_type is None else os_type.get("arch")
    if domain.get("type") != "qemu" or arch not in _X86:
        return False
    if any(domain.find(f"features/{name}") is not None for name in ("hyperv", "kvm")):
        return False
    listed = domain.find(_LIST)
    if listed is None:
        listed = etree.SubElement(domain, _LIST, nsmap={"qemu": QEMU_NS})
    if any(each.get("capability") == CAPABILITY for each in listed):
        return False
    etree.SubElement(listed, _WITHOUT, capability=CAPABILITY)
    return True


def start_as_always(domain: etree._Element) -> bool:
    """Take back what `start_quickly` does; say whether that changes the definition."""
    found = False
    for listed in domain.findall(_LIST):
        for each in listed.findall(_WITHOUT):
            if each.get("capability") == CAPABILITY:
                listed.remove(each)
                found = True
        if len(listed) == 0:
            domain.remove(listed)
    return found
