"""What confines QEMU on a host is told by `doctor`, with what RAM in files needs there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from virtsnap.cli.main import main
from virtsnap.domain_xml.ram_file import WHAT_EXCLUDES
from virtsnap.host import doctor
from virtsnap.host.confinement import needs_of_ram_in_files, read_confinement


def capabilities(*models: str, user: str = "+64055:+64055") -> str:
    """Write what libvirt says of a host, as far as it matters here."""
    found = "".join(f"<secmodel><model>{model}</model><doi>0</doi></secmodel>" for model in models)
    return (
        f"<capabilities><host>{found}<secmodel><model>dac</model><doi>0</doi>"
        f"<baselabel type='kvm'>{user}</baselabel><baselabel type='qemu'>{user}</baselabel></secmodel></host>"
        "</capabilities>"
    )


@dataclass(kw_only=True)
class FakeHost:
    """A host that says nothing but what confines its QEMU."""

    xml: str
    is_local: bool = True
    uri: str = "qemu:///system"
    libvirt_version: tuple[int, int] = (9, 0)
    files: None = None

    def capabilities(self) -> str:
        return self.xml

    def hypervisor_version(self) -> int:
        return 7_002_000


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: FakeHost) -> list[str]:
    """Run `virtsnap doctor` on a host; give the lines of its answer."""

    @contextlib.contextmanager
    def connect(_uri: str | None) -> Iterator[FakeHost]:
        yield host

    monkeypatch.setattr(doctor, "connect", connect)
    monkeypatch.setattr(doctor, "kvm_problem", lambda: None)
    main(["doctor"])
    return capsys.readouterr().out.splitlines()


def about_instant(lines: list[str]) -> tuple[str, str]:
    at = next(number for number, line in enumerate(lines) if " instant: " in line)
    return lines[at], lines[at + 1]


def test_what_confines_qemu_and_its_user_are_read() -> None:
    found = read_confinement(capabilities("selinux"))
    assert (found.models, found.user) == (("selinux", "dac"), (64055, 64055))
    assert read_confinement("<capabilities><host/></capabilities>").user is None


@pytest.mark.parametrize(("model", "rules"), [
    ("apparmor", ("under AppArmor", "/etc/apparmor.d/local/abstractions/libvirt-qemu",
                  "`owner /dev/shm/qemu_back_mem.virtsnap-ram.* rw,`", "--ram-dir",
                  "`owner /**/virtsnap-*/*.ram rw,`")),
    ("selinux", ("under SELinux", "`semanage fcontext -a -t svirt_image_t", "--ram-dir", "restorecon -RF",
                 "`(allow svirt_t svirt_image_t (file (map)))`")),
])
def test_doctor_tells_the_rule_to_add(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str, rules: tuple[str, ...]
) -> None:
    said, needs = about_instant(told(monkeypatch, capsys, FakeHost(xml=capabilities(model))))
    assert said.startswith("note")
    assert all(rule in needs for rule in rules)
    assert "(64055:64055)" in needs


def test_doctor_tells_what_excludes_it_and_who_owns_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for user, mark in (("+64055:+64055", "ok"), ("+4711:+4711", "note")):
        monkeypatch.setattr(os, "geteuid", lambda: 64055)
        said, needs = about_instant(told(monkeypatch, capsys, FakeHost(xml=capabilities(user=user))))
        assert said.startswith(mark)
        assert {"virtiofs", "vhost-user", "memory encryption"} <= set(WHAT_EXCLUDES)
        assert all(what in said for what in WHAT_EXCLUDES)
        assert user.replace("+", "") in needs
        assert "AppArmor" not in needs
        assert "SELinux" not in needs


def test_doctor_tells_that_none_is_made_from_afar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, needs = about_instant(told(monkeypatch, capsys, FakeHost(xml=capabilities(), is_local=False)))
    assert "none is made" in said
    assert "on that machine itself" in needs


def test_without_a_user_in_libvirts_answer_it_is_qemus() -> None:
    (need,) = needs_of_ram_in_files(read_confinement("<capabilities><host/></capabilities>"))
    assert "root or QEMU's user, " in need
