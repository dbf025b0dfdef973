"""-smp becomes <vcpu> and <cpu><topology>.

QEMU fills in what -smp leaves out: since machine version 6.2 with cores before
sockets, before that with sockets first. libvirt without a <topology> makes every
CPU a socket, so whatever else the guest would have seen is written out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from lxml import etree

from virtsnap.command_line.options import Option
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, refuse
from virtsnap.convert.rows import Key, Table
from virtsnap.convert.values import parse_number

# The levels that libvirt has a word for, and those that only QEMU has.
LEVELS = ("sockets", "dies", "clusters", "cores", "threads")
QEMU_LEVELS = ("drawers", "books", "modules")
# No machine of QEMU's has more CPUs (mc->max_cpus is 4096 at the most).
MOST = 1 << 16
# <topology> has dies since libvirt 6.1, clusters since 10.1.
CLUSTERS_SINCE = (10, 1)

TABLES = (
    Table(group="smp", keys=tuple(Key(key=key, hole=None) for key in ("cpus", "maxcpus", *LEVELS))),
)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The CPUs of a machine: how many run, how many there may be, and how they are arranged."""

    cpus: int
    max_cpus: int
    levels: dict[str, int]


def prefers_sockets(machine_type: str) -> bool:
    """Tell whether a machine type counts missing levels as sockets first.

    Source: smp_props.prefer_sockets, set for machine versions up to 6.1 (hw/core/machine-smp.c).
    """
    found = re.search(r"-(rhel)?([0-9]+)\.([0-9]+)[^-]*$", machine_type)
    if found is None:
        return machine_type.startswith("pc-0.")
    version = (int(found[2]), int(found[3]))
    return version < ((8, 6) if found[1] else (6, 2))


def read_topology(draft: Draft) -> Topology:
    """Work out the topology as QEMU's machine_parse_smp_config() does; raises CommandLineError."""
    said: dict[str, int] = {}
    for word in draft.group("smp"):
        said |= _numbers(word.option)
    levels = {level: said.get(level, 0) for level in (*LEVELS, *QEMU_LEVELS)}
    cpus, max_cpus = said.get("cpus", 0), said.get("maxcpus", 0)
    if not cpus and not max_cpus:
        levels = {level: count or 1 for level, count in levels.items()}
        cpus = max_cpus = min(prod(levels.values()), MOST)
    else:
        max_cpus = max_cpus or cpus
        fixed = {level: levels[level] or 1 for level in ("dies", "clusters", "drawers", "books", "modules")}
        order = ("sockets", "cores") if prefers_sockets(draft.machine.type) else ("cores", "sockets")
        levels |= fixed
        for level in (*order, "threads"):
            if not levels[level]:
                others = [levels[name] or 1 for name in levels if name != level]
                levels[level] = max(1, max_cpus // prod(others))
        cpus = cpus or max_cpus
        max_cpus = max(max_cpus, cpus)
    return Topology(cpus=cpus, max_cpus=max_cpus, levels=levels)


def max_cpus(draft: Draft) -> int:
    """Give the most CPUs that the machine may have."""
    return read_topology(draft).max_cpus


def convert_topology(draft: Draft) -> None:
    """Write <vcpu>, and <topology> where it says more than a socket for each CPU."""
    topology = read_topology(draft)
    words = draft.group("smp")
    vcpu = etree.SubElement(draft.root, "vcpu")
    if topology.cpus != topology.max_cpus:
        vcpu.set("current", str(topology.cpus))
    vcpu.text = str(topology.max_cpus)
    for word in words:
        word.land(vcpu)
    levels = topology.levels
    if any(levels[level] != 1 for level in QEMU_LEVELS) or (
        levels["clusters"] != 1 and not draft.knows(CLUSTERS_SINCE)
    ):
        # libvirt has no word for these levels: QEMU gets the whole of -smp, beside the number of CPUs.
        for word in words:
            word.claim_rest(Outcome.PASSTHROUGH)
            draft.pass_on(word.option.words, word)
        return
    for word in words:
        for key in ("cpus", "maxcpus", *LEVELS, *QEMU_LEVELS):
            word.claim(key, Outcome.MAPPED)
    if prod(levels.values()) != topology.max_cpus:
        for word in words:
            word.note("sockets × cores × threads is not the number of CPUs: the topology is left to libvirt")
        return
    said = any(word.has("dies") or word.has("clusters") for word in words)
    if said or levels["sockets"] != topology.max_cpus:
        holes = {level: str(levels[level]) for level in LEVELS}
        if not draft.knows(CLUSTERS_SINCE):
            del holes["clusters"]
        draft.head.put("cpu", holes, *words)


def _numbers(option: Option) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in option.properties:
        if item.key not in ("cpus", "maxcpus", *LEVELS, *QEMU_LEVELS):
            continue
        try:
            number = parse_number(item.value)
        except ValueError:
            number = 0
        # 0 was QEMU's way to leave a level open, until 6.2 deprecated it.
        if number < 0 or (number == 0 and item.value.strip() != "0"):
            raise refuse(
                option, f"{item.key}={item.value!r} is not a number of CPUs", "give a whole number, 1 or more"
            )
        if number > MOST:
            raise refuse(option, f"{item.key}={item.value} is more than any machine has", "give fewer")
        if number:
            found[item.key] = number
    return found
