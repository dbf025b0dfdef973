"""Of a tree of three branches every node is deleted, and all others load; so do sixty in a line."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.guest_with_two import GuestWithTwo
from tests.host.test_save_and_load import put, tokens

# a ─┬─ b ── c
#    ├─ d
#    └─ e
NODES = ("a", "b", "c", "d", "e")
ORDERS = list(itertools.permutations(NODES))
# From the root down, from the leaves up, and across the branches
SAMPLE = {("a", "b", "c", "d", "e"), ("e", "c", "d", "b", "a"), ("b", "d", "a", "e", "c")}


def build(two: GuestWithTwo) -> None:
    """Have the tree, from the line a → b that every case begins with."""
    put(two.guest, "c")
    two.domain.save_snapshot("c")
    for name in ("d", "e"):
        two.domain.load_snapshot("a", keep_newer=True)
        put(two.guest, name)
        two.domain.save_snapshot(name)


def first_to_begin_with(gone: tuple[str, ...]) -> tuple[str, ...]:
    """Name the order that tries what loads once these are gone, in this order: one of those that begin so."""
    return next(order for order in ORDERS if order[: len(gone)] == gone)


@pytest.mark.parametrize("order", [
    pytest.param(order, id="".join(order), marks=() if order in SAMPLE else pytest.mark.whole)
    for order in ORDERS
])
def test_every_node_is_deleted_and_all_others_load(two: GuestWithTwo, order: tuple[str, ...]) -> None:
    build(two)
    left = list(NODES)
    for at, gone in enumerate(order, 1):
        two.domain.remove_snapshot(gone)
        left.remove(gone)
        assert two.disagreements() == []
        if order in SAMPLE or first_to_begin_with(order[:at]) == order:
            two.assert_all_load({name: name for name in left})
    assert two.names() == set()
    put(two.guest, "on")
    assert tokens(two.guest) == ("on", "on")


@pytest.mark.whole
def test_sixty_snapshots_all_load(two: GuestWithTwo) -> None:
    names = [f"n{number:02}" for number in range(58)]
    for name in names:
        put(two.guest, name)
        two.domain.save_snapshot(name)
    assert len(two.names()) == 60
    two.domain.flatten()
    two.assert_all_load({name: name for name in ("a", "b", *names)})
