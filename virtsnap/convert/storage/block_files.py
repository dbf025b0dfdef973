"""A file name of QEMU's block layer becomes the keys of a -blockdev node.

`nbd:host:10809:exportname=x`, `rbd:pool/image:conf=…`, `iscsi://…`, `ssh://…`,
`fat:floppy:/dir`, `json:{…}`: all of them have a form in keys, and only that
is understood further on. Rules: path_has_protocol() in QEMU's block.c and
the *_parse_filename() functions of its block drivers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from virtsnap.command_line.keyval import parse_json
from virtsnap.convert.ledger import NotSayable
from virtsnap.convert.values import is_digits

Keys = list[tuple[str, str]]

# Paths that QEMU opens as a device of the host; others below /dev are files in disguise.
_DEVICE = re.compile(r"/dev/(?!fd/|fdset/|shm/|stdin$|null$|zero$).+")
_CDROM = re.compile(r"/dev/(?:cdrom[0-9]*|cdrw[0-9]*|dvd[0-9]*|dvdrw[0-9]*|sr[0-9]+|scd[0-9]+)")


def parse_file_name(text: str) -> Keys:
    """Give the keys of the protocol node that QEMU makes of a file name.

    Raises NotSayable for a protocol that no key form is known of, and
    SyntaxFault for json: that is none.
    """
    head, colon, rest = text.partition(":")
    if colon and "/" not in head:
        if head == "json":
            return [(item.key, item.value) for item in parse_json(rest)]
        reader = _PROTOCOLS.get(head)
        if reader is None:
            raise NotSayable(f"libvirt has no word for the protocol {head}")
        return reader(text)
    return [("driver", driver_of_path(text)), ("filename", text)]


def driver_of_path(path: str) -> str:
    """Give the driver that QEMU takes for a plain path: host_device for a device of the host, else file."""
    if _CDROM.fullmatch(path):
        return "host_cdrom"
    return "host_device" if _DEVICE.fullmatch(path) else "file"


def _path(driver: str) -> Callable[[str], Keys]:
    def read(text: str) -> Keys:
        return [("driver", driver), ("filename", text.partition(":")[2])]

    return read


def parse_url(text: str) -> SplitResult:
    """Split an URL; raises NotSayable for what is none."""
    try:
        found = urlsplit(text)
        _ = found.port
    except ValueError as exc:
        raise NotSayable(f"{text!r} is no URL: {exc}") from exc
    return found


def _server(prefix: str, url: SplitResult, default_port: str | None, socket: str | None = None) -> Keys:
    if socket is not None:
        return [(f"{prefix}.type", "unix"), (f"{prefix}.path", socket)]
    keys = [(f"{prefix}.type", "inet"), (f"{prefix}.host", url.hostname or "localhost")]
    port = str(url.port) if url.port else default_port
    return [*keys, (f"{prefix}.port", port)] if port else keys


def _nbd(text: str) -> Keys:
    if re.match(r"nbd(?:\+\w+)?://", text):
        url = parse_url(text)
        socket = dict(parse_qsl(url.query)).get("socket")
        export = unquote(url.path.removeprefix("/"))
        keys = [("driver", "nbd"), *_server("server", url, "10809", socket)]
    else:
        rest, _, export = text.removeprefix("nbd:").partition(":exportname=")
        keys = [("driver", "nbd")]
        if rest.startswith("unix:"):
            keys += [("server.type", "unix"), ("server.path", rest.removeprefix("unix:"))]
        else:
            host, _, port = rest.rpartition(":")
            keys += [("server.type", "inet"), ("server.host", host.strip("[]")), ("server.port", port)]
    return [*keys, ("export", export)] if export else keys


def _rbd(text: str) -> Keys:
    first, *options = re.split(r"(?<!\\):", text.removeprefix("rbd:"))
    pool, _, image = _plain(first).partition("/")
    image, _, snapshot = image.partition("@")
    namespace, slash, name = image.partition("/")
    keys = [("driver", "rbd"), ("pool", pool), ("image", name if slash else image)]
    if slash:
        keys.append(("namespace", namespace))
    if snapshot:
        keys.append(("snapshot", snapshot))
    for option in options:
        key, _, value = option.partition("=")
        value = _plain(value)
        match key:
            case "id":
                keys.append(("user", value))
            case "mon_host":
                keys += _monitors(value)
            case "auth_supported":
                keys += [(f"auth-client-required.{n}", word) for n, word in enumerate(value.split(";"))]
            case _:
                keys.append((key, value))
    return keys


def _plain(text: str) -> str:
    """Take rbd's backslashes away; a line break behind one is QEMU's continued line."""
    return re.sub(r"\\(.|\n)", lambda found: "" if found[1] == "\n" else found[1], text)


def _monitors(value: str) -> Keys:
    keys: Keys = []
    for number, monitor in enumerate(filter(None, value.split(";"))):
        found = re.fullmatch(r"(?:\[(?P<six>[^]]*)\]|(?P<name>[^:]*))(?::(?P<port>[0-9]+))?", monitor)
        if found is None:
            raise NotSayable(f"{monitor!r} is no address of a monitor")
        keys.append((f"server.{number}.host", found["six"] or found["name"]))
        keys.append((f"server.{number}.port", found["port"] or "6789"))
    return keys


def _iscsi(text: str) -> Keys:
    url = parse_url(text)
    target, slash, lun = unquote(url.path.removeprefix("/")).rpartition("/")
    if not slash:
        target, lun = lun, "0"
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
    keys = [
        ("driver", "iscsi"), ("transport", "iser" if url.scheme == "iser" else "tcp"),
        ("portal", f"{host}:{url.port or 3260}"), ("target", target), ("lun", lun),
    ]
    if url.username:
        # libiscsi has user%password; user:password is what URLs usually have
        user, _, password = url.username.partition("%")
        keys += [("user", user), ("password", unquote(url.password or password))]
    return keys


def _ssh(text: str) -> Keys:
    url = parse_url(text)
    keys = [("driver", "ssh"), *_server("server", url, "22"), ("path", unquote(url.path))]
    if url.username:
        keys.append(("user", unquote(url.username)))
    return [*keys, *((key.replace("_", "-"), value) for key, value in parse_qsl(url.query))]


def _curl(text: str) -> Keys:
    return [("driver", text.partition(":")[0]), ("url", text)]


def _gluster(text: str) -> Keys:
    url = parse_url(text)
    query = dict(parse_qsl(url.query))
    volume, _, path = unquote(url.path.removeprefix("/")).partition("/")
    server = _server("server.0", url, "24007", query.pop("socket", None))
    return [("driver", "gluster"), ("volume", volume), ("path", path), *server, *query.items()]


def _sheepdog(text: str) -> Keys:
    if re.match(r"sheepdog(?:\+\w+)?://", text):
        url = parse_url(text)
        socket = dict(parse_qsl(url.query)).get("socket")
        server = _server("server", url, "7000", socket) if url.netloc or socket else []
        return [("driver", "sheepdog"), *server, ("vdi", unquote(url.path.removeprefix("/")))]
    parts = text.removeprefix("sheepdog:").split(":")
    if len(parts) < 3:
        return [("driver", "sheepdog"), ("vdi", ":".join(parts))]
    return [
        ("driver", "sheepdog"), ("server.type", "inet"), ("server.host", parts[0]), ("server.port", parts[1]),
        ("vdi", ":".join(parts[2:])),
    ]


def _nfs(text: str) -> Keys:
    url = parse_url(text)
    query = [({"uid": "user", "gid": "group"}.get(key, key), value) for key, value in parse_qsl(url.query)]
    return [
        ("driver", "nfs"), ("server.type", "inet"), ("server.host", url.hostname or ""),
        ("path", unquote(url.path)), *query,
    ]


def _fat(text: str) -> Keys:
    keys = [("driver", "vvfat")]
    rest = text.removeprefix("fat:")
    while found := re.match(r"(floppy|rw|12|16|32):", rest):
        word = found[1]
        keys.append(("fat-type", word) if is_digits(word) else (word, "on"))
        rest = rest[found.end() :]
    return [*keys, ("dir", rest)]


def _nvme(text: str) -> Keys:
    device, _, namespace = text.removeprefix("nvme://").partition("/")
    return [("driver", "nvme"), ("device", device), ("namespace", namespace)]


_PROTOCOLS: Mapping[str, Callable[[str], Keys]] = {
    "file": _path("file"), "host_device": _path("host_device"), "host_cdrom": _path("host_cdrom"),
    "nbd": _nbd, "nbd+tcp": _nbd, "nbd+unix": _nbd,
    "rbd": _rbd, "iscsi": _iscsi, "iser": _iscsi, "ssh": _ssh,
    "http": _curl, "https": _curl, "ftp": _curl, "ftps": _curl, "tftp": _curl,
    "gluster": _gluster, "gluster+tcp": _gluster, "gluster+unix": _gluster, "gluster+rdma": _gluster,
    "sheepdog": _sheepdog, "sheepdog+tcp": _sheepdog, "sheepdog+unix": _sheepdog,
    "nfs": _nfs, "fat": _fat, "nvme": _nvme,
}
