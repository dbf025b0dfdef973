"""-m and the machine's memory backend become <memory>, <maxMemory> and <memoryBacking>.

QEMU names the RAM's backend (`-machine memory-backend=ID` with `-object
memory-backend-*`, or -mem-path and -mem-prealloc); libvirt makes one of its own
from <memoryBacking>, in a file of its own where it needs one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.topology import MOST
from virtsnap.convert.ledger import NotSayable, Outcome, Word, refuse
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import parse_number, parse_size_bytes, parse_switch, positive

KIB, MIB = 1024, 1024 * 1024
BACKENDS = ("memory-backend-ram", "memory-backend-file", "memory-backend-memfd")
# libvirt keeps the files of <source type='file'/> below this folder, unless qemu.conf says otherwise.
LIBVIRT_RAM = "/var/lib/libvirt/qemu/ram/"
# The schema of 9.0 wants <maxMemory slots=…>, that of 11.3 does not.
SLOTLESS_SINCE = (11, 3)
HUGE_PATH = re.compile(r"/huge(?:pages?|tlbfs)", re.IGNORECASE)
HUGE_SIZE = re.compile(r"(?:/|hugepages?-?)([0-9]+)([kmg])b?(?:/|$)", re.IGNORECASE)
POLICIES = {"bind": "strict", "preferred": "preferred", "interleave": "interleave"}

OWN_FOLDER = "libvirt keeps the file in a folder of its own (memory_backing_dir)"
_SIZE_HINT = "give a size such as 2048, 2G or size=2G"


def _locked(value: str) -> str | None:
    return "" if _on(value) else None


def _on(value: str) -> bool:
    try:
        return parse_switch(value)
    except ValueError as exc:
        raise NotSayable(str(exc)) from exc


OVERCOMMIT: tuple[Key, ...] = (Key(key="mem-lock", hole="locked", read=_locked),)
REALTIME: tuple[Key, ...] = (Key(key="mlock", hole="locked", read=_locked),)
TABLES = (
    Table(group="m", keys=tuple(Key(key=key, hole=None) for key in ("size", "slots", "maxmem"))),
    Table(group="overcommit", keys=OVERCOMMIT),
    Table(group="realtime", keys=REALTIME),
)


@dataclass(kw_only=True)
class Backing:
    """What one -object memory-backend-* says, in libvirt's words; None: it does not say."""

    source: str | None = None
    access: str | None = None
    hugepages: bool = False
    page_kib: int | None = None
    immediate: bool = False
    threads: str | None = None
    discard: str | None = None
    policy: str | None = None
    nodeset: str = ""
    words: list[Word] = field(default_factory=list)


def convert_memory(draft: Draft) -> None:
    """Write the size of the memory and what it is made of."""
    _convert_size(draft)
    draft.head.put_keys("memoryBacking", OVERCOMMIT, draft.group("overcommit"), draft.target)
    draft.head.put_keys("memoryBacking", REALTIME, draft.group("realtime"), draft.target)
    backings: list[Backing] = []
    for word in draft.group("machine"):
        backend = draft.find(word.peek("memory-backend"), "object")
        if backend is not None and backend.peek("qom-type") in BACKENDS:
            word.claim("memory-backend", Outcome.MAPPED)
            backings.append(read_backing(draft, backend))
    if not backings:
        backings += _from_mem_path(draft)
    for backing in backings[-1:]:
        put_backing(draft, [backing])
        if backing.policy:
            tune = etree.Element("memory", mode=backing.policy, nodeset=backing.nodeset)
            draft.head.append("numatune", tune, *backing.words)


# Memory that is there at start although it could be plugged.
PLUGGED = ("pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-mem", "virtio-pmem-pci", "virtio-pmem", "sgx-epc")


def _convert_size(draft: Draft) -> None:
    memory = draft.root.find("memory")
    assert memory is not None
    for word in draft.group("m"):
        size = _size(word, "size")
        if not draft.group("numa") and not any(draft.devices_of(PLUGGED)):
            # libvirt wants a NUMA node beside <maxMemory> ("At least one numa node has to be configured");
            # QEMU adds one by itself, as long as it is not told of any: these two keys stay its own.
            if size is not None:
                memory.text = str(-(-size // KIB))
            word.land(memory)
            continue
        slots = _slots(word)
        most = _size(word, "maxmem")
        if size is not None:
            # QEMU rounds up to 8 KiB; libvirt counts in KiB.
            memory.text = str(-(-size // KIB))
        word.land(memory)
        if most is None or (size is not None and most <= size and not slots):
            continue
        maximum = draft.root.find("maxMemory")
        if maximum is None:
            maximum = etree.SubElement(draft.root, "maxMemory")
        if slots:
            maximum.set("slots", str(slots))
        maximum.set("unit", "KiB")
        maximum.text = str(most // KIB)
        word.land(maximum)


def _size(word: Word, key: str) -> int | None:
    text = word.peek(key)
    if text is None:
        return None
    try:
        size = parse_size_bytes(text, default_suffix="m")
    except ValueError as exc:
        raise refuse(word.option, str(exc), _SIZE_HINT) from exc
    if not 0 < size < 1 << 63:
        raise refuse(word.option, f"{key} is {text}", _SIZE_HINT)
    word.claim(key, Outcome.MAPPED)
    return size


def _slots(word: Word) -> int:
    text = word.peek("slots")
    try:
        slots = parse_number(text or "0")
    except ValueError as exc:
        raise refuse(word.option, f"slots={text!r} is not a number", "give the number of memory slots") from exc
    if not 0 <= slots < 1 << 32:
        raise refuse(word.option, f"slots={text!r} is out of range", "give the number of memory slots")
    word.claim("slots", Outcome.MAPPED)
    return slots


def read_backing(draft: Draft, word: Word) -> Backing:
    """Read an -object memory-backend-*, claiming what <memoryBacking>, <numatune> and <cell> can say."""
    backing = Backing(words=[word])
    kind = word.take("qom-type")
    for key in ("id", "size", "x-use-canonical-path-for-ramblock-id"):
        word.claim(key, Outcome.IMPLIED)
    if kind == "memory-backend-memfd":
        backing.source = "memfd"
        # A memfd is shared unless share=off: memfd_backend_instance_init() in QEMU's hostmem-memfd.c.
        backing.access = "shared"
        if word.has("hugetlb"):
            backing.hugepages = bool(word.take_read("hugetlb", lambda value: "yes" if _on(value) else None))
            word.take_read("hugetlbsize", lambda value: _set_page(backing, value))
    elif kind == "memory-backend-file":
        _read_path(backing, word)
    if word.has("share"):
        backing.access = word.take_read("share", lambda value: "shared" if _on(value) else "private")
    if word.has("prealloc"):
        backing.immediate = bool(word.take_read("prealloc", lambda value: "yes" if _on(value) else None))
    if draft.knows((8, 2)):
        backing.threads = word.take_read("prealloc-threads", positive)
    if word.has("discard-data"):
        backing.discard = word.take_read("discard-data", lambda value: "yes" if _on(value) else "no")
    if word.has("reserve"):
        word.take_read("reserve", lambda value: None if _on(value) else _refused("it"))
    if word.has("merge"):
        word.take_read("merge", lambda value: None if _on(value) else _refused("merge"))
    _read_policy(backing, word)
    context = draft.find(word.peek("prealloc-context"), "object")
    if context is not None and backing.policy and backing.immediate:
        note = "libvirt makes one itself for memory that is bound and allocated at once"
        word.claim("prealloc-context", Outcome.MANAGED)
        context.claim_rest(Outcome.MANAGED, note)
    return backing


def _refused(what: str) -> str:
    raise NotSayable(f"libvirt cannot say {what} of this memory alone")


def _set_page(backing: Backing, value: str) -> str:
    backing.page_kib = parse_size_bytes(value) // KIB
    return value


def _read_path(backing: Backing, word: Word) -> None:
    path = word.peek("mem-path") or ""
    word.claim("mem-path", Outcome.MAPPED)
    if read_huge_path(backing, path):
        return
    backing.source = "file"
    if not path.startswith(LIBVIRT_RAM):
        word.claim("mem-path", Outcome.SUBSTITUTED, OWN_FOLDER)


def read_huge_path(backing: Backing, path: str) -> bool:
    """Tell whether a path is on a hugetlbfs, by its name, and note the size of the pages where it is named."""
    if HUGE_PATH.search(path) is None:
        return False
    backing.hugepages = True
    found = HUGE_SIZE.search(path)
    if found:
        backing.page_kib = int(found[1]) << {"k": 0, "m": 10, "g": 20}[found[2].lower()]
    return True


def _read_policy(backing: Backing, word: Word) -> None:
    nodes = [item.value for item in word.properties if re.fullmatch(r"host-nodes(\.[0-9]+)?", item.key)]
    policy = POLICIES.get(word.peek("policy") or "")
    if policy is None or not nodes:
        if word.peek("policy") == "default":
            word.claim("policy", Outcome.IMPLIED)
        return
    try:
        backing.nodeset = ranges(nodes)
    except ValueError as exc:
        word.note(f"host-nodes: {exc}")
        return
    backing.policy = policy
    word.claim("policy", Outcome.MAPPED)
    word.claim_below("host-nodes", Outcome.MAPPED)


def ranges(texts: list[str]) -> str:
    """Join numbers and ranges (`0`, `2-3`) into libvirt's notation, `0,2-3`; raises ValueError."""
    numbers: set[int] = set()
    for text in texts:
        for part in text.split(","):
            first, _, last = part.partition("-")
            start, end = parse_number(first), parse_number(last or first)
            if not 0 <= start <= end < MOST:
                raise ValueError(f"{part!r} is no range")
            numbers |= set(range(start, end + 1))
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _from_mem_path(draft: Draft) -> list[Backing]:
    """Read -mem-path and -mem-prealloc."""
    paths, prealloc = draft.group("mem-path"), draft.group("mem-prealloc")
    backing = Backing(words=[*paths, *prealloc], immediate=bool(prealloc))
    for word in prealloc:
        word.claim_rest(Outcome.MAPPED)
    for word in paths:
        word.claim_rest(Outcome.MAPPED)
        if not read_huge_path(backing, word.peek("mem-path") or ""):
            backing.source = "file"
            word.claim_all(Outcome.SUBSTITUTED, OWN_FOLDER)
    return [backing] if backing.words else []


def put_backing(draft: Draft, backings: list[Backing]) -> None:
    """Say in <memoryBacking> what all nodes' backings have in common, and for which nodes pages are huge."""
    words = [word for backing in backings for word in backing.words]
    first = backings[0]
    holes: dict[str, str | None] = {
        "source_type": next((backing.source for backing in backings if backing.source), None),
        "access_mode": first.access,
    }
    huge = [backing for backing in backings if backing.hugepages]
    # Huge pages are allocated at once in any case: qemuBuildMemoryBackendProps() in qemu_command.c.
    if any(backing.immediate and (not backing.hugepages or backing.source) for backing in backings):
        holes["allocation_mode"] = "immediate"
        holes["allocation_threads"] = next((backing.threads for backing in backings if backing.threads), None)
    if all(backing.discard == "yes" for backing in backings):
        holes["discard"] = ""
    draft.head.put("memoryBacking", holes, *words)
    if huge:
        _put_hugepages(draft, backings)


def _put_hugepages(draft: Draft, backings: list[Backing]) -> None:
    element = etree.Element("hugepages")
    huge = [backing for backing in backings if backing.hugepages]
    by_size: dict[int | None, list[int]] = {}
    for number, backing in enumerate(backings):
        if backing.hugepages:
            by_size.setdefault(backing.page_kib, []).append(number)
    everywhere = len(huge) == len(backings)
    if not (everywhere and len(by_size) == 1 and set(by_size) <= {None, default_page_kib(draft)}):
        for size, nodes in by_size.items():
            page = etree.SubElement(element, "page", size=str(size or default_page_kib(draft)), unit="KiB")
            if not (everywhere and len(by_size) == 1):
                page.set("nodeset", ranges([str(node) for node in nodes]))
    draft.head.append("memoryBacking", element, *(word for backing in huge for word in backing.words))


def default_page_kib(draft: Draft) -> int:
    """Give the usual size of a huge page on an architecture."""
    return {"s390x": 1024, "ppc64": 16384, "ppc64le": 16384}.get(draft.machine.arch, 2048)


def count_memory_devices(draft: Draft) -> None:
    """Add the memory devices to <memory>: libvirt counts them in, -m does not."""
    memory = draft.root.find("memory")
    total = 0
    for device in draft.devices.findall("memory"):
        size = device.find("target/size")
        if size is not None and size.text and device.get("model") in ("dimm", "nvdimm", "virtio-mem"):
            total += parse_size_bytes(size.text + (size.get("unit") or "KiB")[0].lower()) // KIB
    if memory is not None and total:
        memory.text = str(int(memory.text or 0) + total)
    maximum, count = draft.root.find("maxMemory"), len(draft.devices.findall("memory"))
    if maximum is not None and maximum.get("slots") is None and not draft.knows(SLOTLESS_SINCE):
        maximum.set("slots", str(max(count, 1)))
        for word in draft.group("m"):
            word.claim("maxmem", Outcome.SUBSTITUTED, "with slots: this libvirt wants their number")
    elif maximum is not None and int(maximum.get("slots") or count) < count:
        # libvirt wants a slot for every memory device, QEMU none for virtio-mem and virtio-pmem.
        maximum.set("slots", str(count))
        for word in draft.group("m"):
            word.claim("slots", Outcome.SUBSTITUTED, f"{count}: libvirt counts every memory device")
