"""Memory devices and their -object: pc-dimm, nvdimm, virtio-mem and virtio-pmem become <memory model=…>.

QEMU says the device and the memory behind it apart; libvirt has one element,
whose host memory follows <memoryBacking> and <numatune> where the element
does not say it. Source: qemuBuildMemoryDeviceProps() and
qemuBuildMemoryBackendProps() in libvirt's qemu_command.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxml import etree

from virtsnap.convert.build import place
from virtsnap.convert.claims import Claims, Entry, Options
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Version
from virtsnap.convert.values import (
    long_number,
    number,
    parse_number,
    parse_size_bytes,
    parse_switch,
    size_in,
    uuid,
    yes_no,
)

KIB = 1024
BACKENDS = frozenset({"memory-backend-ram", "memory-backend-file", "memory-backend-memfd"})
# The page size in the path of a hugetlbfs mount: /dev/hugepages2M, /mnt/hugepages-1G, hugepages-2048kB.
HUGE_PATH = re.compile(r"/huge(?:pages|tlbfs)?-?(?P<size>[0-9]+)?(?P<unit>[kmg])?b?(?:/|$)", re.IGNORECASE)
DEFAULT_PAGE_KIB = 2048
WITH_PATH = frozenset({"nvdimm", "virtio-pmem"})
POSITION_SINCE: Version = (9, 4)

NOT_ITS_OWN = "libvirt says it of all memory at once, in <memoryBacking>"
NO_FILE = "libvirt puts the memory where <memoryBacking> says; a path is for nvdimm and virtio-pmem"


def _build(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Convert a memory device; it stays QEMU's, untouched, where something of its backend cannot be said."""
    backend = draft.find(word.peek("memdev"), "object")
    if backend is None or backend.peek("qom-type") not in BACKENDS:
        return
    claims = Claims()
    said, device = Options.of_word(backend, claims), Options.of_word(word, claims)
    holes: dict[str, str | None] = dict(row.holes)
    try:
        _read_backend(draft, said, holes, with_path=holes["model"] in WITH_PATH)
        holes |= device.read(row.keys, draft.target)
        if "readonly" in holes:
            said.take_any("readonly", "rom", outcome=Outcome.IMPLIED)
        address = _dimm_address(draft, device) if row.bus is Bus.DIMM else None
    except ValueError as exc:
        word.note(str(exc))
        return
    if row.bus is Bus.DIMM:
        holes.setdefault("node", "0")
    if holes["model"] == "virtio-mem":
        # QEMU's own choice on small pages: virtio_mem_default_block_size() in hw/virtio/virtio-mem.c.
        holes.setdefault("block_kib", holes.get("page_kib") or "2048")
        holes.setdefault("requested_kib", "0")
        holes.setdefault("node", "0")
    for key in ("driver", "memdev"):
        device.take(key)
    device.take("id", Outcome.IMPLIED)
    element = draft.fill(row.template, holes)
    if address is not None:
        etree.SubElement(element, "address", address)
    draft.add(element, word, backend)
    claims.commit(element)
    if row.bus is Bus.PCI:
        place(draft, word, element, Bus.PCI)


def _read_backend(draft: Draft, said: Options, holes: dict[str, str | None], *, with_path: bool) -> None:
    """Take what an -object memory-backend-* says; raises NotSayable for what would change the guest's memory."""
    said.take("qom-type")
    for key in ("id", "x-use-canonical-path-for-ramblock-id", "reserve"):
        said.take(key, Outcome.IMPLIED)
    try:
        holes["size_kib"] = str(-(-parse_size_bytes(said.take("size") or "") // KIB))
        if said.has("align"):
            holes["align_kib"] = str(parse_size_bytes(said.take("align") or "") // KIB)
        if said.has("share"):
            holes["access"] = "shared" if parse_switch(said.take("share") or "") else "private"
        if said.has("pmem") and parse_switch(said.take("pmem") or ""):
            holes["pmem"] = ""
        if said.has("discard-data"):
            holes["discard"] = yes_no(said.take("discard-data") or "")
        _read_pages(said, holes, with_path)
    except ValueError as exc:
        raise NotSayable(str(exc)) from exc
    if with_path:
        holes["path"] = draft.absolute(said.take("mem-path") or "")
    nodes = [entry for entry in said.entries if re.fullmatch(r"host-nodes(\.[0-9]+)?", entry.key)]
    if nodes:
        _read_nodes(said, nodes, holes, with_path)
    _read_allocation(draft, said, bool(holes.get("page_kib")))


def _read_pages(said: Options, holes: dict[str, str | None], with_path: bool) -> None:
    if said.has("hugetlb") and parse_switch(said.take("hugetlb") or ""):
        size = said.take("hugetlbsize")
        holes["page_kib"] = str(parse_size_bytes(size) // KIB) if size else str(DEFAULT_PAGE_KIB)
    path = said.get("mem-path")
    if path is None or with_path:
        return
    found = HUGE_PATH.search(path)
    if found is None:
        said.take("mem-path", Outcome.SUBSTITUTED, NO_FILE)
        return
    said.take("mem-path")
    size = f"{found['size']}{found['unit'] or ''}" if found["size"] else f"{DEFAULT_PAGE_KIB}k"
    holes["page_kib"] = str(parse_size_bytes(size) // KIB)


def _read_nodes(said: Options, nodes: list[Entry], holes: dict[str, str | None], with_path: bool) -> None:
    outcome, note = Outcome.MAPPED, None
    if with_path or said.get("policy") not in {"bind", None}:
        outcome, note = Outcome.SUBSTITUTED, NOT_ITS_OWN
    for entry in nodes:
        said.take(entry.key, outcome, note)
    said.take("policy", outcome, note)
    if not with_path:
        holes["nodemask"] = join_ranges(entry.value for entry in nodes)


def _read_allocation(draft: Draft, said: Options, huge: bool) -> None:
    """Take the keys of which libvirt decides by itself or for all memory at once."""
    switched = said.get("prealloc") is not None and parse_switch(said.get("prealloc") or "")
    said.take("prealloc", Outcome.IMPLIED if huge or not switched else Outcome.SUBSTITUTED,
              None if huge or not switched else NOT_ITS_OWN)
    for key in ("prealloc-threads", "merge", "dump"):
        said.take(key, Outcome.SUBSTITUTED, NOT_ITS_OWN)
    context = draft.find(said.take("prealloc-context", Outcome.MANAGED), "object")
    if context is not None:
        said.claims.take_word(context, Outcome.MANAGED, "libvirt makes one itself for memory of the host's nodes")


def join_ranges(texts: Iterable[str]) -> str:
    """Give numbers and ranges (`0`, `2-3`) as libvirt writes a set of nodes; raises NotSayable."""
    numbers: set[int] = set()
    try:
        for text in texts:
            first, _, last = text.partition("-")
            numbers |= set(range(parse_number(first), parse_number(last or first) + 1))
    except ValueError as exc:
        raise NotSayable(str(exc)) from exc
    runs: list[list[int]] = []
    for one in sorted(numbers):
        if runs and one == runs[-1][1] + 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)


def _dimm_address(draft: Draft, device: Options) -> dict[str, str]:
    """Give the slot and the address in the guest's memory; both are QEMU's first free ones where none is said."""
    slots = {address.get("slot") for address in draft.devices.iterfind("memory/address[@type='dimm']")}
    slot = device.take("slot")
    chosen = number(slot) if slot else next(str(n) for n in range(1024) if str(n) not in slots)
    base = _position(device.take("addr") or "0")
    return {"type": "dimm", "slot": chosen} | ({} if base is None else {"base": base})


def _position(value: str) -> str | None:
    where = int(long_number(value))
    return f"0x{where:x}" if where else None


def _unarmed(value: str) -> str | None:
    return "" if yes_no(value) == "yes" else None


NODE = Key(key="node", hole="node", read=number)
POSITION = Key(key="memaddr", hole="base", read=_position, since=POSITION_SINCE)


def _row(model: str, driver: str, *keys: Key, bus: Bus, since: Version = (0, 0)) -> DeviceRow:
    return DeviceRow(
        drivers=(driver,), template="memory", bus=bus, holes={"model": model}, keys=keys, build=_build, since=since
    )


ROWS: tuple[DeviceRow, ...] = (
    _row("dimm", "pc-dimm", NODE, bus=Bus.DIMM),
    _row(
        "nvdimm", "nvdimm", NODE,
        Key(key="label-size", hole="label_kib", read=size_in(KIB)),
        Key(key="unarmed", hole="readonly", read=_unarmed),
        Key(key="uuid", hole="uuid", read=uuid),
        bus=Bus.DIMM,
    ),
    _row("virtio-pmem", "virtio-pmem-pci", POSITION, bus=Bus.PCI, since=(7, 1)),
    _row(
        "virtio-mem", "virtio-mem-pci", NODE, POSITION,
        Key(key="block-size", hole="block_kib", read=size_in(KIB)),
        Key(key="requested-size", hole="requested_kib", read=size_in(KIB)),
        Key(key="prealloc", hole=None),
        Key(key="dynamic-memslots", hole="dynamic_slots", read=yes_no, since=(10, 1)),
        bus=Bus.PCI, since=(7, 9),
    ),
)
