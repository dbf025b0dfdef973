"""A domain becomes a template and comes back; what may not be shared is a placeholder."""

from __future__ import annotations

import pytest

from virtsnap.domain_xml.domain_template import fill_domain_template, make_domain_template, placeholders
from virtsnap.errors import TemplateError

DOMAIN = """<domain type="qemu">
  <name>sut</name>
  <uuid>0f3c4a5e-0000-4000-8000-000000000001</uuid>
  <os><cmdline>{name}s stay</cmdline><nvram>/n.fd</nvram></os>
  <devices>
    <disk><source file="/a.qcow2"/></disk>
    <disk><source dev="/dev/vg/b"/></disk>
    <interface><mac address="52:54:00:00:00:01"/></interface>
    <serial type="tcp"><source mode="bind" host="127.0.0.1" service="4555"/></serial>
    <graphics type="vnc" port="5901"/>
    <graphics type="vnc" port="-1"/>
  </devices>
</domain>
"""


def test_template_names_what_two_domains_may_not_share() -> None:
    template = make_domain_template(DOMAIN)
    assert template.values == {
        "name": "sut", "uuid": "0f3c4a5e-0000-4000-8000-000000000001", "mac1": "52:54:00:00:00:01",
        "port1": "5901", "port2": "4555", "disk1": "/a.qcow2", "disk2": "/dev/vg/b", "nvram1": "/n.fd",
    }
    assert set(placeholders(template.xml)) == set(template.values)


def test_uuid_in_the_smbios_is_the_domains_placeholder_too() -> None:
    uuid = "0f3c4a5e-0000-4000-8000-000000000001"
    smbios = f'<sysinfo type="smbios"><system><entry name="uuid">{uuid}</entry></system></sysinfo>'
    template = make_domain_template(DOMAIN.replace("  <os>", f"  {smbios}<os>"))
    other = "0f3c4a5e-0000-4000-8000-000000000002"
    filled = fill_domain_template(template.xml, {**template.values, "uuid": other})
    assert filled.count(other) == 2
    assert uuid not in filled


def test_console_that_is_the_serial_port_has_the_same_placeholder() -> None:
    console = '<console type="tcp"><source mode="bind" host="127.0.0.1" service="4555"/></console>'
    template = make_domain_template(DOMAIN.replace("</serial>", f"</serial>{console}"))
    assert template.xml.count('service="{port2}"') == 2


def test_port_that_a_passed_through_word_forwards_is_a_placeholder() -> None:
    qemu = "http://libvirt.org/schemas/domain/qemu/1.0"
    words = "user,id=n,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:69-:69,hostfwd=tcp::0-:80"
    line = f'<qemu:commandline xmlns:qemu="{qemu}"><qemu:arg value="{words}"/></qemu:commandline>'
    template = make_domain_template(DOMAIN.replace("</domain>", f"{line}</domain>"))
    assert "hostfwd=tcp::{port3}-:22,hostfwd=udp:127.0.0.1:{port4}-:69,hostfwd=tcp::0-:80" in template.xml
    assert "hostfwd=tcp::2300-:22" in fill_domain_template(template.xml, {**template.values, "port3": "2300"})
    with pytest.raises(TemplateError, match="comma"):
        fill_domain_template(template.xml, {**template.values, "port3": "1,smb=/"})


def test_template_filled_with_its_own_values_is_the_domain() -> None:
    template = make_domain_template(DOMAIN)
    assert fill_domain_template(template.xml, template.values) == DOMAIN


def test_uuid_and_macs_may_stay_open() -> None:
    template = make_domain_template(DOMAIN)
    values = {key: value for key, value in template.values.items() if key not in {"uuid", "mac1"}}
    filled = fill_domain_template(template.xml, values)
    assert "uuid" not in filled
    assert "<mac" not in filled


@pytest.mark.parametrize(
    ("drop", "add", "complaint"),
    [("disk1", {}, "nothing is said for disk1"), (None, {"disk9": "x"}, "no placeholder disk9"),
     (None, {"name": "a\x00"}, "cannot carry")],
)
def test_wrong_values_are_refused(drop: str | None, add: dict[str, str], complaint: str) -> None:
    template = make_domain_template(DOMAIN)
    values = {key: value for key, value in template.values.items() if key != drop} | add
    with pytest.raises(TemplateError, match=complaint):
        fill_domain_template(template.xml, values)


def test_value_never_becomes_markup() -> None:
    template = make_domain_template(DOMAIN)
    filled = fill_domain_template(template.xml, {**template.values, "name": "<a/>&"})
    assert "&lt;a/&gt;&amp;" in filled


@pytest.mark.parametrize("text", ["<network/>", "no xml"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        fill_domain_template(text, {})
