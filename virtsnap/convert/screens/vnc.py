"""-vnc becomes <graphics type='vnc'>."""

from __future__ import annotations

import re

from virtsnap.convert.consoles.monitors import made_by_libvirt
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, read_keys
from virtsnap.convert.screens.audio import audio_reference
from virtsnap.convert.values import host, is_digits, one_of, port, yes_no
from virtsnap.domain_xml.templates import Element

# Port of display 0, and of its websocket (vnc_display_open() in QEMU's ui/vnc.c).
BASE_PORT, BASE_WEBSOCKET = 5900, 5700
MAX_DISPLAY = 65535 - BASE_PORT
# Sockets in libvirt's own folders: it makes the path again by itself.
OWN_SOCKET = re.compile(r"/(?:var/)?(?:lib|run)/libvirt/qemu/.*\.sock")
QEMU_CONF = "set in libvirt's qemu.conf, for all guests"

_same_policy = one_of({policy: policy for policy in ("allow-exclusive", "force-shared", "ignore")})


def _qemu_conf(*keys: str) -> tuple[Key, ...]:
    return tuple(Key(key=key, hole=None, outcome=Outcome.MANAGED, note=QEMU_CONF) for key in keys)


KEYS: tuple[Key, ...] = (
    Key(key="share", hole="share_policy", read=_same_policy),
    Key(key="power-control", hole="power_control", read=yes_no, since=(7, 1)),
    *_qemu_conf("tls", "tls-creds", "tls-authz", "x509", "x509verify", "sasl", "sasl-authz", "acl"),
)

TABLES = (
    Table(
        group="vnc",
        keys=(
            Key(key="vnc", hole="address"),
            Key(key="websocket", hole="websocket"),
            Key(key="password", hole="passwd"),
            Key(key="password-secret", hole="passwd"),
            Key(key="audiodev", hole="audio"),
            Key(key="to", hole="autoport"),
            *KEYS,
        ),
    ),
)


def convert_vnc(draft: Draft, word: Word, keymap: str | None) -> Element | None:
    """Convert one -vnc, or a -display that has its address; None where libvirt has no word for what it is."""
    where = word.peek("vnc") or ""
    if word.peek("reverse") not in {None, "off"}:
        word.note("libvirt has no word for a reverse connection")
        return None
    try:
        holes = _address(draft, where)
    except NotSayable as exc:
        word.note(str(exc))
        return None
    if holes is None:
        return None
    word.take("vnc")
    display_port = holes.get("port")
    # of a display on a socket libvirt's schema takes neither
    keys = [key for key in KEYS if key.hole is None or holes["listen_type"] != "socket"]
    holes |= {"type": "vnc", "keymap": keymap, **read_keys(word, keys, draft.target)}
    if display_port is not None and word.has("to"):
        holes |= {"port": None, "autoport": "yes"}
        word.claim("to", Outcome.SUBSTITUTED, "libvirt looks for a free port by itself")
    if holes["listen_type"] == "address":
        holes["websocket"] = word.take_read("websocket", lambda value: _websocket(value, display_port))
    holes["passwd"] = password_of(draft, word)
    holes["audio"] = audio_reference(draft, word)
    credentials = draft.find(word.peek("tls-creds"), "object")
    if credentials is not None:
        credentials.claim_rest(Outcome.MANAGED, "libvirt makes it, as vnc_tls in its qemu.conf says")
    return draft.add(draft.fill("graphics-vnc", holes), word)


def password_of(draft: Draft, word: Word) -> str | None:
    """Take the password: the text, that of a secret object, or the empty one that lets nobody in.

    QEMU with `password=on` refuses everybody until one is set over the
    monitor; an empty password means the same to libvirt.
    """
    secret = draft.find(word.peek("password-secret"), "object")
    if secret is not None:
        word.claim("password-secret", Outcome.MAPPED)
        if secret.has("data") and not secret.has("keyid") and secret.peek("format") in {None, "raw"}:
            secret.claim_rest(Outcome.MAPPED)
            return secret.peek("data")
        secret.claim_rest(Outcome.DROPPED, "its file is not read: set the password in the domain")
        return ""
    said = word.peek("password")
    if said is None or said == "off":
        word.claim("password", Outcome.IMPLIED)
        return None
    word.claim("password", Outcome.MAPPED)
    return "" if word.group != "spice" else said


def _address(draft: Draft, where: str) -> dict[str, str | None] | None:
    if where == "none":
        return {"listen_type": "none"}
    if where.startswith("unix:"):
        path = draft.absolute(where.removeprefix("unix:"))
        return {"listen_type": "socket", "socket": None if OWN_SOCKET.fullmatch(path) else path}
    name, colon, display = where.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", display) or int(display) > MAX_DISPLAY:
        return None
    # libvirt counts from display 0 on the loopback when it is to find a port by itself.
    if made_by_libvirt(draft) and (name, display) == ("127.0.0.1", "0"):
        return {"listen_type": "address", "port": "-1", "autoport": "yes"}
    name = name.removeprefix("[").removesuffix("]") or "0.0.0.0"  # noqa: S104  QEMU's own default
    return {
        "listen_type": "address", "address": host(name), "port": str(BASE_PORT + int(display)), "autoport": "no",
    }


def _websocket(value: str, display_port: str | None) -> str | None:
    if value == "on":
        known = display_port is not None and display_port != "-1"
        return str(int(display_port or 0) - BASE_PORT + BASE_WEBSOCKET) if known else "-1"
    if is_digits(value):
        return port(value)
    raise NotSayable("libvirt gives the websocket the address of the display")
