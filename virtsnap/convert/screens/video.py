"""-vga and the display adapters of -device become <video>.

libvirt has one primary adapter, which carries the VGA ports where the model
has them, and any number of secondary ones of qxl and virtio. It chooses
QEMU's device by that alone, so an adapter of which libvirt would make another
device stays QEMU's. Source: qemuDeviceVideoGetModel() in libvirt's qemu_command.c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from virtsnap.convert.build import bus_of, place
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.buses.pci_keys import ACPI_KEYS
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.consoles.chardevs import find_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.machines import ARM
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, read_keys
from virtsnap.convert.values import is_digits, number_up_to, on_off, size_in, yes_no


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What stands in the domain for an adapter of which nothing is said: QEMU's defaults, in KiB."""

    type: str
    defaults: Mapping[str, str]


# A cirrus has memory in libvirt, which QEMU is not told (virDomainVideoDefaultRAM() in domain_conf.c).
VGA = Adapter(type="vga", defaults={"vram": "16384"})
CIRRUS = Adapter(type="cirrus", defaults={"vram": "16384"})
VMWARE = Adapter(type="vmvga", defaults={"vram": "16384"})
QXL = Adapter(type="qxl", defaults={"ram": "65536", "vram": "65536", "vgamem": "16384"})
VIRTIO = Adapter(type="virtio", defaults={})
BOCHS = Adapter(type="bochs", defaults={"vram": "16384"})
RAMFB = Adapter(type="ramfb", defaults={})

# Words of -vga. Those that are not here (tcx, cg3, ati) have no word in libvirt.
VGA_WORDS: Mapping[str, Adapter] = {
    "std": VGA, "cirrus": CIRRUS, "vmware": VMWARE, "qxl": QXL, "virtio": VIRTIO,
}
# Emulators without virtio-vga: there the primary adapter is virtio-gpu.
WITHOUT_VIRTIO_VGA = ARM | {"s390x"}
PRIMARY_ONLY = frozenset({
    "VGA", "cirrus-vga", "vmware-svga", "qxl-vga", "virtio-vga", "virtio-vga-gl", "vhost-user-vga",
    "bochs-display", "ramfb",
})


def convert_vga(draft: Draft) -> None:
    """Convert -vga, which the machine plugs before everything else."""
    for word in draft.group("vga"):
        kind = word.peek("vga") or ""
        if kind == "none":
            word.claim_rest(Outcome.IMPLIED)
        elif kind in VGA_WORDS and word is draft.last("vga"):
            word.take("vga")
            adapter = VGA_WORDS[kind]
            holes = {"type": adapter.type, "heads": "1", "primary": "yes", **adapter.defaults}
            element = draft.add(draft.fill("video", holes), word)
            draft.pci.add(None, element, plugged=Plugged.VGA)


def settle_video(draft: Draft) -> None:
    """Keep libvirt from adding an adapter of its own, which it does where there is a display and none."""
    if draft.devices.find("graphics") is not None and draft.devices.find("video") is None:
        draft.devices.append(draft.fill("video", {"type": "none"}))


def _build_video(draft: Draft, word: Word, row: DeviceRow) -> None:
    driver = word.peek("driver") or ""
    first = draft.devices.find("video") is None
    if not _can_stand(draft, driver, first):
        return
    word.take("driver")
    adapter = ADAPTERS[row.holes["type"]]
    holes: dict[str, str | None] = {"heads": "1", **adapter.defaults, **row.holes}
    holes["primary"] = "yes" if first or driver in PRIMARY_ONLY else None
    # libvirt has a resolution whole or not at all; half of one is left to <qemu:override>
    sizes = [word.peek("xres"), word.peek("yres")]
    whole = all(size is not None and is_digits(size) and int(size) <= MOST for size in sizes)
    keys = row.keys if whole else tuple(key for key in row.keys if key not in RESOLUTION)
    element = draft.fill("video", holes | read_keys(word, keys, draft.target))
    word.claim("id", Outcome.IMPLIED)
    _helper(draft, word)
    draft.add(element, word)
    place(draft, word, element, bus_of(row, driver, draft))


def _can_stand(draft: Draft, driver: str, first: bool) -> bool:
    """Tell whether libvirt would make this very device of a <video> in this place."""
    if driver in PRIMARY_ONLY:
        # a primary one is there already, by -vga or by an earlier -device
        return draft.devices.find("video/model[@primary='yes']") is None
    if draft.machine.arch in WITHOUT_VIRTIO_VGA:
        return driver != "qxl" or not first
    return not first or any(word.peek("driver") in PRIMARY_ONLY for word in draft.said("device"))


def _helper(draft: Draft, word: Word) -> None:
    """Claim the socket of vhost-user-gpu: libvirt starts the program behind it itself."""
    chardev = find_chardev(draft, word)
    if chardev is not None:
        word.claim("chardev", Outcome.MANAGED)
        chardev.claim_all(Outcome.MANAGED, "libvirt starts the vhost-user-gpu program and makes its socket")


_megabytes = number_up_to(1 << 20)
_whole_kib = size_in(1024)


def _mib(value: str) -> str:
    return str(int(_megabytes(value)) * 1024)


def _bytes(value: str) -> str:
    return number_up_to(2**31)(_whole_kib(value))


def _mib_unless_zero(value: str) -> str | None:
    return None if value == "0" else _mib(value)


def _only_on(value: str) -> str | None:
    if on_off(value) == "off":
        raise NotSayable("libvirt leaves it on")
    return None


MOST = 1 << 16
_count = number_up_to(MOST)
RESOLUTION = (Key(key="xres", hole="x", read=_count), Key(key="yres", hole="y", read=_count))
EDID = (Key(key="edid", hole=None, read=_only_on),)
HEADS = (Key(key="max_outputs", hole="heads", read=_count),)
QXL_KEYS = (
    Key(key="ram_size", hole="ram", read=_bytes),
    Key(key="vram_size", hole="vram", read=_bytes),
    Key(key="vram64_size_mb", hole="vram64", read=_mib_unless_zero),
    Key(key="vgamem_mb", hole="vgamem", read=_mib),
    *HEADS, *RESOLUTION,
)
VIRTIO_GPU_KEYS = (
    *HEADS, *RESOLUTION, *EDID,
    Key(key="blob", hole="blob", read=on_off, since=(9, 2)),
    Key(key="virgl", hole="accel3d", read=yes_no),
    *VIRTIO_KEYS,
)
MEMORY = (Key(key="vgamem_mb", hole="vram", read=_mib),)

ADAPTERS: Mapping[str, Adapter] = {
    adapter.type: adapter for adapter in (VGA, CIRRUS, VMWARE, QXL, VIRTIO, BOCHS, RAMFB)
}


def _row(
    drivers: Sequence[str], adapter: Adapter, keys: tuple[Key, ...] = (), *, bus: Bus = Bus.PCI, **holes: str
) -> DeviceRow:
    return DeviceRow(
        drivers=tuple(drivers), template="video", bus=bus, build=_build_video,
        keys=(*keys, *ACPI_KEYS) if bus is Bus.PCI else keys,
        holes={"type": adapter.type, **holes},
    )


ROWS = (
    _row(["VGA"], VGA, (*MEMORY, *RESOLUTION, *EDID)),
    _row(["cirrus-vga"], CIRRUS),
    _row(["vmware-svga"], VMWARE, MEMORY),
    _row(["qxl-vga", "qxl"], QXL, QXL_KEYS),
    _row(["virtio-vga", "virtio-gpu-pci", "virtio-gpu", "virtio-gpu-ccw", "virtio-gpu-device"], VIRTIO,
         VIRTIO_GPU_KEYS),
    _row(["virtio-vga-gl", "virtio-gpu-gl-pci", "virtio-gpu-gl", "virtio-gpu-gl-device"], VIRTIO,
         (*HEADS, *RESOLUTION, *EDID, *VIRTIO_KEYS), accel3d="yes"),
    _row(["vhost-user-vga", "vhost-user-gpu", "vhost-user-gpu-pci"], VIRTIO, (*HEADS, *RESOLUTION, *VIRTIO_KEYS),
         driver_name="vhostuser"),
    _row(["bochs-display"], BOCHS, (Key(key="vgamem", hole="vram", read=_bytes), *RESOLUTION, *EDID)),
    _row(["ramfb"], RAMFB, bus=Bus.NONE),
)

