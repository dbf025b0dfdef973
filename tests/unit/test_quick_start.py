"""libvirt is told to ask little where the answers are the same."""

from __future__ import annotations

import pytest

from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.quick_start import start_as_always, start_quickly
from virtsnap.snapshots.catalog import to_text

EMULATED = (
    "<domain type='qemu'><name>a</name><os><type arch='x86_64'>hvm</type></os>"
    "<features><acpi/></features></domain>"
)
NS = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"


def test_the_capability_is_taken_away_once_and_given_back() -> None:
    domain = parse_xml(EMULATED)
    assert start_quickly(domain)
    text = to_text(domain)
    assert '<qemu:del capability="cpu-unavailable-features"/></qemu:capabilities>' in text
    assert not start_quickly(domain)
    assert to_text(domain) == text
    assert start_as_always(domain)
    assert to_text(domain) == to_text(parse_xml(EMULATED))
    assert not start_as_always(domain)


@pytest.mark.parametrize("change", [
    ("type='qemu'", "type='kvm'"),  # features in MSRs are no CPUID bits
    ("x86_64", "aarch64"),
    ("<acpi/>", "<hyperv><relaxed state='on'/></hyperv>"),
    ("<acpi/>", "<kvm><hidden state='on'/></kvm>"),
])
def test_nothing_is_said_where_the_answers_could_differ(change: tuple[str, str]) -> None:
    domain = parse_xml(EMULATED.replace(*change))
    assert not start_quickly(domain)
    assert to_text(domain) == to_text(parse_xml(EMULATED.replace(*change)))


def test_what_the_definition_itself_says_stays() -> None:
    own = f"<qemu:capabilities {NS}><qemu:add capability='cpu-unavailable-features'/></qemu:capabilities></domain>"
    domain = parse_xml(EMULATED.replace("</domain>", own))
    assert not start_quickly(domain)
    assert not start_as_always(domain)
    other = parse_xml(EMULATED.replace("</domain>", own.replace("cpu-unavailable-features", "rbd")))
    assert start_quickly(other)
    assert start_as_always(other)
    assert "capability=\"rbd\"" in to_text(other)
