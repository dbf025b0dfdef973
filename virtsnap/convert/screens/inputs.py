"""Keyboards, mice and tablets: on USB, on virtio, and the PS/2 pair that every PC has."""

from __future__ import annotations

from collections.abc import Callable

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.claims import Claims, Options
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, virtio
from virtsnap.convert.values import absolute_path, on_off, one_of


def _usb(type_: str, *drivers: str) -> DeviceRow:
    return DeviceRow(drivers=drivers, template="input", bus=Bus.USB, holes={"type": type_, "bus": "usb"})


def _if_on(word: str) -> Callable[[str], str | None]:
    return lambda value: word if on_off(value) == "on" else None


# -object input-linux, which reads a device of the host. The toggles: GrabToggleKeys in QEMU's qapi/common.json.
EVDEV_KEYS: tuple[Key, ...] = (
    Key(key="evdev", hole="dev", read=absolute_path),
    Key(key="repeat", hole="repeat", read=_if_on("on")),
    Key(key="grab_all", hole="grab", read=_if_on("all")),
    Key(key="grab-toggle", hole="grab_toggle", read=one_of({
        word: word
        for word in ("ctrl-ctrl", "alt-alt", "shift-shift", "meta-meta", "scrolllock", "ctrl-scrolllock")
    })),
)
TABLES = (Table(group="object", keys=EVDEV_KEYS, selector=("qom-type", "input-linux")),)


def _build_virtio(draft: Draft, word: Word, row: DeviceRow) -> None:
    driver = word.peek("driver") or ""
    holes: dict[str, str | None] = {}
    if driver.startswith("virtio-input-host"):
        evdev = word.peek("evdev")
        if not evdev:
            return  # QEMU would refuse it, and in its own words
        holes["evdev"] = draft.absolute(evdev)
    model = None
    if driver.endswith("-non-transitional"):
        model = "virtio-non-transitional"
    elif driver.endswith("-transitional"):
        model = "virtio-transitional"
    build_device(draft, word, row, holes | {"input_model": model})


def _virtio(type_: str, name: str, keys: tuple[Key, ...] = ()) -> DeviceRow:
    # Transitional kinds there are of virtio-input-host alone.
    plain = (name, f"{name}-pci", f"{name}-ccw", f"{name}-device")
    names = virtio(name) if type_ == "passthrough" else plain
    return DeviceRow(
        drivers=names, template="input", bus=Bus.PCI, holes={"type": type_, "bus": "virtio"},
        keys=(*keys, *VIRTIO_KEYS), build=_build_virtio,
    )


ROWS: tuple[DeviceRow, ...] = (
    _usb("tablet", "usb-tablet"),
    _usb("mouse", "usb-mouse"),
    _usb("keyboard", "usb-kbd"),
    _virtio("tablet", "virtio-tablet"),
    _virtio("mouse", "virtio-mouse"),
    _virtio("keyboard", "virtio-keyboard"),
    _virtio("passthrough", "virtio-input-host", keys=(Key(key="evdev", hole="evdev"),)),
)


def write_ps2(draft: Draft) -> None:
    """Write the PS/2 mouse and keyboard of a PC, and the host's input devices that feed them (input-linux)."""
    for word in draft.group("object"):
        if word.peek("qom-type") == "input-linux" and draft.knows((7, 4)) and word.has("evdev"):
            claims = Claims()
            options = Options.of_word(word, claims)
            try:
                holes = options.read(EVDEV_KEYS, draft.target)
            except NotSayable as exc:
                word.note(str(exc))
                continue
            options.take("qom-type")
            options.take("id", Outcome.IMPLIED)
            element = draft.add(draft.fill("input", {"type": "evdev", **holes}), word)
            claims.commit(element)
    if draft.machine.family.name not in {"pc", "q35", "isapc"} or draft.head.get("features", "ps2") == "off":
        return
    for type_ in ("mouse", "keyboard"):
        draft.add(draft.fill("input", {"type": type_, "bus": "ps2"}))
