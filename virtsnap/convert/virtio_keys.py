"""The keys that every virtio device has: its <driver> attributes."""

from __future__ import annotations

from virtsnap.convert.rows import Key
from virtsnap.convert.values import on_off

# Source: qemuBuildVirtioOptionsStr()/qemuBuildVirtioDevGetConfig in libvirt's qemu_command.c.
VIRTIO_KEYS: tuple[Key, ...] = (
    Key(key="iommu_platform", hole="iommu", read=on_off),
    Key(key="ats", hole="ats", read=on_off),
    Key(key="packed", hole="packed", read=on_off),
    Key(key="page-per-vq", hole="page_per_vq", read=on_off, since=(7, 9)),
)
