"""The host's side of a network card: a -netdev, -nic or -net becomes the source of an <interface>.

Where libvirt has no word for the backend, or for one of its keys that matters
(hostfwd …), QEMU gets the -netdev as it stands, and the card, which stays
libvirt's, is joined to it by overriding one property (`Netdev.kept`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import number, on_off, parse_number

Holes = dict[str, str | None]

_HOST_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>\d{1,5})")
_DEVICE_NAME = re.compile(r"[a-zA-Z0-9_.\-\\:/]{1,15}")


@dataclass(kw_only=True)
class Netdev:
    """A backend as an <interface> says it.

    `kept` is the id under which QEMU gets the backend as it stands; the holes
    are then those of a stand-in that libvirt starts and the card does not use.
    """

    holes: Holes = field(default_factory=dict)
    queues: int = 1
    vhost: bool | None = None
    words: tuple[Word, ...] = ()
    kept: str | None = None


def host_port(value: str) -> tuple[str, str]:
    """Read HOST:PORT, where HOST may be empty or in brackets."""
    found = _HOST_PORT.fullmatch(value)
    if found is None or int(found["port"]) > 65535:
        raise NotSayable(f"{value!r} is not HOST:PORT")
    return found["host"].strip("[]"), found["port"]


def device_name(value: str) -> str:
    """Give the name of a network device of the host, as the kernel and libvirt's schema allow it."""
    if not _DEVICE_NAME.fullmatch(value):
        raise NotSayable(f"{value!r} is no name of a network device")
    return value


def _script(value: str) -> str | None:
    return None if value == "no" else value


PLUGGED_BY_LIBVIRT = "libvirt plugs the tap into the bridge itself"
OPENED_BY_LIBVIRT = "the tap was opened by whoever started QEMU; libvirt opens one itself"

# The keys of each type that one hole each can say. Keys that are in no table
# are said by the functions below, or make QEMU get the whole backend.
TABLES: tuple[Table, ...] = (
    Table(group="netdev", selector=("type", "tap"), keys=(
        Key(key="ifname", hole="target_dev", read=device_name),
        Key(key="script", hole="script", read=_script),
        Key(key="downscript", hole="downscript", read=_script, since=(5, 1)),
        Key(key="sndbuf", hole=None),
    )),
    Table(group="netdev", selector=("type", "bridge"), keys=(
        Key(key="br", hole="source_bridge", read=device_name),
        Key(key="helper", hole=None, outcome=Outcome.SUBSTITUTED, note=PLUGGED_BY_LIBVIRT),
    )),
    Table(group="netdev", selector=("type", "vhost-vdpa"), keys=(Key(key="vhostdev", hole="source_dev"),)),
)


def _keys(kind: str) -> tuple[Key, ...]:
    return next((table.keys for table in TABLES if table.selector == ("type", kind)), ())


def read_netdev(draft: Draft, word: Word, id_: str | None = None) -> Netdev:
    """Read a backend and claim its keys.

    What libvirt cannot say is left to QEMU, unclaimed; the card is joined to
    it under its id, or under `id_` where the word (-net, -nic) has none.
    """
    kind = word.peek("type") or ""
    read = _READERS.get(kind)
    if read is None:
        word.note(f"libvirt has no word for {kind}")
    else:
        try:
            return read(draft, word)
        except NotSayable as exc:
            word.note(str(exc))
    return Netdev(holes={"type": "user"}, kept=word.peek("id") or id_)


def _claim_user(draft: Draft, word: Word) -> Netdev:
    holes: Holes = {"type": "user"}
    known = {"type", "id", "net", "ipv6-prefix", "ipv6-prefixlen", "name", "vlan", "ipv4", "ipv6", "model"}
    other = [item.key for item in word.properties if item.key not in known | NIC_WORD_KEYS]
    if other:
        raise NotSayable(f"libvirt's user network has no word for {', '.join(dict.fromkeys(other))}")
    for key in ("ipv4", "ipv6"):
        if word.has(key) and on_off(word.peek(key) or "") != "on":
            raise NotSayable(f"libvirt's user network has no word for {key}=off")
    net = word.peek("net")
    if net is not None:
        address, prefix = _network(net)
        holes |= {"ipv4_family": "ipv4", "ipv4_address": address, "ipv4_prefix": prefix}
    ipv6 = word.peek("ipv6-prefix")
    if ipv6 is not None:
        try:
            ipaddress.IPv6Address(ipv6)
        except ValueError as exc:
            raise NotSayable(f"{ipv6!r} is no IPv6 prefix") from exc
        length = number(word.peek("ipv6-prefixlen") or "64")
        holes |= {"ipv6_family": "ipv6", "ipv6_address": ipv6, "ipv6_prefix": length}
    for key in ("type", "net", "ipv6-prefix", "ipv6-prefixlen", "ipv4", "ipv6"):
        word.claim(key, Outcome.MAPPED)
    return Netdev(holes=holes, words=(word,))


def _network(text: str) -> tuple[str, str]:
    """Read net=ADDRESS[/BITS or /MASK] as libvirt's address and prefix; QEMU's default is /24 for 10.0.2.0."""
    address, _, mask = text.partition("/")
    try:
        ipaddress.IPv4Address(address)
        bits = ipaddress.IPv4Network(f"0.0.0.0/{mask or '24'}").prefixlen
    except ValueError as exc:
        raise NotSayable(f"{text!r} is no IPv4 network") from exc
    return address, str(bits)


def _claim_tap(draft: Draft, word: Word) -> Netdev:
    holes: Holes = {"type": "ethernet"}
    netdev = Netdev(holes=holes, words=(word,))
    bridge = word.peek("br")
    given = word.has("fd") or word.has("fds")
    if bridge is not None and not word.has("ifname") and not given:
        device_name(bridge)
    if word.has("ifname"):
        device_name(word.peek("ifname") or "")
    netdev.vhost = _vhost(word)
    netdev.queues = _queues(word)
    for key in ("type", "br"):
        word.claim(key, Outcome.MAPPED)
    if given:
        for key in ("fd", "fds", "vhostfd", "vhostfds"):
            word.claim(key, Outcome.MANAGED, OPENED_BY_LIBVIRT)
    for key in ("vhost", "queues"):
        word.claim(key, Outcome.MAPPED)
    for row in _keys("tap"):
        if not word.has(row.key):
            continue
        value = word.take_read(row.key, row.read)
        if row.hole is not None:
            holes[row.hole] = value
    if bridge is not None and not word.has("ifname"):
        holes |= {"type": "bridge", "source_bridge": bridge, "script": None, "downscript": None}
        word.claim("helper", Outcome.SUBSTITUTED, PLUGGED_BY_LIBVIRT)
    elif not given and not word.has("script") and not word.has("helper"):
        # QEMU runs /etc/qemu-ifup where no script is named; libvirt runs one that is named only.
        holes["script"] = "/etc/qemu-ifup"
    for script in ("script", "downscript"):
        if holes.get(script) is not None:
            holes[script] = draft.absolute(holes[script] or "")
    if holes.get("target_dev") and holes["type"] == "ethernet" and word.peek("script") == "no":
        # Somebody made the tap before: libvirt must use it and leave it.
        holes["target_managed"] = "no"
    return netdev


def _vhost(word: Word) -> bool | None:
    value = word.peek("vhost")
    return None if value is None else on_off(value) == "on"


def _queues(word: Word) -> int:
    for key in ("fds", "vhostfds"):
        listed = word.peek(key)
        if listed is not None:
            return len(listed.split(":"))
    value = word.peek("queues")
    if value is None:
        return 1
    try:
        count = parse_number(value)
    except ValueError as exc:
        raise NotSayable(f"queues={value} is not a number") from exc
    if not 1 <= count <= 256:
        raise NotSayable(f"queues={value} is out of range")
    return count


def _claim_bridge(draft: Draft, word: Word) -> Netdev:
    bridge = device_name(word.peek("br") or "br0")
    word.claim("type", Outcome.MAPPED)
    word.claim("br", Outcome.MAPPED)
    word.claim("helper", Outcome.SUBSTITUTED, PLUGGED_BY_LIBVIRT)
    return Netdev(holes={"type": "bridge", "source_bridge": bridge}, words=(word,))


def _claim_socket(draft: Draft, word: Word) -> Netdev:
    rows = (("listen", "server"), ("connect", "client"), ("mcast", "mcast"), ("udp", "udp"))
    key, kind = next(((key, kind) for key, kind in rows if word.has(key)), ("", ""))
    if not key:
        raise NotSayable("a socket that somebody else has opened")
    address, port = host_port(word.peek(key) or "")
    holes: Holes = {"type": kind, "source_address": address or None, "source_port": port}
    if kind == "udp":
        local = word.peek("localaddr")
        if local is None:
            raise NotSayable("a udp socket without localaddr")
        local_address, local_port = host_port(local)
        holes |= {"local_address": local_address or None, "local_port": local_port}
    elif word.has("localaddr"):
        raise NotSayable("libvirt has no word for localaddr of a multicast socket")
    if kind != "server" and not address:
        raise NotSayable(f"{key} without an address")
    for each in ("type", key, "localaddr"):
        word.claim(each, Outcome.MAPPED)
    return Netdev(holes=holes, words=(word,))


def _claim_stream(draft: Draft, word: Word) -> Netdev:
    path = word.peek("addr.path") or ""
    # libvirt starts passt itself, with its socket in a folder of that name; what
    # passt forwards stands on passt's own command line, which is not here.
    if word.peek("addr.type") != "unix" or "/passt/" not in path:
        raise NotSayable("libvirt has no word for a stream")
    if not draft.knows((9, 0)):
        raise NotSayable("libvirt before 9.0 does not know passt")
    word.claim_rest(Outcome.MANAGED, "libvirt starts passt itself")
    return Netdev(holes={"type": "user", "backend_type": "passt"}, words=(word,))


def _claim_vhost_user(draft: Draft, word: Word) -> Netdev:
    chardev = draft.find(word.peek("chardev"), "chardev")
    if chardev is None or chardev.peek("backend") != "socket" or not chardev.has("path"):
        raise NotSayable("libvirt's vhost-user wants a UNIX socket")
    server = chardev.peek("server") is not None and on_off(chardev.peek("server") or "") == "on"
    holes: Holes = {
        "type": "vhostuser", "source_type": "unix", "source_path": draft.absolute(chardev.peek("path") or ""),
        "source_mode": "server" if server else "client",
    }
    netdev = Netdev(holes=holes, queues=_queues(word), words=(word, chardev))
    reconnect = chardev.peek("reconnect") or chardev.peek("reconnect-ms")
    if reconnect is not None and not server:
        seconds = parse_number(number(reconnect))
        seconds = seconds // 1000 if chardev.has("reconnect-ms") else seconds
        holes["reconnect_enabled"] = "yes" if seconds else "no"
        holes["reconnect_timeout"] = str(seconds) if seconds else None
    for key in ("type", "chardev", "queues"):
        word.claim(key, Outcome.MAPPED)
    word.claim("vhostforce", Outcome.IMPLIED)
    for key in ("backend", "id", "path", "server", "reconnect", "reconnect-ms"):
        chardev.claim(key, Outcome.MAPPED)
    chardev.claim("wait", Outcome.MANAGED)
    return netdev


def _claim_vdpa(draft: Draft, word: Word) -> Netdev:
    path = word.peek("vhostdev") or ""
    fdset = re.fullmatch(r"/dev/fdset/(\d+)", path)
    if not path:
        raise NotSayable("a vdpa device that somebody else has opened")
    netdev = Netdev(holes={"type": "vdpa", "source_dev": path}, queues=_queues(word), words=(word,))
    word.claim("type", Outcome.MAPPED)
    word.claim("queues", Outcome.MAPPED)
    if fdset:
        guess = f"/dev/vhost-vdpa-{fdset[1]}"
        netdev.holes["source_dev"] = guess
        word.claim("vhostdev", Outcome.SUBSTITUTED, f"the descriptor's path is not in argv; {guess} is a guess")
        for other in draft.group("add-fd"):
            if other.peek("set") == fdset[1]:
                other.claim_rest(Outcome.MANAGED, "libvirt opens the device itself")
    else:
        word.claim("vhostdev", Outcome.MAPPED)
    return netdev


# Keys of -nic that are the card's, not the backend's.
NIC_WORD_KEYS = frozenset({"mac", "macaddr", "model", "addr", "name", "netdev", "vlan", "vectors", "id"})

_READERS: Mapping[str, Callable[[Draft, Word], Netdev]] = {
    "user": _claim_user,
    "tap": _claim_tap,
    "bridge": _claim_bridge,
    "socket": _claim_socket,
    "stream": _claim_stream,
    "vhost-user": _claim_vhost_user,
    "vhost-vdpa": _claim_vdpa,
}
