"""Overlays of libvirt's own revert are told from those that somebody stands on, second for second."""

from __future__ import annotations

import pytest

from tests.unit.snapshot_samples import BASE, domain_xml
from virtsnap.errors import UnsupportedError
from virtsnap.snapshots.acts.native import native_overlays
from virtsnap.snapshots.definition import with_revert_disks
from virtsnap.snapshots.engines import choose_engine
from virtsnap.snapshots.places import is_native_overlay
from virtsnap.snapshots.steps import KeptObject, RevertNatively


def test_a_name_of_the_second_beside_the_frozen_file() -> None:
    assert is_native_overlay("/images/disk.1795490366", BASE, since_s=1795490366)
    for other in ("/images/disk.1795490365", "/images/x/disk.1795490366", "/images/other.1795490366",
                  "/images/disk.qcow2", "/images/disk.1795490366.bak", "/images/disk.²"):
        assert not is_native_overlay(other, BASE, since_s=1795490366), other


def test_what_somebody_stands_on_is_never_taken_for_an_overlay_of_this_revert() -> None:
    path = "/images/disk.1795490366"
    for there, expected in ((frozenset[str](), (path,)), (frozenset({path}), ())):
        step = RevertNatively(
            snapshot=KeptObject(object_name="s", xml="<domainsnapshot/>", is_current=True), has_memory=True,
            frozen=(("vda", BASE),), since_s=1795490366, there=there, previous_xml=domain_xml(),
            current=None,
        )
        assert native_overlays(step, domain_xml(path)) == expected


def test_an_engine_that_libvirt_cannot_run_is_refused_and_the_default_is_restore() -> None:
    with pytest.raises(UnsupportedError, match=r"libvirt 9\.0 cannot revert"):
        choose_engine((9, 0), "native")
    assert choose_engine((11, 3)).name == "restore"
    assert choose_engine((9, 9), "native").name == "native"


def test_libvirt_is_told_of_nothing_to_remove() -> None:
    xml = with_revert_disks("<domainsnapshot><disks/><revertDisks><disk/></revertDisks></domainsnapshot>",
                            ["vda"], path="/nonexistent/x")
    assert xml.count("<revertDisks>") == 1
    assert 'file="/nonexistent/x"' in xml
