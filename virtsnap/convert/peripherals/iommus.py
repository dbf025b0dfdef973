"""IOMMUs of the guest: intel-iommu, virtio-iommu and the machine's smmuv3 become <iommu>."""

from __future__ import annotations

from virtsnap.convert.build import build_device
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import number, on_off, one_of

INTEL_KEYS = (
    Key(key="intremap", hole="intremap", read=lambda value: None if value == "auto" else on_off(value)),
    Key(key="caching-mode", hole="caching_mode", read=on_off),
    Key(key="eim", hole="eim", read=lambda value: None if value == "auto" else on_off(value)),
    Key(key="device-iotlb", hole="iotlb", read=on_off),
    Key(key="aw-bits", hole="aw_bits", read=number),
    Key(key="dma-translation", hole="dma_translation", read=on_off, since=(10, 7)),
)


def _build_intel(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert intel-iommu, which libvirt has on q35 only."""
    if draft.machine.family.name != "q35":
        return
    element = build_device(draft, word, row)
    driver = element.find("driver")
    if driver is not None and driver.get("intremap") == "on":
        # libvirt refuses interrupt remapping unless the I/O APIC is QEMU's (qemuValidateDomainDefIOMMU);
        # with KVM so does QEMU, and without it there is no other.
        draft.head.put("features", {"ioapic": "qemu"}, word)


def _build_virtio(draft: Draft, word: Word, row: DeviceRow) -> None:
    if draft.machine.family.name in {"q35", "virt"}:
        build_device(draft, word, row)


MACHINE_KEYS = (Key(key="iommu", hole="model", read=one_of({"smmuv3": "smmuv3"}), since=(5, 5)),)


def convert_machine_iommu(draft: Draft) -> None:
    """Convert `-machine virt,iommu=smmuv3`."""
    if draft.machine.family.name != "virt":
        return
    for word in draft.group("machine"):
        value = word.peek("iommu")
        if value == "none":
            word.claim("iommu", Outcome.IMPLIED)
        elif value is not None and draft.knows((5, 5)):
            model = word.take_read("iommu", MACHINE_KEYS[0].read)
            if model is not None:
                draft.add(draft.fill("iommu", {"model": model}), word)


TABLES = (Table(group="machine", keys=MACHINE_KEYS),)
ROWS = (
    DeviceRow(
        drivers=("intel-iommu",), template="iommu", bus=Bus.NONE, holes={"model": "intel"}, keys=INTEL_KEYS,
        build=_build_intel, once=True,
    ),
    DeviceRow(
        drivers=("virtio-iommu-pci", "virtio-iommu"), template="iommu", bus=Bus.PCI, holes={"model": "virtio"},
        build=_build_virtio, once=True, since=(8, 3),
    ),
)
