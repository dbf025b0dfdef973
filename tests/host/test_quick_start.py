"""A guest comes back with the CPU that it had, though libvirt is told to ask little about it."""

from __future__ import annotations

import pytest
from lxml import etree

import virtsnap
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.test_save_and_load import put, tokens
from virtsnap.domain_xml import quick_start

DELETED = "{http://libvirt.org/schemas/domain/qemu/1.0}capabilities/*[@capability]"

# With something in its definition a guest is booted, not woken up quickly
BOOTED = "<description>booted</description>"


def live(guest: RunningGuest) -> etree._Element:
    return etree.fromstring(guest.domain.XMLDesc())


def cpu(guest: RunningGuest) -> bytes:
    (found,) = live(guest).iterfind("cpu")
    return etree.tostring(found, method="c14n", exclusive=True)


@pytest.mark.parametrize("asked", [
    # the first is libvirt's own choice
    BOOTED, "<cpu mode='maximum'/>",
    "<cpu mode='custom'><model>Nehalem</model><feature policy='disable' name='sse4.2'/></cpu>",
])
def test_libvirt_finds_the_same_cpu_in_the_loaded_guest(farm: GuestFarm, asked: str) -> None:
    guest = farm.running_guest(before_devices=asked)
    guest.console.wait_disk()
    put(guest, "one")
    before, flags = cpu(guest), guest.console.check("grep -m 1 flags /proc/cpuinfo")
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        domain.save_snapshot("s")
        for name in ("s", "t"):
            domain.load_snapshot(name)
            assert tokens(guest) == ("one", "one")
            assert [each.get("capability") for each in live(guest).iterfind(DELETED)] == [quick_start.CAPABILITY]
            assert cpu(guest) == before
            assert guest.console.check("grep -m 1 flags /proc/cpuinfo") == flags
            domain.save_snapshot("t")
    assert etree.fromstring(guest.domain.XMLDesc(2)).find(DELETED) is None  # VIR_DOMAIN_XML_INACTIVE


def assert_it_comes_back(farm: GuestFarm, guest: RunningGuest) -> None:
    guest.console.wait_disk()
    put(guest, "one")
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        domain.save_snapshot("s")
        put(guest, "two")
        domain.load_snapshot("s")
    assert tokens(guest) == ("one", "one")


def test_a_cpu_that_libvirt_starts_only_as_always_comes_back(farm: GuestFarm) -> None:
    # The live definition names features in MSRs, as disabled.
    guest = farm.running_guest(before_devices="<cpu mode='custom'><model>Snowridge</model></cpu>")
    assert_it_comes_back(farm, guest)


def test_a_libvirt_that_knows_no_such_capability_is_asked_without_it(
    farm: GuestFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_start, "CAPABILITY", "no-such-capability")
    guest = farm.running_guest(before_devices=BOOTED)
    assert_it_comes_back(farm, guest)
    assert live(guest).find(DELETED) is None
