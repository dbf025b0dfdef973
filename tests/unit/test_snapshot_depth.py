"""When a chain is shortened, and how much of it goes."""

from __future__ import annotations

import random

import pytest

from virtsnap.host.files import Layer
from virtsnap.snapshots.depth import KEPT_LAYERS, MOST_LAYERS, base_to_stand_on, is_limited


@pytest.mark.parametrize(
    ("version", "limited"), [((9, 0), False), ((10, 0), True), ((11, 3), True), ((12, 0), False), ((12, 8), False)]
)
def test_only_some_libvirts_have_a_limit(version: tuple[int, int], limited: bool) -> None:
    assert is_limited(version) is limited


def chain(*sizes: int) -> list[Layer]:
    """Give a chain of layers with these sizes, its top first."""
    return [
        Layer(path=f"/{number}", format="qcow2", size_bytes=size, mtime_ns=0, virtual_bytes=0)
        for number, size in enumerate(sizes)
    ]


def base(own: int, *sizes: int) -> int:
    return int(base_to_stand_on(chain(*sizes), own).path[1:])


def test_the_young_layers_go_and_older_ones_where_they_are_no_larger() -> None:
    # top, 18 of ours, the user's own: ten stay at most
    assert base(19, 1, *[5] * 10, *[1000] * 8, 9999) == 11
    # ten of 5 are pulled, so a layer of 50 goes too, and then one of 100; one of 1000 stays
    assert base(19, 1, *[5] * 10, 50, 100, *[1000] * 6, 9999) == 13
    # all are alike: the user's own is what is left
    assert base(19, 1, *[5] * 18, 9999) == 19


def test_what_is_the_users_stays() -> None:
    assert base(3, 1, 5, 5, 1, 1, 1) == 3
    assert base(3, 1, 5, 5, *[1] * 30) == 3
    assert base(0, 9) == 0
    assert base(1, 1, 9) == 1


def test_a_line_that_gets_long_is_copied_a_few_times_in_all() -> None:
    chance = random.Random(1)
    layers, copied, written = chain(10_000), 0, 0
    for _ in range(2000):
        if len(layers) >= MOST_LAYERS:
            stands_on = layers.index(base_to_stand_on(layers, len(layers) - 1))
            pulled = sum(layer.size_bytes for layer in layers[1:stands_on])
            copied += pulled
            layers = [chain(pulled + layers[0].size_bytes)[0], *layers[stands_on:]]
            assert len(layers) <= KEPT_LAYERS
        size = chance.randrange(1, 100)
        written += size
        layers = [*chain(size), *layers]
    assert copied < 8 * written
