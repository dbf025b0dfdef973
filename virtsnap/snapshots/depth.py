"""How long a disk's chain of layers is, and how long one may become before something suffers."""

from __future__ import annotations

from virtsnap.snapshots.view import View

# Reading through more layers is slow enough to be worth a remark.
SLOW_LAYERS = 30
# libvirt 11.3 starts no guest on more than some 25 layers: it reads QEMU's nested `query-block` with json-c, whose
# parser stops at 32 levels ("failed to parse JSON: nesting too deep"). 9.0 and 12.8 start one on 60.
_MOST_LAYERS = 20
_LIMITED = ((10, 0), (12, 0))


def longest_line(view: View) -> int:
    """Give how many files the longest of the chains under the domain's writable disks has."""
    return max((len(view.chains.get(disk.path or "", ())) for disk in view.writable_disks), default=0)


def most_layers(libvirt_version: tuple[int, int]) -> int | None:
    """Give how many layers a chain may have on that libvirt, with room to spare; None where any number will do."""
    first, fixed = _LIMITED
    return _MOST_LAYERS if first <= libvirt_version < fixed else None
