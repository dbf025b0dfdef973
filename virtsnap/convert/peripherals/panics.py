"""Devices that tell the host of a guest's panic become <panic>; POWER and s390 guests always have one."""

from __future__ import annotations

from collections.abc import Mapping

from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft

# The hypervisor's own panic call of a machine family, which libvirt writes
# down without being asked (qemuDomainDefAddDefaultDevices).
FAMILY_PANICS: Mapping[str, str] = {"pseries": "pseries", "s390-ccw-virtio": "s390"}


def write_builtin_panic(draft: Draft) -> None:
    """Add the <panic> of a machine that has one built in."""
    model = FAMILY_PANICS.get(draft.machine.family.name)
    if model is not None:
        draft.add(draft.fill("panic", {"model": model}))


ROWS = (
    DeviceRow(drivers=("pvpanic",), template="panic", bus=Bus.ISA, holes={"model": "isa"}),
    DeviceRow(drivers=("pvpanic-pci",), template="panic", bus=Bus.PCI, holes={"model": "pvpanic"}, since=(9, 1)),
)
