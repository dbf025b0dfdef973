"""The keys that every virtio device has: its <driver> attributes."""

from __future__ import annotations

from collections.abc import Mapping

from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, virtio_model
from virtsnap.convert.values import FALSE_WORDS, TRUE_WORDS, on_off

# Source: qemuBuildVirtioOptionsStr()/qemuBuildVirtioDevGetConfig in libvirt's qemu_command.c.
VIRTIO_KEYS: tuple[Key, ...] = (
    Key(key="iommu_platform", hole="iommu", read=on_off),
    Key(key="ats", hole="ats", read=on_off),
    Key(key="packed", hole="packed", read=on_off),
    Key(key="page-per-vq", hole="page_per_vq", read=on_off, since=(7, 9)),
)

# (disable-legacy, disable-modern) -> model: libvirt's own way to say it to a QEMU without the drivers' long names.
# Source: qemuBuildVirtioDevGetConfigDev() in libvirt's qemu_command.c.
MODELS: Mapping[tuple[str, str], str] = {
    ("on", "off"): "virtio-non-transitional",
    ("off", "off"): "virtio-transitional",
}


def read_virtio_model(word: Word) -> str:
    """Give libvirt's model of a virtio device: by its driver's name, or by disable-legacy and disable-modern."""
    driver = word.peek("driver") or ""
    model = virtio_model(driver)
    switches = (_switch(word.peek("disable-legacy") or "auto"), _switch(word.peek("disable-modern") or "off"))
    said = MODELS.get(switches)
    # QEMU has no transitional vsock: hw/virtio/vhost-vsock-pci.c
    if model == "virtio" and said is not None and not (said == "virtio-transitional" and "vsock" in driver):
        model = said
        word.claim("disable-legacy", Outcome.MAPPED)
        word.claim("disable-modern", Outcome.MAPPED)
    elif switches == ("auto", "off"):
        # what QEMU does anyway, from machine types of 2.7 on
        word.claim("disable-legacy", Outcome.IMPLIED)
        word.claim("disable-modern", Outcome.IMPLIED)
    return model


def _switch(value: str) -> str:
    value = value.lower()
    return "on" if value in TRUE_WORDS else "off" if value in FALSE_WORDS else value
