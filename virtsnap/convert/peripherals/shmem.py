"""ivshmem-plain and ivshmem-doorbell with what is behind them become <shmem>.

libvirt keeps the memory of a plain one in /dev/shm under the name of the
element, so that only memory there can be said; any other stays QEMU's.
"""

from __future__ import annotations

import re

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.pci_keys import ACPI_KEYS
from virtsnap.convert.consoles.chardevs import find_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key
from virtsnap.convert.values import number, on_off, parse_switch, size_in

PATH = re.compile(r"/dev/shm/(?P<name>[^/]+)")  # noqa: S108
BACKEND_KEYS = frozenset({"qom-type", "id", "mem-path", "size", "share"})
SOCKET_KEYS = frozenset({"backend", "id", "path", "server", "wait"})


def _build_plain(draft: Draft, word: Word, row: DeviceRow) -> None:
    backend = draft.find(word.peek("memdev"), "object")
    if backend is None or backend.peek("qom-type") != "memory-backend-file":
        return
    path = PATH.fullmatch(backend.peek("mem-path") or "")
    others = {item.key for item in backend.properties} - BACKEND_KEYS
    try:
        shared = parse_switch(backend.peek("share") or "off")
        size = size_in(1 << 20)(backend.peek("size") or "")
    except ValueError:
        return
    if path is None or others or not shared:
        return
    element = build_device(draft, word, row, {"name": path["name"], "size_mib": size})
    word.claim("memdev", Outcome.MAPPED)
    backend.claim_rest(Outcome.MAPPED)
    backend.land(element)


def _build_doorbell(draft: Draft, word: Word, row: DeviceRow) -> None:
    server = find_chardev(draft, word)
    if server is None or server.peek("backend") != "socket" or not server.has("path"):
        return
    listens = (server.peek("server") or "off").lower() not in {"off", "false", "no"}
    if listens or {item.key for item in server.properties} - SOCKET_KEYS:
        return
    id_ = word.peek("id") or server.peek("id") or "shmem"
    element = build_device(
        draft, word, row, {"name": id_.replace("/", "_"), "server_path": draft.absolute(server.peek("path") or "")}
    )
    word.claim("chardev", Outcome.MAPPED)
    server.claim_rest(Outcome.MAPPED)
    server.land(element)


def _role(value: str) -> str | None:
    """Give the role; without one QEMU takes the part that `master=off` is."""
    if value == "auto":
        raise NotSayable("libvirt has no word for auto")
    return "master" if parse_switch(value) else "peer"


MASTER = Key(key="master", hole="role", read=_role)

ROWS = (
    DeviceRow(
        drivers=("ivshmem-plain",), template="shmem", bus=Bus.PCI, holes={"model": "ivshmem-plain"},
        keys=(MASTER, *ACPI_KEYS), build=_build_plain,
    ),
    DeviceRow(
        drivers=("ivshmem-doorbell",), template="shmem", bus=Bus.PCI, holes={"model": "ivshmem-doorbell"},
        keys=(
            MASTER,
            Key(key="vectors", hole="vectors", read=number),
            Key(key="ioeventfd", hole="ioeventfd", read=on_off),
            *ACPI_KEYS,
        ),
        build=_build_doorbell,
    ),
)
