"""What the storage subjects share during one conversion: the graph, places that are taken, disks so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from virtsnap.convert.buses.controllers import Controller
from virtsnap.convert.draft import Draft
from virtsnap.convert.storage.block_graph import BlockGraph
from virtsnap.convert.storage.drives import Drive, number_drives
from virtsnap.domain_xml.templates import Element


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place on a bus of drives, in libvirt's terms."""

    controller: Controller
    bus: int
    target: int
    unit: int


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk of the domain that still wants a name: its element, libvirt's bus, its place there, QEMU's id."""

    element: Element
    bus: str
    place: Place | None
    index: int | None
    qemu_id: str


@dataclass(kw_only=True)
class StorageParts:
    """The state; `users` counts the -device words of each drive or node, `kept` has places by the word's id()."""

    drives: list[Drive] = field(default_factory=list)
    graph: BlockGraph | None = None
    users: Counter[str] = field(default_factory=Counter)
    taken: set[tuple[int, int, int, int]] = field(default_factory=set)
    kept: dict[int, Place] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)

    def start(self, draft: Draft) -> BlockGraph:
        """Read drives and nodes, once."""
        if self.graph is None:
            self.drives = number_drives(draft)
            self.graph = BlockGraph(draft, self.drives)
            self.users.update(word.peek("drive") or "" for word in draft.said("device"))
        return self.graph

    def free(self, place: Place) -> bool:
        """Tell whether nothing sits at a place."""
        return (id(place.controller), place.bus, place.target, place.unit) not in self.taken

    def take(self, place: Place) -> None:
        """Take a place."""
        self.taken.add((id(place.controller), place.bus, place.target, place.unit))
