"""Headers and chains are read as QEMU would read them, and damage is told."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from virtsnap.errors import HypervisorError, UnsupportedError, VirtsnapError
from virtsnap.host.chains import read_chain
from virtsnap.host.hypervisor import is_local_uri
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.memory_image import memory_image_problem
from virtsnap.host.qcow2 import read_qcow2_header

FILES = LocalFiles()


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def test_a_chain_of_overlays_is_followed_to_a_raw_base(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"\0" * 1_048_576)
    qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", tmp_path / "one.qcow2")
    top = tmp_path / "odd, name:top.qcow2"
    FILES.make_overlay(str(top), backing_path=str(tmp_path / "one.qcow2"), backing_format="qcow2",
                 virtual_bytes=1_048_576, owner=None)
    layers = read_chain(FILES, str(top), "qcow2")
    assert [(layer.path, layer.format, layer.virtual_bytes) for layer in layers] == [
        (str(top), "qcow2", 1_048_576), (str(tmp_path / "one.qcow2"), "qcow2", 1_048_576),
        (str(base), "raw", 1_048_576),
    ]
    assert top.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HypervisorError, match="exists"):
        FILES.make_overlay(str(top), backing_path=str(base), backing_format="raw", virtual_bytes=1, owner=None)


@pytest.mark.parametrize("size", [0, 512, 2**20 + 512, 2**29, 2**29 + 512, 20 * 2**30, 5 * 2**40 + 512])
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_an_overlay_is_what_qemu_img_makes(tmp_path: Path, size: int, kind: str) -> None:
    base, top, theirs = (tmp_path / name for name in ("base of: it, ü", "top", "theirs"))
    qemu_img("create", "-f", kind, base, size)
    FILES.make_overlay(str(top), backing_path=str(base), backing_format=kind, virtual_bytes=size, owner=None)
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", kind, theirs, size)
    qemu_img("check", top)
    told = []
    for path in (top, theirs):
        shown = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True)
        told.append({key: value for key, value in json.loads(shown.stdout).items()
                     if key not in ("filename", "actual-size", "children")})
    assert told[0] == told[1]


def test_an_overlay_can_be_written_to_and_shows_what_is_under_it(tmp_path: Path) -> None:
    base, top, expected = (tmp_path / name for name in ("base", "top", "expected"))
    size = 2**30
    for path in (base, expected):
        path.write_bytes(bytes(range(256)) * 4096)
        os.truncate(path, size)
    FILES.make_overlay(str(top), backing_path=str(base), backing_format="raw", virtual_bytes=size, owner=None)
    pieces = [(0, 4096), (70_000, 130_000), (2**29 - 4096, 8192), (size - 512, 512)]
    with expected.open("rb+") as file:
        for number, (at, count) in enumerate(pieces):
            write = f"write -P {number + 1} {at} {count}"
            subprocess.run(["qemu-io", "-c", write, top], check=True, capture_output=True)
            file.seek(at)
            file.write(bytes([number + 1]) * count)
    qemu_img("check", top)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", top, expected)


def test_a_name_that_no_header_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="too long"):
        FILES.make_overlay(str(tmp_path / "top"), backing_path="/" + "x" * 1023, backing_format="raw",
                           virtual_bytes=512, owner=None)
    assert not (tmp_path / "top").exists()


def test_a_missing_layer_and_one_that_is_no_qcow2_are_told(tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    FILES.make_overlay(str(top), backing_path=str(tmp_path / "gone"), backing_format="qcow2", virtual_bytes=4096,
                 owner=None)
    with pytest.raises(HypervisorError, match="gone: no such file"):
        read_chain(FILES, str(top), "qcow2")
    (tmp_path / "gone").write_bytes(b"not a disk")
    with pytest.raises(HypervisorError, match="is not qcow2"):
        read_chain(FILES, str(top), "qcow2")


def test_a_chain_without_end_is_told(tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    FILES.make_overlay(str(top), backing_path=f"{tmp_path}/two.qcow2", backing_format="qcow2", virtual_bytes=4096,
                 owner=None)
    FILES.make_overlay(f"{tmp_path}/two.qcow2", backing_path=str(top), backing_format="qcow2", virtual_bytes=4096,
                 owner=None)
    with pytest.raises(HypervisorError, match="no end"):
        read_chain(FILES, str(top), "qcow2")


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "d.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", disk, "1M")
    with pytest.raises(UnsupportedError, match="data file"):
        read_qcow2_header(FILES, str(disk))


@pytest.mark.parametrize("head", [b"QFI\xfb", b"QFI\xfb\0\0\0\x09" + b"\0" * 200])
def test_a_damaged_header_is_told(tmp_path: Path, head: bytes) -> None:
    disk = tmp_path / "d.qcow2"
    disk.write_bytes(head)
    with pytest.raises(VirtsnapError):
        read_qcow2_header(FILES, str(disk))


def image(magic: bytes = b"LibvirtQemudSave", stream: bytes = b"QEVM\0\0\0\3") -> bytes:
    return magic + struct.pack("<5I", 2, 8, 1, 0, 0) + b"\0" * 56 + b"<domain>" + stream


@pytest.mark.parametrize(("content", "problem"), [
    (image(), None),
    (image(magic=b"LibvirtQemudPart"), "partial"),
    (image(magic=b"something else  "), "not a memory image"),
    (image()[:40], "not a memory image"),
    (image(stream=b""), "cut short"),
    (image(stream=b"\0" * 8), "no QEMU stream"),
])
def test_a_memory_image_is_judged_by_its_first_bytes(tmp_path: Path, content: bytes, problem: str | None) -> None:
    path = tmp_path / "m"
    path.write_bytes(content)
    found = memory_image_problem(FILES, str(path))
    assert found == problem if problem is None else problem in str(found)


def test_the_same_file_by_another_name_is_known(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").touch()
    (tmp_path / "link").symlink_to("real")
    assert FILES.same_files((f"{tmp_path}/link/f",), frozenset({f"{tmp_path}/real/f"})) == {f"{tmp_path}/link/f"}
    assert FILES.same_files((f"{tmp_path}/link/f",), frozenset()) == frozenset()


def test_a_folder_that_is_not_there_is_told_with_the_way_out(tmp_path: Path) -> None:
    FILES.require_writable(str(tmp_path / "to be made"))
    with pytest.raises(HypervisorError) as caught:
        FILES.require_writable(str(tmp_path / "no" / "such"))
    assert caught.value.hint == "choose another place with --dir"


@pytest.mark.parametrize(("uri", "local"), [
    ("qemu:///system", True), ("qemu:///session", True), ("qemu+unix:///system?socket=/x", True),
    ("qemu+ssh://host/system", False), ("qemu://host/system", False), ("qemu+tcp:///system", False),
])
def test_which_uris_mean_this_machine(uri: str, local: bool) -> None:
    assert is_local_uri(uri) is local


def test_all_files_and_the_folders_that_name_them_are_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    one, other = tmp_path / "folder" / "one", tmp_path / "other"
    one.parent.mkdir()
    one.touch()
    other.touch()
    FILES.sync([str(one), str(other), str(one)])
    assert synced == [str(path) for path in (one, other, one.parent, tmp_path, tmp_path.parent)]
    other.unlink()
    with pytest.raises(HypervisorError, match="other: cannot be written to the disk"):
        FILES.sync([str(other)])
