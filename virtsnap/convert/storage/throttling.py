"""Limits of I/O become <iotune>, or <throttlefilters> where libvirt has them.

QEMU limits a -drive by keys of its own (`throttling.bps-total`, older
`bps`), a -blockdev by throttle nodes that name an -object throttle-group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lxml import etree

from virtsnap.convert.claims import Claims, Options
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome
from virtsnap.convert.storage.block_graph import Backend
from virtsnap.convert.values import long_number
from virtsnap.domain_xml.templates import Element

# <throttlefilters> and <throttlegroups> came with libvirt 11.2.
FILTERS_SINCE = (11, 2)

_OF_DIRECTION = {"total": "total", "read": "read", "write": "write"}


def _limits() -> Iterator[tuple[str, str]]:
    for direction in _OF_DIRECTION:
        for unit, word in (("bps", "bytes"), ("iops", "iops")):
            for end, suffix in (("", ""), ("-max", "_max"), ("-max-length", "_max_length")):
                yield f"{unit}-{direction}{end}", f"{direction}_{word}_sec{suffix}"
    yield "iops-size", "size_iops_sec"


# QEMU's limit -> libvirt's element.
LIMITS: Mapping[str, str] = dict(_limits())
# The names of before QEMU 1.7, still taken: qemu_opt_rename() in QEMU's blockdev.c.
OLD_NAMES: Mapping[str, str] = {
    "bps": "bps-total", "bps_rd": "bps-read", "bps_wr": "bps-write",
    "iops": "iops-total", "iops_rd": "iops-read", "iops_wr": "iops-write",
    "bps_max": "bps-total-max", "bps_rd_max": "bps-read-max", "bps_wr_max": "bps-write-max",
    "iops_max": "iops-total-max", "iops_rd_max": "iops-read-max", "iops_wr_max": "iops-write-max",
    "iops_size": "iops-size",
}


def read_drive_limits(options: Options) -> dict[str, str | None]:
    """Read the limits among a -drive's own keys into the holes of <iotune>."""
    holes: dict[str, str | None] = {}
    for limit, hole in LIMITS.items():
        names = [f"throttling.{limit}", *(old for old, new in OLD_NAMES.items() if new == limit)]
        holes |= _limit(options, names, hole)
    group = options.take("throttling.group")
    return _with_group(_checked(holes), group)


def read_filters(draft: Draft, backend: Backend) -> tuple[dict[str, str | None], list[str]]:
    """Read throttle nodes: the holes of <iotune>, or the groups of <throttlefilters> from the storage upwards."""
    groups: list[str] = []
    holes: dict[str, str | None] = {}
    for options in reversed(backend.filters):
        if options.get("driver") != "throttle":
            continue
        id_ = options.take("throttle-group") or ""
        word = draft.find(id_, "object")
        if word is None:
            raise NotSayable(f"no -object throttle-group has the id {id_}")
        group = Options.of_word(word, backend.claims)
        found = read_group(group)
        name = id_.removeprefix("throttle-")
        if not found:
            backend.claims.take_word(word, Outcome.IMPLIED, "a group without limits limits nothing")
        elif draft.knows(FILTERS_SINCE):
            backend.claims.take_word(word, Outcome.MAPPED)
            groups.append(name)
        elif holes:
            raise NotSayable("several throttle filters came with libvirt 11.2")
        else:
            backend.claims.take_word(word, Outcome.MAPPED)
            holes = _with_group(found, name)
    return holes, groups


def read_group(options: Options) -> dict[str, str | None]:
    """Read the limits of an -object throttle-group; those of 0 are none."""
    holes: dict[str, str | None] = {}
    for limit, hole in LIMITS.items():
        holes |= _limit(options, [f"limits.{limit}", f"x-{limit}"], hole)
    return _checked(holes)


def add_filters(draft: Draft, disk: Element, groups: list[str]) -> None:
    """Write <throttlefilters>, and the groups of the domain that they name."""
    if not groups:
        return
    filters = etree.SubElement(disk, "throttlefilters")
    for name in groups:
        etree.SubElement(filters, "throttlefilter", group=name)


def convert_throttle_groups(draft: Draft) -> None:
    """Write <throttlegroups>: the groups that filters name, and on such a libvirt those that nobody uses yet."""
    used = {element.get("group") for element in draft.devices.iter("throttlefilter")}
    if not used:
        return
    groups = etree.Element("throttlegroups")
    for word in draft.group("object"):
        if word.peek("qom-type") != "throttle-group":
            continue
        name = (word.peek("id") or "").removeprefix("throttle-")
        try:
            holes = read_group(Options.of_word(word, Claims()))
        except NotSayable as exc:
            word.note(str(exc))
            continue
        if name not in used and (not word.untouched or not holes):
            continue
        element = draft.fill("throttle_group", {**holes, "group_name": name})
        groups.append(element)
        word.claim_rest(Outcome.MAPPED)
        word.land(element)
    draft.devices.addprevious(groups)


def _checked(holes: dict[str, str | None]) -> dict[str, str | None]:
    """Refuse a total beside its parts, as QEMU and libvirt do (throttle_is_valid() in QEMU's util/throttle.c)."""
    for hole in holes:
        parts = {hole.replace("total_", part, 1) for part in ("read_", "write_")}
        if hole.startswith("total_") and parts & set(holes):
            raise NotSayable("a total limit excludes those of reading and writing")
    return holes


def _limit(options: Options, names: list[str], hole: str) -> dict[str, str | None]:
    value = options.take_any(*names)
    if value is None or long_number(value) == "0":
        return {}
    if hole.endswith("_length") and long_number(value) == "1":
        return {}  # QEMU's default
    return {hole: long_number(value)}


def _with_group(holes: dict[str, str | None], group: str | None) -> dict[str, str | None]:
    return {**holes, "group_name": group} if holes and group else holes
