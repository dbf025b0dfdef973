"""A backend of QEMU's block layer becomes libvirt's <source>, with its backing chain.

One row for each of QEMU's protocol drivers: which <disk type> it is, which
keys it has, and a function for what a row cannot say (hosts, names made of
several keys).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.convert.claims import Options
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome
from virtsnap.convert.rows import Key, Table, Version
from virtsnap.convert.storage.block_files import parse_url
from virtsnap.convert.storage.block_graph import FORMATS, Backend
from virtsnap.convert.storage.disk_secrets import passphrase
from virtsnap.convert.values import (
    FALSE_WORDS,
    generic_name,
    host,
    is_digits,
    number,
    one_of,
    only_if,
    parse_switch,
    port,
    size_in,
    yes_no,
)
from virtsnap.domain_xml.templates import Element

Holes = dict[str, str | None]

# QEMU's words for how an image is encrypted, and libvirt's.
_ENCRYPTIONS = one_of({"luks": "luks", "luks2": "luks2", "luks-any": "luks-any", "aes": "qcow"})


@dataclass(frozen=True, kw_only=True)
class StorageRow:
    """One protocol driver of QEMU: libvirt's <disk type>, constant holes, keys, and what they cannot say."""

    type: str
    holes: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    more: Callable[[Draft, Options, Holes], list[Element]] | None = None
    since: Version = (0, 0)


@dataclass(kw_only=True)
class DiskSource:
    """What a backend is in the domain: <disk type>, <driver type>, <source>, <backingStore>."""

    type: str
    format: str | None
    element: Element
    backing: Element | None


def describe_source(draft: Draft, backend: Backend) -> DiskSource:
    """Describe a backend, claims kept back in it; raises NotSayable for what libvirt has no word for."""
    storage = backend.storage
    driver = storage.get("driver") or storage.get("format") or ""
    row = STORAGE.get(driver)
    if row is None:
        raise NotSayable(f"libvirt has no word for the block driver {driver}")
    if draft.target < row.since:
        raise NotSayable(f"the block driver {driver} came with libvirt {row.since[0]}.{row.since[1]}")
    holes: Holes = {**row.holes, **storage.read(row.keys, draft.target)}
    children = row.more(draft, storage, holes) if row.more else []
    holes |= _slice(backend) | _encryption(draft, backend, driver)
    element = draft.fill("disk_source", holes)
    if storage.has("encrypt.parent.format"):
        _parents_secrets(draft, storage, element)
    for number_, child in enumerate(children):
        element.insert(number_, child)
    if backend.data_file is not None:
        element.append(_data_store(draft, backend.data_file))
    format_ = "fat" if driver == "vvfat" else FORMATS.get(backend.format or "raw")
    if format_ is None:
        raise NotSayable(f"libvirt has no word for the format {backend.format}")
    return DiskSource(type=row.type, format=format_, element=element, backing=_backing(draft, backend))


def _backing(draft: Draft, backend: Backend) -> Element | None:
    if backend.ends:
        return etree.Element("backingStore")
    if backend.backing is None:
        return None
    below = describe_source(draft, backend.backing)
    _take_common(backend.backing)
    element = draft.fill("disk_backing", {"type": below.type, "format": below.format})
    element.append(below.element)
    if below.backing is not None:
        element.append(below.backing)
    return element


def _data_store(draft: Draft, backend: Backend) -> Element:
    if not draft.knows(DATA_STORE_SINCE):
        raise NotSayable("libvirt knows a data file of qcow2 only since 10.10")
    below = describe_source(draft, backend)
    _take_common(backend)
    element = draft.fill("disk_data_store", {"type": below.type, "format": below.format})
    element.append(below.element)
    return element


# <dataStore> came with libvirt 10.10.
DATA_STORE_SINCE = (10, 10)

# Keys of nodes below the guest's own image: libvirt sets them itself, like those of the image above.
COMMON = (
    "node-name", "id", "driver", "read-only", "auto-read-only", "discard", "detect-zeroes", "cache.direct",
    "cache.no-flush", "aio",
)


def _take_common(backend: Backend) -> None:
    for key in COMMON:
        backend.take(key, outcome=Outcome.IMPLIED)


def _slice(backend: Backend) -> Holes:
    if backend.slice is None:
        return {}
    offset, size = backend.slice.take("offset") or "0", backend.slice.take("size")
    if size is None:
        raise NotSayable("libvirt's slices have a size, and the command line gives none")
    plain = size_in(1)
    return {"slice_type": "storage", "slice_offset": plain(offset), "slice_size": plain(size)}


def _encryption(draft: Draft, backend: Backend, driver: str) -> Holes:
    """Find the passphrase of a luks image: a format of its own, or qcow2's, or rbd's."""
    if driver == "rbd" and (backend.storage.has("encrypt.format")):
        return _layered_encryption(draft, backend.storage)
    options = backend.format_options
    if options is None:
        return {}
    key = "key-secret" if backend.format == "luks" else "encrypt.key-secret"
    if not options.has(key):
        if options.has("encrypt.format") or backend.format == "luks":
            raise NotSayable("an encrypted image without a passphrase")
        return {}
    kind = "luks" if backend.format == "luks" else _ENCRYPTIONS(options.take("encrypt.format") or "luks")
    return {
        "encryption": kind, "encryption_type": "passphrase",
        "encryption_usage": passphrase(draft, backend.claims, options.take(key) or ""),
    }


def _layered_encryption(draft: Draft, storage: Options) -> Holes:
    """Read rbd's own encryption."""
    kind = _ENCRYPTIONS(storage.take("encrypt.format") or "luks")
    if kind == "luks-any" and not draft.knows((9, 3)):
        raise NotSayable("the encryption luks-any came with libvirt 9.3")
    return {
        "encryption": kind, "encryption_engine": "librbd", "encryption_type": "passphrase",
        "encryption_usage": passphrase(draft, storage.claims, storage.take("encrypt.key-secret") or ""),
    }


def _parents_secrets(draft: Draft, storage: Options, element: Element) -> None:
    """Write the passphrases of rbd's parent images behind the first: libvirt has them in a row."""
    if not draft.knows((9, 3)):
        raise NotSayable("the encrypted parent of an rbd image came with libvirt 9.3")
    encryption = element.find("encryption")
    assert encryption is not None, "an encrypted image has an encrypted parent only"
    prefix = "encrypt.parent"
    while storage.has(f"{prefix}.format"):
        if storage.take(f"{prefix}.format") != storage.get("encrypt.format"):
            raise NotSayable("the parent of an encrypted rbd image is encrypted otherwise")
        usage = passphrase(draft, storage.claims, storage.take(f"{prefix}.key-secret") or "")
        etree.SubElement(encryption, "secret", type="passphrase", usage=usage)
        prefix += ".parent"


# What the functions of single protocols share.


def _host(draft: Draft, options: Options, prefix: str, *, default_port: str | None = None) -> Element:
    """Read one server: a name and port, or a socket."""
    start = f"{prefix}." if prefix else ""
    kind = options.take(start + "type") or ("unix" if options.has(start + "path") and prefix else "inet")
    if kind == "unix":
        path = options.take_any(start + "path", start + "socket")
        return draft.fill("disk_host", {"transport": "unix", "socket": draft.absolute(path or "/")})
    if kind not in {"inet", "tcp"}:
        raise NotSayable(f"libvirt has no word for a server of the type {kind}")
    name, found = options.take(start + "host"), options.take(start + "port")
    name = host(name or "")
    return draft.fill("disk_host", {"name": name, "port": port(found) if found else default_port})


def _hosts(draft: Draft, options: Options) -> list[Element]:
    """Read server.0, server.1 …"""
    found = {int(m[1]) for entry in options.entries if (m := re.match(r"server\.([0-9]{1,4})\.", entry.key))}
    return [_host(draft, options, f"server.{index}") for index in sorted(found)]


def _file(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["file"] = _path(draft, options, "filename")
    return []


def _device(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["dev"] = _path(draft, options, "filename")
    manager = options.get("pr-manager")
    word = draft.find(manager, "object")
    if word is not None and word.peek("path"):
        options.take("pr-manager")
        path = word.peek("path") or ""
        if path.endswith(f"/{manager}.sock") and manager == "pr-helper0":
            holes["reservations_managed"] = "yes"
        else:
            holes |= {
                "reservations_managed": "no", "reservations_type": "unix",
                "reservations_path": draft.absolute(path), "reservations_mode": "client",
            }
        options.claims.take_word(word, Outcome.MAPPED)
    return []


def _path(draft: Draft, options: Options, key: str) -> str:
    path = draft.absolute(_needed(options, key))
    if not path.strip("/"):
        raise NotSayable(f"{path} is no image")
    return path


def _needed(options: Options, key: str) -> str:
    value = options.take(key)
    if not value:
        raise NotSayable(f"{key} is missing")
    return value


def _nbd(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    creds = options.take("tls-creds")
    if creds is not None:
        word = draft.find(creds, "object")
        if word is None:
            raise NotSayable(f"no -object has the id {creds}")
        holes["tls"] = "yes"
        where = "libvirt takes the certificates from nbd_tls_x509_cert_dir of its qemu.conf"
        options.claims.take_word(word, Outcome.MANAGED, where)
        if word.has("passwordid"):
            passphrase(draft, options.claims, word.peek("passwordid") or "")
    if any(entry.key.startswith("server.") for entry in options.entries):
        return [_host(draft, options, "server", default_port="10809")]
    return [_host(draft, options, "", default_port="10809")]


def _rbd(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    parts = [_needed(options, "pool"), options.take("namespace"), _needed(options, "image")]
    holes["name"] = "/".join(part for part in parts if part)
    conf = options.take("conf")
    holes["config"] = draft.absolute(conf) if conf else None
    for entry in options.entries:
        # libvirt asks for cephx where it has a passphrase, and for none else.
        if entry.key.startswith("auth-client-required."):
            options.take(entry.key, Outcome.IMPLIED)
    user = options.take("user")
    if user is not None:
        generic_name(user)
        secret = options.take("key-secret")
        if secret is None:
            raise NotSayable("libvirt wants a passphrase for an rbd user, and the command line gives none")
        holes |= {"user": user, "auth_type": "ceph", "auth_usage": passphrase(draft, options.claims, secret)}
    return _hosts(draft, options)


def _iscsi(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    target, lun = _needed(options, "target"), options.take("lun") or "0"
    holes["name"] = f"{target}/{lun}"
    portal = _needed(options, "portal")
    found = re.fullmatch(r"(?:\[(?P<six>[^]]+)\]|(?P<name>[^:]+))(?::(?P<port>[0-9]+))?(?:,[0-9]+)?", portal)
    if found is None:
        raise NotSayable(f"{portal!r} is no iSCSI portal")
    user = options.take("user")
    if user is not None:
        generic_name(user)
        usage = target
        if options.has("password-secret"):
            usage = passphrase(draft, options.claims, options.take("password-secret") or "")
        elif options.has("password"):
            note = f"define it as a libvirt secret of type iscsi with the usage {usage}"
            options.take("password", Outcome.MANAGED, note)
            options.claims.warnings.append(f"the password of {target}: {note}")
        holes |= {"user": user, "auth_type": "iscsi", "auth_usage": usage}
    if "initiator" not in holes:
        holes["initiator"] = _initiator(draft, options)
    name = host(found["six"] or found["name"])
    return [draft.fill("disk_host", {"name": name, "port": port(found["port"] or "3260")})]


def _initiator(draft: Draft, options: Options) -> str | None:
    """Give the initiator's name that -iscsi sets for all."""
    word = draft.last("iscsi")
    if word is None or not word.has("initiator-name"):
        return None
    options.claims.take_word(word, Outcome.MAPPED)
    return word.peek("initiator-name")


def _ssh(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["name"] = _needed(options, "path")
    if options.has("user"):
        # <identity username=…> wants a key or an agent beside it, which only nbdkit takes.
        raise NotSayable("libvirt has no word for the user without a key")
    check = options.below("host-key-check")
    mode = check.get("mode")
    if mode is not None or options.get("host-key-check") not in {None, "yes"}:
        raise NotSayable("libvirt has no word for how the host's key is checked")
    options.take("host-key-check", Outcome.IMPLIED)
    prefix = "server" if any(entry.key.startswith("server.") for entry in options.entries) else ""
    if not prefix:
        name, port = options.take("host"), options.take("port") or "22"
        return [draft.fill("disk_host", {"name": name, "port": port})]
    return [_host(draft, options, prefix, default_port="22")]


# What libvirt's schema has for a cookie.
_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z|~]+")
_COOKIE_VALUE = re.compile(r"\"?[!#$%&'()*+\-./0-9:>=<?@A-Z^_`\[\]a-z|~]+\"?")


def _curl(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    url = parse_url(_needed(options, "url"))
    default = {"http": "80", "https": "443", "ftp": "21", "ftps": "990", "tftp": "69"}
    if url.scheme not in default or not url.hostname:
        raise NotSayable(f"{url.geturl()!r} is no URL that libvirt could name")
    if url.username or url.password:
        raise NotSayable("libvirt wants a secret for the user in an URL")
    holes |= {"protocol": url.scheme, "name": url.path.removeprefix("/"), "query": url.query or None}
    if url.query and url.scheme not in {"http", "https"}:
        raise NotSayable(f"libvirt has no query for {url.scheme}")
    children = [draft.fill("disk_host", {"name": url.hostname, "port": str(url.port or default[url.scheme])})]
    cookies = options.take("cookie")
    if cookies:
        element = etree.Element("cookies")
        for cookie in filter(None, (part.strip() for part in cookies.split(";"))):
            name, _, value = cookie.partition("=")
            if not _COOKIE_NAME.fullmatch(name) or not _COOKIE_VALUE.fullmatch(value):
                raise NotSayable(f"libvirt takes no cookie such as {cookie!r}")
            element.append(draft.fill("disk_cookie", {"name": name, "value": value}))
        if len(element):
            children.append(element)
    return children


def _gluster(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["name"] = f"{_needed(options, 'volume')}/{_needed(options, 'path').removeprefix('/')}"
    return _hosts(draft, options)


def _sheepdog(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["name"] = _needed(options, "vdi")
    if any(entry.key.startswith("server.") for entry in options.entries):
        return [_host(draft, options, "server", default_port="7000")]
    return [draft.fill("disk_host", {"name": "localhost", "port": "7000"})]


def _nfs(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["name"] = _needed(options, "path")
    options.take("server.type")
    children = [draft.fill("disk_host", {"name": host(_needed(options, "server.host"))})]
    if not (options.has("user") or options.has("group")) and not draft.knows((9, 1)):
        children.append(etree.Element("identity"))  # the schema of 9.0 does not let it be left out
    return children


def _vvfat(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["dir"] = _path(draft, options, "dir")
    return []


def _nvme(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    address = _needed(options, "device")
    found = re.fullmatch(r"(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])", address)
    if found is None:
        raise NotSayable(f"{address!r} is no PCI address")
    domain, bus, slot, function = (int(part or "0", 16) for part in found.groups())
    holes |= {
        "pci_domain": f"0x{domain:04x}", "pci_bus": f"0x{bus:02x}", "pci_slot": f"0x{slot:02x}",
        "pci_function": f"0x{function:x}",
    }
    return []


def _vdpa(draft: Draft, options: Options, holes: Holes) -> list[Element]:
    holes["dev"] = _path(draft, options, "path")
    return []


def _off(value: str) -> str | None:
    """Take what is off as what the domain has anyway."""
    if value.lower() not in FALSE_WORDS:
        raise NotSayable(f"libvirt has no word for {value!r}")
    return None


def _plus(value: str) -> str:
    """Write a numeric user or group as libvirt does; a name stays one."""
    return generic_name(f"+{value}" if is_digits(value) else value)


def _floppy(value: str) -> str | None:
    # libvirt sets it for a floppy disk of the guest, by itself.
    parse_switch(value)
    return None


_TIMEOUT = Key(key="timeout", hole="timeout", read=number)
_READAHEAD = Key(key="readahead", hole="readahead", read=size_in(1))
_SSL = Key(key="sslverify", hole="ssl_verify", read=yes_no)
_LOCKING = Key(
    key="locking", hole=None, read=lambda value: None if value == "auto" else value, outcome=Outcome.DROPPED,
    note="libvirt has no word for it; QEMU locks where it can",
)


def _of_protocol(protocol: str, keys: tuple[Key, ...], more: Callable[[Draft, Options, Holes], list[Element]],
                 since: Version = (0, 0)) -> StorageRow:
    return StorageRow(type="network", holes={"protocol": protocol}, keys=keys, more=more, since=since)


STORAGE: Mapping[str, StorageRow] = {
    "file": StorageRow(type="file", keys=(_LOCKING,), more=_file),
    "host_device": StorageRow(type="block", keys=(_LOCKING,), more=_device),
    "host_cdrom": StorageRow(type="block", keys=(_LOCKING,), more=_device),
    "nbd": _of_protocol(
        "nbd",
        (
            Key(key="export", hole="name"),
            Key(key="tls-hostname", hole="tls_hostname", since=(8, 2)),
            Key(key="reconnect-delay", hole="reconnect_delay", read=number, since=(9, 1)),
        ),
        _nbd,
    ),
    "rbd": _of_protocol("rbd", (Key(key="snapshot", hole="snapshot_name", read=generic_name),), _rbd),
    "iscsi": _of_protocol(
        "iscsi",
        (Key(key="transport", hole=None, read=only_if("tcp")), Key(key="initiator-name", hole="initiator")),
        _iscsi,
    ),
    "ssh": _of_protocol("ssh", (), _ssh, since=(9, 8)),
    **{scheme: _of_protocol(scheme, (_READAHEAD, _TIMEOUT), _curl) for scheme in ("http", "ftp", "tftp")},
    **{scheme: _of_protocol(scheme, (_READAHEAD, _TIMEOUT, _SSL), _curl) for scheme in ("https", "ftps")},
    "gluster": _of_protocol(
        "gluster",
        (
            Key(key="debug", hole=None, outcome=Outcome.MANAGED, note="gluster_debug_level of qemu.conf"),
            Key(key="logfile", hole=None, outcome=Outcome.MANAGED, note="libvirt chooses the log file"),
        ),
        _gluster,
    ),
    "sheepdog": _of_protocol("sheepdog", (), _sheepdog),
    "nfs": _of_protocol(
        "nfs",
        (Key(key="user", hole="identity_user", read=_plus), Key(key="group", hole="identity_group", read=_plus)),
        _nfs,
    ),
    "vvfat": StorageRow(
        type="dir",
        keys=(Key(key="floppy", hole=None, read=_floppy), Key(key="rw", hole=None, read=_off)), more=_vvfat,
    ),
    "nvme": StorageRow(
        type="nvme", holes={"kind": "pci", "managed": "no"},
        keys=(Key(key="namespace", hole="namespace", read=number),), more=_nvme,
    ),
    "virtio-blk-vhost-vdpa": StorageRow(type="vhostvdpa", more=_vdpa, since=(9, 8)),
}

TABLES: Sequence[Table] = tuple(
    Table(group="blockdev", selector=("driver", driver), keys=row.keys)
    for driver, row in STORAGE.items()
    if row.keys
)
