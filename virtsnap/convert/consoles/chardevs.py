"""A character device's backend becomes `type`, <source>, <protocol> and <log> of the element that uses it.

Serial ports, channels, smart cards, redirected USB and libvirt's other
character devices have these in common. The backend is a -chardev, in either
notation (JSON nests its keys under backend.data), or a short form such as
`-serial tcp::4444,server=on` that carries it in itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Table, Version, read_keys
from virtsnap.convert.unwritten.readconfig import unread_configs
from virtsnap.convert.values import is_digits, number_up_to, on_off, one_line, one_of, yes_no
from virtsnap.domain_xml.templates import Element
from virtsnap.errors import CommandLineError

Holes = dict[str, str | None]

VDAGENT_SINCE: Version = (8, 4)
DBUS_SINCE: Version = (8, 4)

# What an empty host means to QEMU (inet_listen_saddr, inet_connect_saddr in util/qemu-sockets.c).
ANY_ADDRESS, OWN_ADDRESS = "0.0.0.0", "127.0.0.1"  # noqa: S104

# Descriptors of the process that starts QEMU; behind these names libvirt's QEMU has others.
DESCRIPTOR_PATH = re.compile(r"/dev/(?:stdin|stdout|stderr|tty|fd/[0-9]+)|/proc/self/fd/[0-9]+")
FDSET_PATH = re.compile(r"/dev/fdset/([0-9]+)")

PTY_NOTE = "a pseudo terminal instead, which `virsh console` reaches: libvirt's QEMU has no terminal"
FDSET_NOTE = "libvirt opens the file itself and passes a descriptor"


@dataclass(frozen=True, kw_only=True)
class ChardevSource:
    """A backend in libvirt's words, ready to be put into any number of elements."""

    type: str
    children: tuple[Element, ...]
    word: Word

    def put_into(self, element: Element) -> None:
        """Set the element's type and put the children before its own."""
        element.set("type", self.type)
        for index, child in enumerate(self.children):
            element.insert(index, copy.deepcopy(child))


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One kind of backend: QEMU's names for it, libvirt's type, its keys.

    `finish` completes the holes where a key alone cannot say it, and may
    choose another type. `substitute` is the note where the type is not the
    same thing but does the same for the guest. `nested` are the keys of the
    JSON notation.
    """

    names: tuple[str, ...]
    type: str
    keys: tuple[Key, ...] = ()
    nested: tuple[Key, ...] = ()
    finish: Callable[[Draft, Word, Holes], str | None] | None = None
    substitute: str | None = None
    since: Version = (0, 0)


def find_chardev(draft: Draft, word: Word, key: str = "chardev") -> Word | None:
    """Give the -chardev that a word names; None where it names none.

    Raises CommandLineError for an id that no -chardev has.
    """
    id_ = word.peek(key)
    if not id_:
        return None
    found = draft.find(id_, "chardev")
    known = any(other.peek("id") == id_ for other in draft.said("chardev"))
    if not known and not unread_configs(draft.command_line):
        raise CommandLineError(
            f"{word.option.text}: no -chardev has the id {id_}",
            argument=word.option.last,
            hint=f"add -chardev …,id={id_}",
        )
    return found


def read_chardev(draft: Draft, backend: Word | None, *, path_of_libvirt: bool = False) -> ChardevSource | None:
    """Take a backend's keys and give it in libvirt's words.

    `backend` is a -chardev, or an option in the short form. None, with nothing
    claimed, where libvirt cannot have it at all: then backend and frontend
    must go to QEMU as they stand. With `path_of_libvirt` a socket that came as
    a descriptor gets no path, because libvirt makes one itself (channels).
    """
    if backend is None:
        return None
    row = backend_row(backend)
    if row is None or draft.target < row.since or _unsayable(draft, backend, row):
        return None
    holes: Holes = dict(read_keys(backend, (*COMMON, *row.keys, *row.nested), draft.target))
    backend.claim("backend", Outcome.MAPPED)
    backend.claim("backend.type", Outcome.MAPPED)
    type_ = (row.finish(draft, backend, holes) if row.finish else None) or row.type
    if row.substitute is not None:
        _substitute(backend, row.substitute)
    _log_file(draft, backend, holes)
    if type_ == "unix" and not holes.get("path") and path_of_libvirt:
        # libvirt makes a listening socket and its path where a channel has no <source>.
        holes["mode"] = holes["path"] = None
    elif type_ == "unix" and not holes.get("path"):
        holes["path"] = lost_path(draft, backend, ".sock")
        backend.note(f"the socket came as a descriptor; it is now at {holes['path']}")
    element = draft.fill("chardev", {"type": type_, **holes})
    return ChardevSource(type=type_, children=tuple(element), word=backend)


def put_chardev(
    draft: Draft, element: Element, word: Word, key: str = "chardev", *, path_of_libvirt: bool = False
) -> bool:
    """Put the backend that a device names into its element; False where libvirt cannot have it.

    Claims the device's key and notes for the backend that it stands in the element.
    """
    source = read_chardev(draft, find_chardev(draft, word, key), path_of_libvirt=path_of_libvirt)
    if source is None:
        return False
    word.claim(key, Outcome.MAPPED)
    source.put_into(element)
    source.word.land(element)
    return True


def backend_row(backend: Word) -> Backend | None:
    """Give the row of a backend."""
    return BACKEND_OF.get(backend.peek("backend") or backend.peek("backend.type") or "")


def can_have(draft: Draft, backend: Word | None) -> bool:
    """Tell, without claiming anything, whether libvirt has a backend."""
    row = None if backend is None else backend_row(backend)
    if backend is None or row is None:
        return False
    return draft.target >= row.since and not _unsayable(draft, backend, row)


def lost_path(draft: Draft, backend: Word, suffix: str) -> str:
    """Make up a path in libvirt's own folder for a file that was given as an inherited descriptor."""
    id_ = re.sub(r"[^\w.-]", "_", backend.peek("id") or backend.group)
    return f"/var/lib/libvirt/qemu/{re.sub(r'[^A-Za-z0-9_.-]', '_', draft.name)}-{id_}{suffix}"


def claim_fdset(draft: Draft, path: str) -> None:
    """Claim the -add-fd words of /dev/fdset/N: whoever starts QEMU opens what stands behind them."""
    found = FDSET_PATH.fullmatch(path)
    for word in draft.group("add-fd"):
        if found is not None and word.peek("set") == found.group(1):
            word.claim_all(Outcome.MANAGED, FDSET_NOTE)


def _unsayable(draft: Draft, backend: Word, row: Backend) -> bool:
    # libvirt refuses SPICE's channels in a domain without SPICE (qemuValidateDomainChrSourceDef), QEMU does not
    if row.type in {"spicevmc", "spiceport"} and not (
        draft.group("spice") or any(word.peek("type") == "spice-app" for word in draft.group("display"))
    ):
        return True
    return any(
        (item.key.rpartition(".")[2] in PATHS and item.value and draft.in_base(item.value) == "/")
        or (item.key.removeprefix("backend.data.") in SWITCHES_WITHOUT_WORD and item.value not in {"off", ""})
        or (item.key == "backend.data.addr.type" and item.value == "vsock")
        for item in backend.properties
    )


def _substitute(backend: Word, note: str) -> None:
    backend.claim_rest(Outcome.SUBSTITUTED)
    backend.claim("backend", Outcome.SUBSTITUTED)
    backend.claim("backend.type", Outcome.SUBSTITUTED)
    backend.note(note)


def _log_file(draft: Draft, backend: Word, holes: Holes) -> None:
    path = holes.get("log_file")
    if not path:
        holes.pop("log_append", None)
        return
    if FDSET_PATH.fullmatch(path):
        claim_fdset(draft, path)
        holes.pop("log_append", None)
        path = lost_path(draft, backend, ".log")
        backend.note(f"the log file came as a descriptor; it is now {path}")
    holes["log_file"] = draft.absolute(path)


def _finish_path(draft: Draft, backend: Word, holes: Holes) -> str | None:
    holes["path"] = draft.absolute(holes.get("path") or "/dev/null")
    return None


def _finish_file(draft: Draft, backend: Word, holes: Holes) -> str | None:
    """Settle what a file is: libvirt's log daemon writes and rotates it, so device nodes are no files."""
    path = holes.get("path") or "/dev/null"
    if FDSET_PATH.fullmatch(path):
        claim_fdset(draft, path)
        holes.pop("append", None)  # libvirt always appends to a descriptor, whatever the domain says
        path = lost_path(draft, backend, ".out")
        backend.note(f"the file came as a descriptor; it is now {path}")
    holes["path"] = draft.absolute(path)
    if DESCRIPTOR_PATH.fullmatch(path) or path == "/dev/null":
        del holes["path"]
        holes.pop("append", None)
        if path == "/dev/null":
            return "null"
        backend.claim("path", Outcome.SUBSTITUTED, PTY_NOTE)
        return "pty"
    return None


def _finish_socket(draft: Draft, backend: Word, holes: Holes) -> str | None:
    """Tell unix from tcp, and give what libvirt wants said: mode, host, protocol, reconnect."""
    holes["mode"] = holes.get("mode") or "connect"
    credentials = backend.peek("tls-creds") or backend.peek("backend.data.tls-creds")
    if credentials:
        holes["tls"] = "yes"
        _claim_tls(draft, credentials)
    for key in ("wait", "backend.data.wait"):
        if backend.peek(key) not in {None, "off", "no", "false"}:
            backend.claim(key, Outcome.SUBSTITUTED, "libvirt's QEMU does not wait for a peer")
    timeout = holes.get("reconnect_timeout_s")
    if holes["mode"] == "bind":
        holes["reconnect_timeout_s"] = None
    elif timeout is not None:
        holes["reconnect"] = "yes" if timeout != "0" else "no"
        holes["reconnect_timeout_s"] = timeout if timeout != "0" else None
    if holes.get("service") is None:
        holes.pop("host", None)
        holes.pop("protocol", None)
        holes["path"] = draft.absolute(holes["path"] or "") if holes.get("path") else None
        return "unix"
    holes["host"] = holes.get("host") or (ANY_ADDRESS if holes["mode"] == "bind" else OWN_ADDRESS)
    holes["protocol"] = holes.get("protocol") or "raw"
    return "tcp"


def _claim_tls(draft: Draft, credentials: str) -> None:
    """Claim tls-creds-x509: libvirt makes the object itself, from the folder that its qemu.conf names."""
    word = draft.find(credentials, "object")
    if word is None:
        return
    word.claim_rest(Outcome.MANAGED, "libvirt makes it, with the certificates of chardev_tls_x509_cert_dir")
    password = draft.find(word.peek("passwordid"), "object")
    if password is not None:
        password.claim_rest(Outcome.MANAGED, "libvirt makes it, with the secret of chardev_tls_x509_secret_uuid")


def _finish_vc(draft: Draft, backend: Word, holes: Holes) -> str | None:
    """Keep a console in QEMU's window that was asked for; as a mere default it becomes a terminal."""
    if not backend.implied:
        return None
    _substitute(backend, PTY_NOTE)
    return "pty"


def _finish_udp(draft: Draft, backend: Word, holes: Holes) -> str | None:
    holes["mode"] = "connect"
    for hole in ("host", "local_host"):
        holes[hole] = holes.get(hole) or None  # empty is QEMU's default, as without it
    # Port 0 of no address: the kernel chooses, as where nothing is said.
    if holes.get("local_service") == "0" and holes["local_host"] is None:
        holes["local_service"] = None
    if holes["local_host"] is not None or holes.get("local_service") is not None:
        holes["local_mode"] = "bind"
    return None


def _finish_vdagent(draft: Draft, backend: Word, holes: Holes) -> str | None:
    # QEMU's own defaults; libvirt says both in every case (qemuBuildChardevCommand, 8.4 and later).
    holes.setdefault("clipboard", "no")
    holes.setdefault("mouse", "client")
    return None


# What libvirt has no word for, and what would make another connection without it.
SWITCHES_WITHOUT_WORD = frozenset({
    "abstract", "addr.data.abstract", "websocket", "tn3270", "cid", "addr.data.cid",
})

# Keys that hold the path of a file, by the last part of their names.
PATHS = frozenset({"path", "out", "device", "logfile"})

COMMON: tuple[Key, ...] = (
    Key(key="backend", hole=None),
    Key(key="id", hole=None),
    Key(key="logfile", hole="log_file", read=one_line),
    Key(key="logappend", hole="log_append", read=on_off),
    Key(
        key="mux", hole=None, outcome=Outcome.SUBSTITUTED,
        note="the guest's device has it alone; libvirt's monitor is a socket of its own",
    ),
    Key(key="backend.type", hole=None),
    Key(key="backend.data", hole=None),
    Key(key="backend.data.logfile", hole="log_file", read=one_line),
    Key(key="backend.data.logappend", hole="log_append", read=on_off),
)


def _seconds(value: str) -> str:
    """Give milliseconds as whole seconds."""
    if not is_digits(value) or int(value) % 1000:
        raise NotSayable("libvirt counts in whole seconds")
    return str(int(value) // 1000)


def _mode(value: str) -> str:
    return "bind" if on_off(value) == "on" else "connect"


_mouse_mode = one_of({"on": "client", "off": "server"})
_telnet = one_of({"on": "telnet", "off": "raw"})

BACKENDS: tuple[Backend, ...] = (
    Backend(names=("null",), type="null"),
    Backend(
        names=("pty",), type="pty",
        keys=(Key(key="path", hole=None, outcome=Outcome.DROPPED, note="libvirt tells the path of the terminal"),),
    ),
    Backend(
        names=("socket",), type="tcp", finish=_finish_socket,
        keys=(
            Key(key="path", hole="path"),
            Key(key="host", hole="host"),
            Key(key="port", hole="service"),
            Key(key="server", hole="mode", read=_mode),
            Key(key="wait", hole=None),
            Key(key="telnet", hole="protocol", read=_telnet),
            Key(key="reconnect", hole="reconnect_timeout_s", read=number_up_to(2**31 - 1)),
            Key(key="reconnect-ms", hole="reconnect_timeout_s", read=_seconds),
            Key(key="tls-creds", hole=None),
            Key(key="fd", hole=None, outcome=Outcome.MANAGED, note="libvirt opens the socket itself"),
        ),
        nested=(
            Key(key="backend.data.addr.type", hole=None),
            Key(key="backend.data.addr.data.path", hole="path"),
            Key(key="backend.data.addr.data.host", hole="host"),
            Key(key="backend.data.addr.data.port", hole="service"),
            Key(
                key="backend.data.addr.data.str", hole=None, outcome=Outcome.MANAGED,
                note="libvirt opens the socket itself",
            ),
            Key(key="backend.data.server", hole="mode", read=_mode),
            Key(key="backend.data.wait", hole=None),
            Key(key="backend.data.telnet", hole="protocol", read=_telnet),
            Key(key="backend.data.reconnect", hole="reconnect_timeout_s", read=number_up_to(2**31 - 1)),
            Key(key="backend.data.reconnect-ms", hole="reconnect_timeout_s", read=_seconds),
            Key(key="backend.data.tls-creds", hole=None),
        ),
    ),
    Backend(
        names=("udp",), type="udp", finish=_finish_udp,
        keys=(
            Key(key="host", hole="host"),
            Key(key="port", hole="service"),
            Key(key="localaddr", hole="local_host"),
            Key(key="localport", hole="local_service"),
        ),
        nested=(
            Key(key="backend.data.remote.type", hole=None),
            Key(key="backend.data.remote.data.host", hole="host"),
            Key(key="backend.data.remote.data.port", hole="service"),
            Key(key="backend.data.local.type", hole=None),
            Key(key="backend.data.local.data.host", hole="local_host"),
            Key(key="backend.data.local.data.port", hole="local_service"),
        ),
    ),
    Backend(
        names=("file",), type="file", finish=_finish_file,
        keys=(Key(key="path", hole="path"), Key(key="append", hole="append", read=on_off)),
        nested=(
            Key(key="backend.data.out", hole="path"),
            Key(key="backend.data.append", hole="append", read=on_off),
        ),
    ),
    Backend(
        names=("pipe",), type="pipe", finish=_finish_path,
        keys=(Key(key="path", hole="path"),), nested=(Key(key="backend.data.device", hole="path"),),
    ),
    Backend(
        names=("serial", "tty", "parallel", "parport"), type="dev", finish=_finish_path,
        keys=(Key(key="path", hole="path"),), nested=(Key(key="backend.data.device", hole="path"),),
    ),
    Backend(names=("stdio", "console"), type="pty", substitute=PTY_NOTE),
    Backend(
        names=("vc",), type="vc", finish=_finish_vc,
        keys=tuple(
            Key(key=key, hole=None, outcome=Outcome.DROPPED, note="libvirt leaves the size to QEMU")
            for key in ("width", "height", "cols", "rows")
        ),
    ),
    Backend(
        names=("ringbuf", "memory"), type="pty",
        substitute="a pseudo terminal instead: libvirt has no ring buffer; a log file is written all the same",
    ),
    Backend(
        names=("spicevmc",), type="spicevmc",
        keys=(Key(key="name", hole=None),), nested=(Key(key="backend.data.type", hole=None),),
    ),
    Backend(
        names=("spiceport",), type="spiceport",
        keys=(Key(key="name", hole="channel"),), nested=(Key(key="backend.data.fqdn", hole="channel"),),
    ),
    Backend(
        names=("dbus",), type="dbus", since=DBUS_SINCE,
        keys=(Key(key="name", hole="channel"),), nested=(Key(key="backend.data.name", hole="channel"),),
    ),
    Backend(
        names=("qemu-vdagent",), type="qemu-vdagent", since=VDAGENT_SINCE, finish=_finish_vdagent,
        keys=(
            Key(key="name", hole=None),
            Key(key="clipboard", hole="clipboard", read=yes_no),
            Key(key="mouse", hole="mouse", read=_mouse_mode),
        ),
        nested=(
            Key(key="backend.data.clipboard", hole="clipboard", read=yes_no),
            Key(key="backend.data.mouse", hole="mouse", read=_mouse_mode),
        ),
    ),
)

BACKEND_OF: Mapping[str, Backend] = {name: row for row in BACKENDS for name in row.names}

TABLES: tuple[Table, ...] = (
    Table(group="chardev", keys=COMMON),
    *(Table(group="chardev", keys=row.keys, selector=("backend", row.names[0])) for row in BACKENDS if row.keys),
    *(
        Table(group="chardev", keys=row.nested, selector=("backend.type", row.names[0]))
        for row in BACKENDS
        if row.nested
    ),
)
