"""The host's side of a network card: a -netdev, -nic or -net becomes the source of an <interface>.

Where libvirt has no word for the backend, or for a key of it that matters
(hostfwd …), QEMU keeps the -netdev as it stands, and the card, which stays
libvirt's, is joined to it by overriding one property (`Netdev.kept`).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from virtsnap.command_line.keyval import Property, join_commas
from virtsnap.convert.consoles.chardevs import FDSET_PATH, can_have, claim_fdset, read_chardev
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.passed.passed_paths import absolute_paths
from virtsnap.convert.rows import Key, Table, Version
from virtsnap.convert.values import number, number_up_to, on_off, only_if, parse_number

Holes = dict[str, str | None]
Extra = Sequence[tuple[Word, Property]]

OVERRIDE_SINCE: Version = (8, 2)
PASST_SINCE: Version = (9, 1)  # 9.0 has it in its schema, and refuses it
PASST_VHOST_USER_SINCE: Version = (11, 1)

_HOST_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[0-9]{1,5})")
_DEVICE_NAME = re.compile(r"[a-zA-Z0-9_.\-\\:/]{1,15}")
# Ids that libvirt gives to -netdevs of its own.
_LIBVIRTS_ID = re.compile(r"host(?:net[0-9]|ua-).*")
# Where passt puts its socket: /tmp/passt_1.socket, or libvirt's folder for it.
_PASST_PATH = re.compile(r".*/passt[/_].*")
# QEMU's default scripts (DEFAULT_NETWORK_SCRIPT in its include/net/net.h).
SCRIPT, DOWN_SCRIPT = "/etc/qemu-ifup", "/etc/qemu-ifdown"

# libvirt forwards ports by passt only, which gives the guest the host's own address and
# name servers: what is set up for 10.0.2.2 would not find its way.
WHY = {"hostfwd": "libvirt's <portForward> is passt's, where the guest has other addresses"}

# Keys of -nic and -net that are the card's, not the backend's.
CARD_KEYS = frozenset({"mac", "macaddr", "model", "addr", "name", "netdev", "vlan", "vectors"})


@dataclass(kw_only=True)
class Netdev:
    """A backend as an <interface> says it.

    `kept` is the id under which QEMU gets the backend as it stands; the holes
    are then those of a stand-in that libvirt starts and the card does not use.
    `vhost` is on, off or force; None where there can be none.
    """

    holes: Holes = field(default_factory=dict)
    queues: int = 1
    vhost: str | None = None
    words: tuple[Word, ...] = ()
    kept: str | None = None

    def can_be_joined(self, draft: Draft) -> bool:
        """Tell whether the target libvirt can join a card to it."""
        return self.kept is None or knows_override(draft)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One type of backend: its keys, and a function that completes what they cannot say alone.

    `finish` raises NotSayable before it claims anything.
    """

    keys: tuple[Key, ...]
    finish: Callable[[Draft, Word, Netdev], None]


def knows_override(draft: Draft) -> bool:
    """Tell whether the target libvirt can override a property of one of its devices."""
    return draft.knows(OVERRIDE_SINCE)


def read_netdev(draft: Draft, word: Word) -> Netdev:
    """Read a -netdev and claim its keys; one that libvirt has no word for stays unclaimed and QEMU's."""
    id_ = word.peek("id") or ""
    try:
        _check_others(draft, word, id_)
        return _read(draft, word)
    except NotSayable as exc:
        word.note(str(exc))
    if _LIBVIRTS_ID.fullmatch(id_) and knows_override(draft):
        id_ = f"virtsnap-{id_}"
        word.passed_as = ["-netdev", _renamed(word, absolute_paths(draft, word) | {"id": id_})]
    return Netdev(holes={"type": "user"}, kept=id_)


def read_unnamed(draft: Draft, word: Word, extra: Extra) -> Netdev | None:
    """Read the backend of -nic or -net, which has no id; None where QEMU must get the words as they stand.

    `extra` are keys that other words add to it.
    """
    try:
        if extra:
            raise NotSayable(f"libvirt's user network has no word for {extra[0][1].key}")
        return _read(draft, word)
    except NotSayable as exc:
        word.note(str(exc))
    if not knows_override(draft):
        return None
    return Netdev(holes={"type": "user"}, words=(word,), kept=keep(draft, word, extra))


def keep(draft: Draft, word: Word, extra: Extra) -> str:
    """Have QEMU get the backend of -nic or -net as a -netdev; give its id."""
    id_ = word.peek("id") or f"virtsnap-net{'' if word.implied else word.option.first}"
    items = [item for item in word.properties if item.key not in CARD_KEYS | {"type", "id"}]
    added = [item for _, item in extra]
    paths = absolute_paths(draft, word)
    words = [("id", id_), *((item.key, paths.get(item.key, item.value)) for item in [*items, *added])]
    draft.pass_on(["-netdev", f"{word.peek('type')},{join_commas(words)}"])
    for item in items:
        word.claim(item.key, Outcome.PASSTHROUGH)
    word.claim("type", Outcome.PASSTHROUGH)
    word.claim("id", Outcome.IMPLIED)
    word.claim("vlan", Outcome.IMPLIED)
    word.claim("name", Outcome.IMPLIED)
    word.note(f"QEMU gets it as -netdev {id_}; the card is joined to it")
    for other, item in extra:
        other.claim_rest(Outcome.PASSTHROUGH, f"QEMU gets it as {item.key}= of -netdev {id_}")
    return id_


def hub_port(draft: Draft, id_: str, hub: str, netdev: str | None = None) -> str:
    """Have QEMU make a port on a hub; give its id."""
    words = [("id", id_), ("hubid", hub), *([("netdev", netdev)] if netdev else [])]
    draft.pass_on(["-netdev", f"hubport,{join_commas(words)}"])
    return id_


def _read(draft: Draft, word: Word) -> Netdev:
    kind = KINDS.get(word.peek("type") or "")
    if kind is None:
        raise NotSayable(f"libvirt has no word for {word.peek('type')}")
    rows = {row.key: row for row in kind.keys if draft.target >= row.since}
    names = {"type", "id"} if word.group == "netdev" else {"type", "id", *CARD_KEYS}
    netdev = Netdev(words=(word,))
    for item in word.properties:
        if item.key in names:
            continue
        row = rows.get(item.key)
        if row is None:
            reason = f"libvirt has no word for {item.key} of {word.peek('type')}"
            raise NotSayable(WHY.get(item.key.partition(".")[0], reason))
        try:
            value = row.read(item.value)
        except NotSayable as exc:
            raise NotSayable(f"{item.key}: {exc}") from exc
        if row.hole is not None:
            netdev.holes[row.hole] = value
    netdev.holes.pop("queues", None)  # the card's to say, and a virtio card's only
    kind.finish(draft, word, netdev)
    for row in rows.values():
        plain = Outcome.IMPLIED if row.hole is None else Outcome.MAPPED
        word.claim(row.key, plain if row.outcome is Outcome.MAPPED else row.outcome, row.note)
    word.claim("type", Outcome.MAPPED)
    word.claim("id", Outcome.IMPLIED)
    if word.group != "netdev":
        word.claim("vlan", Outcome.IMPLIED)
        word.claim("name", Outcome.IMPLIED)
    return netdev


def _check_others(draft: Draft, word: Word, id_: str) -> None:
    """Refuse a backend that something else than a card names (filters, hub ports): libvirt would rename it."""
    for other in draft.group("object", "netdev"):
        if other is not word and other.peek("netdev") == id_:
            raise NotSayable(f"{other.option.text} names it")


def _renamed(word: Word, changes: Mapping[str, str]) -> str:
    if word.properties.json:
        return json.dumps(json.loads(word.option.argument or "{}") | dict(changes))
    pairs = [(item.key, changes.get(item.key, item.value)) for item in word.properties]
    return join_commas(pairs).removeprefix("type=")


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
    return None if value in {"no", ""} else value


def _device_name(value: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_.\\:/-]+", value):
        raise NotSayable(f"libvirt takes no path of a device such as {value!r}")
    return value


def _ipv6_prefix(value: str) -> str:
    try:
        ipaddress.IPv6Address(value)
    except ValueError as exc:
        raise NotSayable(f"{value!r} is no IPv6 prefix") from exc
    return value


def _ipv4_network(value: str) -> str:
    """Check net=ADDRESS[/BITS or /MASK]; `_finish_user` parts it."""
    address, _, mask = value.partition("/")
    try:
        ipaddress.IPv4Address(address)
        bits = ipaddress.IPv4Network(f"0.0.0.0/{mask or '24'}").prefixlen
    except ValueError as exc:
        raise NotSayable(f"{value!r} is no IPv4 network") from exc
    return f"{address}/{bits}"


def _finish_user(draft: Draft, word: Word, netdev: Netdev) -> None:
    holes = netdev.holes
    holes["type"] = "user"
    if holes.get("ipv4_address"):
        holes["ipv4_family"] = "ipv4"
        holes["ipv4_address"], _, holes["ipv4_prefix"] = (holes["ipv4_address"] or "").partition("/")
    if holes.get("ipv6_address"):
        holes["ipv6_family"] = "ipv6"
        holes["ipv6_prefix"] = holes.get("ipv6_prefix") or "64"
    else:
        holes["ipv6_prefix"] = None  # a length alone says QEMU's own prefix, fec0::/64


def _finish_tap(draft: Draft, word: Word, netdev: Netdev) -> None:
    """Tell a tap on a bridge from one with scripts, one made before from one to be made."""
    holes = netdev.holes
    given = word.has("fd") or word.has("fds")
    helped = not given and not word.has("ifname") and (word.has("br") or word.has("helper"))
    netdev.vhost = _vhost(word)
    netdev.queues = _queues(word)
    bridge = holes.pop("source_bridge", None)
    if helped:
        holes |= {"type": "bridge", "source_bridge": bridge or "br0", "script": None, "downscript": None}
        return
    holes["type"] = "ethernet"
    if given:
        holes |= {"script": None, "downscript": None}
    elif not word.has("script"):
        # libvirt runs a script that is named only.
        holes["script"] = SCRIPT
    if holes.get("script") and not word.has("downscript") and draft.knows((5, 1)):
        holes["downscript"] = DOWN_SCRIPT
    for script in ("script", "downscript"):
        if holes.get(script):
            holes[script] = draft.absolute(holes[script] or "")
    if holes.get("target_dev") and not holes.get("script"):
        # Somebody made the tap before: libvirt must use it and leave it.
        holes["target_managed"] = "no"


def _vhost(word: Word) -> str:
    if word.has("vhostforce") and on_off(word.peek("vhostforce") or "") == "on":
        return "force"
    if any(word.has(key) for key in ("vhostfd", "vhostfds")) and not word.has("vhost"):
        return "on"
    return on_off(word.peek("vhost") or "off")


def _queues(word: Word) -> int:
    for key in ("fds", "vhostfds"):
        listed = word.peek(key)
        if listed is not None:
            return len(listed.split(":"))
    count = parse_number(number(word.peek("queues") or "1"))
    if not 1 <= count <= 256:
        raise NotSayable(f"queues={count} is out of range")
    return count


def _finish_bridge(draft: Draft, word: Word, netdev: Netdev) -> None:
    netdev.holes["type"] = "bridge"
    netdev.holes.setdefault("source_bridge", "br0")  # DEFAULT_BRIDGE_INTERFACE in QEMU's include/net/net.h
    netdev.vhost = "off"


# QEMU's keys of a socket and libvirt's types.
SOCKETS: Mapping[str, str] = {"listen": "server", "connect": "client", "mcast": "mcast", "udp": "udp"}


def _finish_socket(draft: Draft, word: Word, netdev: Netdev) -> None:
    key = next((key for key in SOCKETS if word.has(key)), None)
    if key is None:
        raise NotSayable("a socket that somebody else has opened")
    address, port = host_port(word.peek(key) or "")
    if key == "connect":
        address = address or "127.0.0.1"
    elif key != "listen" and not address:
        raise NotSayable(f"{key} without an address")
    netdev.holes = {"type": SOCKETS[key], "source_address": address or None, "source_port": port}
    local = word.peek("localaddr")
    if (key == "udp") != (local is not None):
        raise NotSayable("libvirt has a local address for udp, always and there only")
    if local is not None:
        local_address, local_port = host_port(local)
        netdev.holes |= {"local_address": local_address or None, "local_port": local_port}


def _finish_stream(draft: Draft, word: Word, netdev: Netdev) -> None:
    """Take a stream to passt: libvirt starts one of its own; what passt forwards is said to passt, not to QEMU."""
    if word.peek("addr.type") != "unix" or not _PASST_PATH.fullmatch(word.peek("addr.path") or ""):
        raise NotSayable("libvirt has no word for a stream other than to passt")
    if not draft.knows(PASST_SINCE):
        raise NotSayable("libvirt before 9.1 does not take passt")
    netdev.holes = {"type": "user", "backend_type": "passt"}


def _finish_vhost_user(draft: Draft, word: Word, netdev: Netdev) -> None:
    chardev = draft.find(word.peek("chardev"), "chardev")
    path = _socket_path(chardev)
    if chardev is None or path is None or not can_have(draft, chardev):
        raise NotSayable("libvirt's vhost-user wants a UNIX socket")
    netdev.queues = _queues(word)
    netdev.holes = {"type": "vhostuser"}
    netdev.words = (word, chardev)
    if _PASST_PATH.fullmatch(path) and draft.knows(PASST_VHOST_USER_SINCE):
        netdev.holes["backend_type"] = "passt"
        chardev.claim_all(Outcome.MANAGED, "libvirt starts passt itself")
        return
    source = read_chardev(draft, chardev)
    assert source is not None, "can_have said so"
    said = next(child for child in source.children if child.tag == "source")
    server = said.get("mode") == "bind"
    netdev.holes |= {
        "source_type": "unix", "source_path": said.get("path"), "source_mode": "server" if server else "client",
    }
    reconnect = said.find("reconnect")
    if reconnect is not None:
        netdev.holes["reconnect_enabled"] = reconnect.get("enabled")
        netdev.holes["reconnect_timeout"] = reconnect.get("timeout")


def _socket_path(chardev: Word | None) -> str | None:
    if chardev is None or (chardev.peek("backend") or chardev.peek("backend.type")) != "socket":
        return None
    return chardev.peek("path") or chardev.peek("backend.data.addr.data.path")


def _finish_vdpa(draft: Draft, word: Word, netdev: Netdev) -> None:
    path = netdev.holes.get("source_dev")
    if not path:
        raise NotSayable("a vdpa device that somebody else has opened")
    netdev.queues = _queues(word)
    netdev.holes["type"] = "vdpa"
    fdset = FDSET_PATH.fullmatch(path)
    if fdset:
        netdev.holes["source_dev"] = f"/dev/vhost-vdpa-{fdset[1]}"
        word.note(f"the device came as a descriptor; {netdev.holes['source_dev']} is a guess")
        claim_fdset(draft, path)


_OPENED = "the tap came as a descriptor; libvirt makes one itself, which is on no bridge"
_VHOST_OPENED = "libvirt opens /dev/vhost-net itself"
_PLUGGED = "libvirt plugs the tap into the bridge itself"
_PASST = "libvirt starts a passt of its own; what it forwards is for <portForward> to say"


def _descriptor(key: str, note: str) -> Key:
    return Key(key=key, hole=None, outcome=Outcome.MANAGED, note=note)


KINDS: Mapping[str, Kind] = {
    "user": Kind(finish=_finish_user, keys=(
        Key(key="net", hole="ipv4_address", read=_ipv4_network),
        Key(key="ipv6-prefix", hole="ipv6_address", read=_ipv6_prefix),
        Key(key="ipv6-prefixlen", hole="ipv6_prefix", read=number_up_to(128)),
        Key(key="ipv4", hole=None, read=only_if("on")),
        Key(key="ipv6", hole=None, read=only_if("on")),
        Key(key="restrict", hole=None, read=only_if("off")),
    )),
    "tap": Kind(finish=_finish_tap, keys=(
        Key(key="ifname", hole="target_dev", read=device_name),
        Key(key="script", hole="script", read=_script),
        Key(key="downscript", hole="downscript", read=_script, since=(5, 1)),
        Key(key="br", hole="source_bridge", read=device_name),
        Key(key="helper", hole=None, outcome=Outcome.SUBSTITUTED, note=_PLUGGED),
        Key(key="vhost", hole="driver_name", read=lambda value: on_off(value) and None),
        Key(key="vhostforce", hole="driver_name", read=lambda value: on_off(value) and None),
        Key(key="queues", hole="queues", read=number_up_to(256)),
        Key(key="sndbuf", hole="sndbuf", read=number),
        _descriptor("fd", _OPENED),
        _descriptor("fds", _OPENED),
        _descriptor("vhostfd", _VHOST_OPENED),
        _descriptor("vhostfds", _VHOST_OPENED),
        Key(key="vnet_hdr", hole=None, read=only_if("on")),
        Key(key="poll-us", hole=None, outcome=Outcome.DROPPED, note="libvirt has no word for how vhost polls"),
    )),
    "bridge": Kind(finish=_finish_bridge, keys=(
        Key(key="br", hole="source_bridge", read=device_name),
        Key(key="helper", hole=None, outcome=Outcome.SUBSTITUTED, note=_PLUGGED),
    )),
    "socket": Kind(finish=_finish_socket, keys=tuple(
        Key(key=key, hole="source_address") for key in (*SOCKETS, "localaddr")
    )),
    "stream": Kind(finish=_finish_stream, keys=(
        Key(key="server", hole=None, read=only_if("off")),
        Key(key="addr.type", hole="backend_type"),
        Key(key="addr.path", hole=None, outcome=Outcome.SUBSTITUTED, note=_PASST),
        Key(key="reconnect", hole=None, outcome=Outcome.MANAGED),
        Key(key="reconnect-ms", hole=None, outcome=Outcome.MANAGED),
    )),
    "vhost-user": Kind(finish=_finish_vhost_user, keys=(
        Key(key="chardev", hole="source_path"),
        Key(key="queues", hole="queues", read=number_up_to(256)),
        Key(key="vhostforce", hole=None, read=only_if("on")),
    )),
    "vhost-vdpa": Kind(finish=_finish_vdpa, keys=(
        Key(key="vhostdev", hole="source_dev", read=_device_name),
        Key(key="queues", hole="queues", read=number_up_to(256)),
    )),
}

TABLES: tuple[Table, ...] = tuple(
    Table(group="netdev", selector=("type", name), keys=kind.keys) for name, kind in KINDS.items()
)
