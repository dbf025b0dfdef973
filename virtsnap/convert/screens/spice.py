"""-spice becomes <graphics type='spice'>."""

from __future__ import annotations

from lxml import etree

from virtsnap.convert.consoles.monitors import made_by_libvirt
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Table, read_keys
from virtsnap.convert.screens.vnc import OWN_SOCKET, QEMU_CONF, password_of
from virtsnap.convert.values import absolute_path, host, on_off, one_of, only_if, port, yes_no
from virtsnap.domain_xml.templates import Element

TLS_NOTE = "libvirt has TLS where spice_tls = 1 in its qemu.conf"
CHANNELS = frozenset({"main", "display", "inputs", "cursor", "playback", "record", "smartcard", "usbredir"})


def _absent_if_on(value: str) -> str | None:
    """Give no for on: QEMU says what to disable, libvirt what to enable."""
    return "no" if on_off(value) == "on" else None


def _port(value: str) -> str | None:
    return None if value == "0" else port(value)


def rendernode(value: str) -> str:
    """Give the path of a render node."""
    return absolute_path(value)


def _words(*words: str) -> dict[str, str]:
    return {word: word for word in words}


KEYS: tuple[Key, ...] = (
    Key(key="port", hole="port", read=_port),
    Key(key="tls-port", hole="tls_port", read=_port),
    Key(key="image-compression", hole="image_compression",
        read=one_of(_words("auto_glz", "auto_lz", "quic", "glz", "lz", "off"))),
    Key(key="jpeg-wan-compression", hole="jpeg_compression", read=one_of(_words("auto", "never", "always"))),
    Key(key="zlib-glz-wan-compression", hole="zlib_compression", read=one_of(_words("auto", "never", "always"))),
    Key(key="playback-compression", hole="playback_compression", read=on_off),
    Key(key="streaming-video", hole="streaming_mode", read=one_of(_words("filter", "all", "off"))),
    Key(key="disable-copy-paste", hole="clipboard", read=_absent_if_on),
    Key(key="disable-agent-file-xfer", hole="file_transfer", read=_absent_if_on),
    Key(key="agent-mouse", hole="mouse", read=one_of({"on": "client", "off": "server"})),
    Key(key="gl", hole="gl", read=yes_no),
    Key(key="rendernode", hole="rendernode", read=rendernode),
    Key(key="disable-ticketing", hole=None),
    Key(key="seamless-migration", hole=None, read=only_if("on")),
    *(
        Key(key=key, hole=None, outcome=Outcome.MANAGED, note=QEMU_CONF)
        for key in ("sasl", "x509-dir", "x509-cacert-file", "x509-cert-file", "x509-key-file",
                    "x509-key-password", "x509-dh-key-file", "tls-ciphers")
    ),
)

TABLES = (
    Table(
        group="spice",
        keys=(
            *KEYS,
            Key(key="addr", hole="address"),
            Key(key="unix", hole="listen_type"),
            Key(key="tls-channel", hole="default_mode"),
            Key(key="plaintext-channel", hole="default_mode"),
            Key(key="password", hole="passwd"),
            Key(key="password-secret", hole="passwd"),
        ),
    ),
)


def convert_spice(draft: Draft, word: Word, keymap: str | None) -> Element:
    """Convert -spice."""
    holes: dict[str, str | None] = {"type": "spice", "keymap": keymap, **read_keys(word, KEYS, draft.target)}
    holes |= _address(draft, word, holes)
    if holes.get("rendernode") is not None:
        holes.setdefault("gl", "no")
    holes["passwd"] = password_of(draft, word)
    modes = _modes(word)
    if not made_by_libvirt(draft):
        _of_a_person(word, holes)
        modes = {name: mode for name, mode in modes.items() if mode != "secure"}
        word.claim("tls-channel", Outcome.SUBSTITUTED, TLS_NOTE)
    holes["default_mode"] = modes.pop("default", None)
    element = draft.fill("graphics-spice", holes)
    listen = element.find("listen")
    at = 0 if listen is None else element.index(listen) + 1
    for index, (name, mode) in enumerate(modes.items()):
        element.insert(at + index, etree.Element("channel", name=name, mode=mode))
    return draft.add(element, word)


def _of_a_person(word: Word, holes: dict[str, str | None]) -> None:
    """Settle what libvirt writes otherwise than others do: TLS, and who gets in where no password is said."""
    if holes.get("tls_port") is not None:
        # libvirt refuses a TLS port in the domain while spice_tls is off in its qemu.conf, as it is by default.
        holes["tls_port"] = None
        word.claim("tls-port", Outcome.SUBSTITUTED, TLS_NOTE)
        if holes.get("port") is None:
            holes["autoport"] = "yes"
    open_to_all = word.peek("disable-ticketing") not in {None, "off"}
    if holes["passwd"] is None and not open_to_all and holes["listen_type"] != "none":
        holes["passwd"] = ""  # QEMU lets nobody in until a ticket is set, and libvirt with an empty password


def _address(draft: Draft, word: Word, holes: dict[str, str | None]) -> dict[str, str | None]:
    if word.take("unix") not in {None, "off"}:
        path = word.take_read("addr", draft.absolute) or draft.absolute("spice.sock")
        own = OWN_SOCKET.fullmatch(path) is not None
        return {"port": None, "listen_type": "socket", "socket": None if own else path}
    if holes.get("port") is None and holes.get("tls_port") is None:
        return {"listen_type": "none"}
    address = word.take_read("addr", host)
    # Without addr= QEMU listens everywhere, libvirt on the loopback.
    return {"autoport": "no", "listen_type": "address", "address": address or "0.0.0.0"}  # noqa: S104


def _modes(word: Word) -> dict[str, str]:
    modes: dict[str, str] = {}
    for item in word.properties:
        mode = {"tls-channel": "secure", "plaintext-channel": "insecure"}.get(item.key)
        if mode is not None and (item.value == "default" or item.value in CHANNELS):
            modes[item.value] = mode
            word.claim(item.key, Outcome.MAPPED)
    return modes


