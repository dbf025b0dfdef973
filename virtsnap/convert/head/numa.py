"""-numa becomes <cpu><numa>: cells with their memory, distances, and the tables of HMAT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.features import on_only
from virtsnap.convert.head.memory import BACKENDS, KIB, Backing, put_backing, ranges, read_backing
from virtsnap.convert.head.topology import LEVELS, read_topology
from virtsnap.convert.ledger import NotSayable, Outcome, Word, refuse
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import number, number_between, parse_size_bytes, size_in
from virtsnap.domain_xml.templates import Element


def _known(*keys: str) -> tuple[Key, ...]:
    return tuple(Key(key=key, hole=None) for key in keys)


TABLES = (
    Table(group="numa", selector=("type", "node"), keys=_known("nodeid", "cpus", "mem", "memdev", "initiator")),
    Table(group="numa", selector=("type", "dist"), keys=_known("src", "dst", "val")),
    Table(
        group="numa", selector=("type", "cpu"),
        keys=_known("node-id", "socket-id", "die-id", "core-id", "thread-id"),
    ),
    Table(
        group="numa", selector=("type", "hmat-lb"),
        keys=_known("initiator", "target", "hierarchy", "data-type", "latency", "bandwidth"),
    ),
    Table(
        group="numa", selector=("type", "hmat-cache"),
        keys=_known("node-id", "size", "level", "associativity", "policy", "line"),
    ),
)  # fmt: skip

# hmat-lb's hierarchy -> the cache level that libvirt names. Source: virDomainMemoryHierarchy in numa_conf.c.
# QEMU's words for how a cache is associated, and libvirt's.
ASSOCIATIVITY = {"none": "none", "direct": "direct", "complex": "full"}
HIERARCHY = {"memory": None, "first-level": "1", "second-level": "2", "third-level": "3"}


@dataclass(kw_only=True)
class Cell:
    """One NUMA node in the making."""

    number: int
    words: list[Word]
    cpus: list[str] = field(default_factory=list)
    memory_kib: int | None = None
    backing: Backing | None = None


def convert_numa(draft: Draft) -> None:
    """Write the cells in the order of their numbers, which must be gapless as libvirt wants them."""
    words = draft.group("numa")
    cells = _cells(draft, words)
    if sorted(cells) != list(range(len(cells))) or not cells:
        return
    _share_memory(draft, cells)
    _place_cpus(draft, words, cells)
    backings = [cell.backing or Backing() for _, cell in sorted(cells.items())]
    elements: dict[str, Element] = {}
    for at, cell in sorted(cells.items()):
        element = _write_cell(draft, cell, backings)
        for word in words:
            _write_distance(word, at, element)
            _write_cache(word, at, element)
        elements[str(at)] = element
    _write_interconnects(draft, words, elements)
    if any(word.elements for word in words if (word.peek("type") or "").startswith("hmat")):
        for word in draft.group("machine"):
            word.take_read("hmat", on_only)  # libvirt switches it on with these
    if any(cell.backing for cell in cells.values()):
        put_backing(draft, backings)
        for at, backing in enumerate(backings):
            if backing.policy:
                node = etree.Element("memnode", cellid=str(at), mode=backing.policy, nodeset=backing.nodeset)
                draft.head.append("numatune", node, *backing.words)


def _number(word: Word, key: str, otherwise: int | None = None) -> int:
    text = word.peek(key)
    if text is None and otherwise is not None:
        return otherwise
    try:
        return int(number(text or ""))
    except NotSayable as exc:
        raise refuse(word.option, f"{key}={text!r}: {exc}", f"give {key} a number") from exc


def _cells(draft: Draft, words: list[Word]) -> dict[int, Cell]:
    cells: dict[int, Cell] = {}
    for word in words:
        if word.peek("type") != "node":
            continue
        number = _number(word, "nodeid", len(cells))
        cell = cells.setdefault(number, Cell(number=number, words=[]))
        cell.words.append(word)
        try:
            ranges(word.properties.all("cpus"))
        except ValueError as exc:
            raise refuse(word.option, f"cpus: {exc}", "give CPUs as 0-3, several times if need be") from exc
        cell.cpus += word.properties.all("cpus")
        _read_memory(draft, cell, word)
    return cells


def _read_memory(draft: Draft, cell: Cell, word: Word) -> None:
    try:
        if word.has("mem"):
            size = parse_size_bytes(word.peek("mem") or "", default_suffix="m")
            cell.memory_kib = int(size_in(1)(str(size))) // KIB
        backend = draft.find(word.peek("memdev"), "object")
        if backend is not None and backend.peek("qom-type") in BACKENDS:
            cell.memory_kib = parse_size_bytes(backend.peek("size") or "0") // KIB
            cell.backing = read_backing(draft, backend)
            cell.backing.words.append(word)
    except ValueError as exc:
        raise refuse(word.option, str(exc), "give a size such as 1024 or 1G") from exc


def _share_memory(draft: Draft, cells: dict[int, Cell]) -> None:
    """Give what is not said the way QEMU does: all to the nodes alike (numa_default_auto_assign_ram())."""
    if all(cell.memory_kib is None for cell in cells.values()):
        memory = draft.root.find("memory")
        total = int((memory.text if memory is not None else None) or 0)
        step = 8 * KIB
        each = total // len(cells) // step * step
        for cell in cells.values():
            cell.memory_kib = each
        cells[len(cells) - 1].memory_kib = total - each * (len(cells) - 1)


def _place_cpus(draft: Draft, words: list[Word], cells: dict[int, Cell]) -> None:
    """Put the CPUs of `-numa cpu` (socket, core, thread) into their nodes; without any, QEMU deals them out."""
    topology = read_topology(draft)
    for word in words:
        if word.peek("type") != "cpu":
            continue
        cell = cells.get(_number(word, "node-id"))
        if cell is None:
            continue
        wanted = {level: _number(word, f"{level[:-1]}-id", -1) for level in LEVELS}
        cell.cpus += [
            str(index)
            for index, place in enumerate(_places(topology.levels, topology.max_cpus))
            if all(wanted[level] in (-1, place[level]) for level in LEVELS)
        ]
        cell.words.append(word)
    if not any(cell.cpus for cell in cells.values()):
        # x86 deals out whole sockets in turn, the others single CPUs (x86_get_default_cpu_node_id()).
        for index, place in enumerate(_places(topology.levels, topology.max_cpus)):
            turn = place["sockets"] if draft.machine.is_x86 else index
            cells[turn % len(cells)].cpus.append(str(index))


def _places(levels: dict[str, int], count: int) -> list[dict[str, int]]:
    """Give for each CPU index its socket, die, cluster, core and thread, threads counting fastest."""
    found = []
    for index in range(count):
        place, rest = {}, index
        for level in reversed(LEVELS):
            rest, place[level] = divmod(rest, max(1, levels[level]))
        found.append(place)
    return found


def _write_cell(draft: Draft, cell: Cell, backings: list[Backing]) -> Element:
    element = etree.Element("cell", id=str(cell.number))
    if cell.cpus:
        element.set("cpus", ranges(cell.cpus))
    element.set("memory", str(cell.memory_kib or 0))
    element.set("unit", "KiB")
    backing = cell.backing
    if backing is not None:
        # <memoryBacking> says what the first node's memory is; memory that is not shared is private.
        if backing.access != backings[0].access:
            element.set("memAccess", backing.access or "private")
        if backing.discard and any(other.discard != "yes" for other in backings):
            element.set("discard", backing.discard)
    for word in cell.words:
        word.claim_rest(Outcome.MAPPED)
    return draft.head.append("cpu/numa", element, *cell.words)


def _write_distance(word: Word, number: int, cell: Element) -> None:
    if word.peek("type") != "dist" or _number(word, "src") != number:
        return
    distances = cell.find("distances")
    if distances is None:
        distances = etree.SubElement(cell, "distances")
    sibling = etree.SubElement(
        distances, "sibling", id=str(_number(word, "dst")), value=_distance(word)
    )
    word.claim_rest(Outcome.MAPPED)
    word.land(sibling)


def _distance(word: Word) -> str:
    try:
        return number_between(10, 255)(word.peek("val") or "")  # parse_numa_distance() in QEMU's hw/core/numa.c
    except NotSayable as exc:
        raise refuse(word.option, f"val: {exc}", "give a distance from 10 to 255") from exc


def _write_cache(word: Word, number: int, cell: Element) -> None:
    if word.peek("type") != "hmat-cache" or _number(word, "node-id") != number:
        return
    associativity, policy = word.peek("associativity") or "none", word.peek("policy")
    if associativity not in ASSOCIATIVITY:
        return
    cache = etree.SubElement(
        cell, "cache", level=str(_number(word, "level")),
        associativity=ASSOCIATIVITY[associativity],
        policy={"write-back": "writeback", "write-through": "writethrough"}.get(policy or "none", "none"),
    )  # fmt: skip
    try:
        size = int(size_in(1)(word.peek("size") or ""))
    except ValueError as exc:
        raise refuse(word.option, str(exc), "give a size such as 10K") from exc
    etree.SubElement(cache, "size", value=str(size // KIB), unit="KiB")
    etree.SubElement(cache, "line", value=str(_number(word, "line", 0)), unit="B")
    word.claim_rest(Outcome.MAPPED)
    word.land(cache)


def _has_ends(cells: Mapping[str, Element], ends: Mapping[str, str], level: str | None) -> bool:
    """Tell whether libvirt takes a way between two nodes: virDomainNumaDefValidate() in its numa_conf.c."""
    initiator, target = cells.get(ends["initiator"]), cells.get(ends["target"])
    if initiator is None or target is None or initiator.get("cpus") is None:
        return False
    return level is None or any(cache.get("level") == level for cache in target.iterfind("cache"))


def _write_interconnects(draft: Draft, words: list[Word], cells: Mapping[str, Element]) -> None:
    for word in words:
        kind, _, what = (word.peek("data-type") or "").rpartition("-")
        if word.peek("type") != "hmat-lb" or what not in ("latency", "bandwidth"):
            continue
        if kind not in ("access", "read", "write") or word.peek("hierarchy") not in HIERARCHY:
            continue
        ends = {key: str(_number(word, key)) for key in ("initiator", "target")}
        level = HIERARCHY[word.peek("hierarchy") or ""]
        if not _has_ends(cells, ends, level):
            word.note("libvirt wants an initiator with CPUs, and a target that has the cache")
            continue
        element = etree.Element(what, ends)
        if level is not None:
            element.set("cache", level)
        element.set("type", kind)
        if what == "latency":
            element.set("value", str(_number(word, "latency")))
        else:
            try:
                element.set("value", str(int(size_in(1)(word.peek("bandwidth") or "")) // KIB))
            except ValueError as exc:
                raise refuse(word.option, str(exc), "give a bandwidth such as 200M") from exc
            element.set("unit", "KiB")
        word.claim_rest(Outcome.MAPPED)
        draft.head.append("cpu/numa/interconnects", element, word)
