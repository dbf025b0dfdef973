"""How long a disk's chain of layers is, when it is shortened, and how much of it then goes.

With each save, and the load after it, a chain gets one layer more; opening a
layer costs QEMU's start a millisecond or two, and reading through many is
slow. Taking all of them into the top file would copy all that the guest ever
wrote, again and again. So a save that finds a chain too long has the young
layers merged, and an older one only where what lies on it has grown as large
(as log-structured merge trees do): each byte is copied a few times in the
life of a line, however long it gets.
"""

from __future__ import annotations

from collections.abc import Sequence

from virtsnap.host.files import Layer
from virtsnap.snapshots.view import View

# Reading through more layers is slow enough to be worth a remark.
SLOW_LAYERS = 30
# A save makes no chain longer than that, and one that it shortens this long at most.
MOST_LAYERS = 20
KEPT_LAYERS = 10
# libvirt 11.3 starts no guest on more than some 25 layers: it reads QEMU's nested `query-block` with json-c, whose
# parser stops at 32 levels ("failed to parse JSON: nesting too deep"). 9.0 and 12.8 start one on 60.
_LIMITED = ((10, 0), (12, 0))


def longest_line(view: View) -> int:
    """Give how many files the longest of the chains under the domain's writable disks has."""
    return max((len(view.chains.get(disk.path or "", ())) for disk in view.writable_disks), default=0)


def is_limited(libvirt_version: tuple[int, int]) -> bool:
    """Say whether that libvirt starts no guest on a chain that is much longer than MOST_LAYERS."""
    first, fixed = _LIMITED
    return first <= libvirt_version < fixed


def base_to_stand_on(chain: Sequence[Layer], own: int) -> Layer:
    """Choose the layer of a chain, its top first, that the top shall stand on once it holds those between.

    Those from index `own` on are the user's, and stay. KEPT_LAYERS are left at most, where they allow it.
    """
    base = min(own, max(2, len(chain) - KEPT_LAYERS + 1))
    pulled = sum(layer.size_bytes for layer in chain[1:base])
    while base < own and chain[base].size_bytes <= pulled:
        pulled += chain[base].size_bytes
        base += 1
    return chain[base]
