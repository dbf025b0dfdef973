"""UEFI variables and TPM state go into an archive and come back from it, whatever happened meanwhile."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from virtsnap.domain_xml.beside_disks import StatePlace, places_beside_disks
from virtsnap.domain_xml.live import parse_xml
from virtsnap.errors import HypervisorError
from virtsnap.host.state_archive import pack_state, remove_archive, tpm_root, unpack_state, unreachable


def places(folder: Path) -> tuple[StatePlace, ...]:
    return (
        StatePlace(kind="nvram", path=str(folder / "vars.fd")),
        StatePlace(kind="tpm", path=str(folder / "swtpm" / "uuid" / "tpm2")),
    )


def write_state(folder: Path, token: str) -> None:
    (folder / "vars.fd").write_text(f"vars {token}")
    tpm = folder / "swtpm" / "uuid" / "tpm2"
    tpm.mkdir(parents=True, exist_ok=True)
    (tpm / "tpm2-00.permall").write_text(f"tpm {token}")
    (tpm / ".lock").touch()


def read_state(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".state")
    }


def test_state_comes_back_in_place_and_what_was_added_since_goes(tmp_path: Path) -> None:
    archive = str(tmp_path / "a.state")
    write_state(tmp_path, "one")
    before = read_state(tmp_path)
    pack_state(places(tmp_path), archive)
    assert stat.S_IMODE(Path(archive).stat().st_mode) == 0o600
    inode = (tmp_path / "vars.fd").stat().st_ino
    write_state(tmp_path, "two, and longer")
    (tmp_path / "swtpm/uuid/tpm2/tpm2-00.volatilestate").write_text("later")
    for _ in range(2):
        unpack_state(archive, places(tmp_path))
        assert read_state(tmp_path) == before
    # written in place: libvirt's record of the file's owner is an attribute of it
    assert (tmp_path / "vars.fd").stat().st_ino == inode


def test_what_was_not_there_is_not_there_again_and_what_is_gone_comes_back(tmp_path: Path) -> None:
    nothing, something = str(tmp_path / "nothing.state"), str(tmp_path / "something.state")
    pack_state(places(tmp_path), nothing)
    write_state(tmp_path, "one")
    (tmp_path / "vars.fd").chmod(0o640)
    written = read_state(tmp_path)
    pack_state(places(tmp_path), something)
    unpack_state(nothing, places(tmp_path))
    assert read_state(tmp_path) == {}
    assert not (tmp_path / "swtpm/uuid/tpm2").exists()
    unpack_state(something, places(tmp_path))
    assert {**read_state(tmp_path), "swtpm/uuid/tpm2/.lock": ""} == written
    assert stat.S_IMODE((tmp_path / "vars.fd").stat().st_mode) == 0o640


def test_an_archive_that_is_cut_off_is_never_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(tmp_path, "one")

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(HypervisorError, match="No space left"):
        pack_state(places(tmp_path), str(tmp_path / "a.state"))
    assert not list(tmp_path.glob("a.state*"))
    (tmp_path / "a.state.part").touch()  # left by a process that was killed
    remove_archive(str(tmp_path / "a.state"))
    assert not list(tmp_path.glob("a.state*"))


@pytest.mark.parametrize(
    "name", ["../escape", "tpm/../../escape", "/escape", "tpm/.lock", "tpm/sub/file", "other"]
)
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.state"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(HypervisorError, match="no virtsnap put there"):
        unpack_state(str(archive), places(tmp_path / "below"))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.state"]


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.state"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("nvram")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(HypervisorError, match="no virtsnap put there"):
        unpack_state(str(archive), places(tmp_path))


def test_what_cannot_be_reached_is_named(tmp_path: Path) -> None:
    assert list(unreachable(places(tmp_path))) == []
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    found = list(unreachable((
        StatePlace(kind="nvram", path=str(folder)), StatePlace(kind="tpm", path=str(file)),
        StatePlace(kind="tpm", path=str(file / "below")), StatePlace(kind="nvram", path=None),
    )))
    assert [problem.partition(": ")[2] for problem in found[:3]] == [
        "it is no regular file", "it is no folder", "Not a directory",
    ]
    assert found[3] == "the definition does not say where UEFI variables (NVRAM) lies"


@pytest.mark.parametrize(("uri", "root"), [
    ("qemu:///system", "/var/lib/libvirt/swtpm/u"),
    ("qemu+unix:///system?socket=/x", "/var/lib/libvirt/swtpm/u"),
    ("qemu:///session", "/home/me/.config/libvirt/qemu/swtpm/u"),
    ("qemu:///embed?root=/some/where", "/some/where/lib/swtpm/u"),
])
def test_where_a_hypervisor_has_its_tpms(uri: str, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert tpm_root(uri, "u") == root


@pytest.mark.parametrize(("xml", "found"), [
    ("<os><nvram>/n.fd</nvram></os>", [("nvram", "/n.fd")]),
    ("<os><nvram type='file'><source file='/n.fd'/></nvram></os>", [("nvram", "/n.fd")]),
    ("<os firmware='efi'/>", [("nvram", None)]),
    ("<devices><tpm><backend type='emulator' version='1.2'/></tpm></devices>", [("tpm", "/root/tpm1.2")]),
    ("<devices><tpm><backend type='emulator' version='2.0'><source type='dir' path='/t'/></backend></tpm>"
     "</devices>", [("tpm", "/t")]),
    ("<devices><tpm><backend type='passthrough'/></tpm></devices>", []),
])
def test_what_a_definition_keeps_beside_its_disks(xml: str, found: list[tuple[str, str | None]]) -> None:
    domain = parse_xml(f"<domain>{xml}</domain>")
    assert [(each.kind, each.path) for each in places_beside_disks(domain, tpm_root="/root")] == found
