"""-display, -nographic and the older words for it become <graphics>; -vnc and -spice have modules of their own.

A window of QEMU's own toolkits has no place under libvirt, which starts QEMU
away from anybody's desktop: a VNC display takes its place, `virt-viewer` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Table, Version, read_keys
from virtsnap.convert.screens.audio import audio_reference
from virtsnap.convert.screens.spice import convert_spice, rendernode
from virtsnap.convert.screens.vnc import convert_vnc
from virtsnap.convert.unwritten.environment import value_of
from virtsnap.convert.values import FALSE_WORDS, TRUE_WORDS, one_line, yes_no
from virtsnap.domain_xml.templates import Element

DBUS_SINCE: Version = (8, 4)
WINDOW_NOTE = "a VNC display instead, which `virt-viewer` shows: libvirt's QEMU has no window"
# Keys of a window that is not there.
WINDOW_OPTIONS = (
    "full-screen", "no-frame", "alt-grab", "ctrl-grab", "no-quit", "show-cursor", "portrait", "rotate",
)
OWN_BUS = "unix:path=/var/run/libvirt/"


def _bus_address(value: str) -> str | None:
    """Give the address of a message bus; for one of libvirt's own, nothing."""
    return None if value.startswith(OWN_BUS) else one_line(value)


LOCAL_KEYS: Mapping[str, tuple[Key, ...]] = {
    "sdl": (Key(key="gl", hole="gl", read=yes_no),),
    "egl-headless": (Key(key="rendernode", hole="rendernode", read=rendernode), Key(key="gl", hole=None)),
    "dbus": (
        Key(key="p2p", hole="p2p", read=yes_no),
        Key(key="addr", hole="address", read=_bus_address),
        Key(key="gl", hole="gl", read=yes_no),
        Key(key="rendernode", hole="rendernode", read=rendernode),
    ),
}
TABLES = tuple(
    Table(group="display", keys=(Key(key="type", hole="type"), *keys), selector=("type", type_))
    for type_, keys in LOCAL_KEYS.items()
)


def convert_displays(draft: Draft) -> None:
    """Convert all displays; libvirt gives `-display none` where there is no <graphics>."""
    keymap = _keymap(draft)
    # libvirt has one display of each kind; QEMU serves any number of VNC displays, the others stay its own.
    for word in draft.group("vnc")[:1]:
        convert_vnc(draft, word, keymap)
    for word in draft.group("spice")[:1]:
        convert_spice(draft, word, keymap)
    for word in draft.group("display"):
        kind = "vnc" if word.has("vnc") else (word.peek("type") or "")
        DISPLAYS.get(kind, _window)(draft, word)
    for word in draft.group("sdl"):
        word.claim_rest(Outcome.MAPPED)
        _add_sdl(draft, word, {})
    for word in draft.group("curses"):
        _window(draft, word)
    for word in draft.group("nographic"):
        _nographic(draft, word)
    for word in draft.group("machine"):
        _graphics_switch(draft, word)
    if not draft.group("vnc", "spice", "display", "sdl", "curses", "nographic"):
        _default_window(draft)
    for word in draft.group(*WINDOW_OPTIONS):
        if word.untouched:
            word.claim_rest(Outcome.SUBSTITUTED, WINDOW_NOTE)


def _nographic(draft: Draft, word: Word) -> None:
    """Take -nographic: no <graphics>, and firmware is told to use the serial port.

    That second half is -machine graphics=off; libvirt gives it for <bios useserial='yes'/>, which
    wants a serial port (virDomainDefPostParseCommon(), qemuBuildMachineCommandLine()).
    """
    if not draft.machine.is_x86:
        word.claim_rest(Outcome.IMPLIED, "no <graphics>; the serial port stands in the domain")
    elif _can_use_serial(draft):
        word.claim_rest(Outcome.MAPPED)
        draft.head.put("os", {"useserial": "yes"}, word)
    else:
        word.passed_as = ["-machine", "graphics=off"]


def _graphics_switch(draft: Draft, word: Word) -> None:
    """Take -machine graphics=, one half of -nographic; elsewhere than on x86 firmware gets it from QEMU."""
    value = (word.peek("graphics") or "").lower()
    if value in TRUE_WORDS:
        word.claim("graphics", Outcome.IMPLIED)
    elif value in FALSE_WORDS and _can_use_serial(draft):
        word.claim("graphics", Outcome.MAPPED)
        draft.head.put("os", {"useserial": "yes"}, word)


def _can_use_serial(draft: Draft) -> bool:
    return (
        draft.machine.is_x86 and draft.machine.family.pci_root is not None
        and draft.devices.find("serial") is not None
    )


def _keymap(draft: Draft) -> str | None:
    """Take -k; it speaks of VNC and SPICE only."""
    keymap = None
    for word in draft.group("k"):
        if draft.group("vnc", "spice"):
            keymap = word.take("k")
        else:
            word.claim_rest(Outcome.IMPLIED, "it is about VNC displays, of which there is none")
    return keymap


def _none(draft: Draft, word: Word) -> None:
    word.claim_rest(Outcome.IMPLIED)


def _vnc(draft: Draft, word: Word) -> None:
    if not draft.group("vnc"):
        convert_vnc(draft, word, None)


def _window(draft: Draft, word: Word) -> None:
    """Put a VNC display in the place of a window."""
    word.claim_rest(Outcome.SUBSTITUTED, WINDOW_NOTE)
    if not draft.group("vnc", "spice"):
        draft.add(_free_vnc(draft), word)


def _spice_app(draft: Draft, word: Word) -> None:
    word.claim_rest(Outcome.SUBSTITUTED, "a SPICE display without the viewer, which `virt-viewer` is")
    if not draft.group("spice"):
        holes = {"type": "spice", "autoport": "yes", "listen_type": "address", "address": "127.0.0.1"}
        draft.add(draft.fill("graphics-spice", holes), word)


def _sdl(draft: Draft, word: Word) -> None:
    word.take("type")
    _add_sdl(draft, word, read_keys(word, LOCAL_KEYS["sdl"], draft.target))
    word.claim_rest(Outcome.DROPPED, "libvirt has no word for how the window looks")


def _add_sdl(draft: Draft, word: Word, holes: dict[str, str | None]) -> None:
    fullscreen = "yes" if draft.group("full-screen") else None
    for option in draft.group("full-screen"):
        option.claim_rest(Outcome.MAPPED)
    holes |= {
        "type": "sdl", "display": value_of(draft, "DISPLAY"), "xauth": value_of(draft, "XAUTHORITY"),
        "fullscreen": fullscreen,
    }
    draft.add(draft.fill("graphics-local", holes), word)


def _egl_headless(draft: Draft, word: Word) -> None:
    holes = {"type": word.take("type"), **read_keys(word, LOCAL_KEYS["egl-headless"], draft.target)}
    draft.add(draft.fill("graphics-local", holes), word)


def _dbus(draft: Draft, word: Word) -> None:
    if not draft.knows(DBUS_SINCE):
        return
    holes = {"type": word.take("type"), **read_keys(word, LOCAL_KEYS["dbus"], draft.target)}
    if holes.get("rendernode") is not None:
        holes.setdefault("gl", "no")
    if holes.get("p2p") is not None and holes.get("address") is not None:
        del holes["p2p"]  # libvirt has the one or the other, and with an address there is a bus
    holes["audio"] = audio_reference(draft, word, always=True)
    draft.add(draft.fill("graphics-local", holes), word)


def _default_window(draft: Draft) -> None:
    """Put a VNC display where QEMU would open a window unasked, if there is a display adapter to show."""
    if draft.devices.find("video") is not None:
        draft.devices.append(_free_vnc(draft))
        draft.warn(f"QEMU would open a window: {WINDOW_NOTE}")


def _free_vnc(draft: Draft) -> Element:
    return draft.fill("graphics-vnc", {
        "type": "vnc", "port": "-1", "autoport": "yes", "listen_type": "address", "address": "127.0.0.1",
    })


DISPLAYS: Mapping[str, Callable[[Draft, Word], None]] = {
    "none": _none, "vnc": _vnc, "sdl": _sdl, "egl-headless": _egl_headless, "dbus": _dbus, "spice-app": _spice_app,
    "gtk": _window, "cocoa": _window, "default": _window, "curses": _window,
}
