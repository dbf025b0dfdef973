"""Which libvirt takes how long a chain."""

from __future__ import annotations

import pytest

from virtsnap.snapshots.depth import most_layers


@pytest.mark.parametrize(("version", "most"), [((9, 0), None), ((11, 3), 20), ((12, 0), None), ((12, 8), None)])
def test_only_some_libvirts_have_a_limit(version: tuple[int, int], most: int | None) -> None:
    assert most_layers(version) == most
