"""The hypervisor's files, looked at and changed on this machine and by libvirt's calls alone: the same answers."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.chains import read_chain
from virtsnap.host.files import HypervisorFiles
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.volume_files import VolumeFiles

MIB = 1_048_576


@pytest.fixture
def folder(host: PrivateLibvirtd, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that libvirtd and the test see, with an image over another and some others."""
    path = host.work / f"files-{os.getpid()}-{abs(hash(request.node.name)) % 10**8}"
    path.mkdir()
    run("qemu-img", "create", "-q", "-f", "raw", path / "base.raw", "4M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", path / "top.qcow2")
    run("qemu-io", "-c", "write -P 7 0 1M", path / "top.qcow2")
    (path / "image.mem").write_bytes(b"LibvirtQemudSave" + bytes(range(256)) * 4096)
    (path / "below").mkdir()
    yield path
    run("rm", "-r", path)


@pytest.fixture(params=["local", "libvirt"])
def files(request: pytest.FixtureRequest, host: PrivateLibvirtd) -> Iterator[HypervisorFiles]:
    if request.param == "local":
        yield LocalFiles()
        return
    with libvirt.open(host.uri) as connection:
        found = VolumeFiles(connection)
        yield found
        found.release()
        assert connection.listAllStoragePools() == []


def run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def bytes_of(path: Path) -> bytes:
    """Give what a guest would see of an image."""
    run("qemu-img", "convert", "-O", "raw", path, path.with_suffix(".converted"))
    return path.with_suffix(".converted").read_bytes()


def test_a_look_says_what_stat_says_and_sees_changes(files: HypervisorFiles, folder: Path) -> None:
    for path in (folder / "top.qcow2", folder / "image.mem"):
        for _ in range(2):
            found, real = files.facts_of(str(path)), path.stat()
            assert found is not None
            assert (found.size_bytes, found.held_bytes, found.mtime_ns, found.uid, found.gid) == (
                real.st_size, real.st_blocks * 512, real.st_mtime_ns, real.st_uid, real.st_gid
            )
            os.utime(path, ns=(1, 1_700_000_000_000_000_042))
            os.truncate(path, real.st_size - 5)
    assert files.facts_of(str(folder / "none")) is None
    assert files.facts_of(str(folder / "none" / "deeper")) is None
    with pytest.raises(UnsupportedError, match="regular file"):
        files.facts_of(str(folder / "below"))


def test_files_that_come_and_go_are_seen(files: HypervisorFiles, folder: Path) -> None:
    path = folder / "new"
    for _ in range(2):
        assert not files.is_taken(str(path))
        assert not files.exists(str(path))
        path.touch()
        assert files.is_taken(str(path))
        assert files.exists(str(path))
        path.unlink()
        assert files.facts_of(str(path)) is None
    assert files.exists("/dev/null")


def test_ranges_are_read_and_whole_files_digested(files: HypervisorFiles, folder: Path) -> None:
    path = folder / "image.mem"
    content = path.read_bytes()
    for offset, count in ((0, 16), (300_000, 700_000), (len(content) - 3, 10), (len(content), 4)):
        assert files.read(str(path), offset=offset, count=count) == content[offset:offset + count]
    assert files.digest_of(str(path)) == hashlib.blake2b(content, digest_size=16).hexdigest()
    with pytest.raises(HypervisorError, match="none"):
        files.read(str(folder / "none"), offset=0, count=1)


def test_a_chain_is_followed(files: HypervisorFiles, folder: Path) -> None:
    layers = read_chain(files, str(folder / "top.qcow2"), "qcow2")
    assert [(layer.path, layer.format, layer.virtual_bytes) for layer in layers] == [
        (str(folder / "top.qcow2"), "qcow2", 4 * MIB), (str(folder / "base.raw"), "raw", 4 * MIB),
    ]


def test_a_folder_is_made_filled_listed_and_removed_when_empty(files: HypervisorFiles, folder: Path) -> None:
    own = folder / "own"
    assert files.folders_in(str(folder)) == (str(folder / "below"),)
    files.require_writable(str(own))
    assert files.make_folder(str(own))
    assert not files.make_folder(str(own))
    assert own.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
    overlay = own / "odd, name <&>.qcow2"
    files.make_overlay(str(overlay), backing_path=str(folder / "top.qcow2"), backing_format="qcow2",
                       virtual_bytes=4 * MIB, owner=(os.geteuid(), os.getegid()))
    assert overlay.stat().st_mode & 0o777 == 0o600
    assert (overlay.stat().st_uid, overlay.stat().st_gid) == (os.geteuid(), os.getegid())
    assert bytes_of(overlay) == bytes_of(folder / "top.qcow2")
    with pytest.raises(HypervisorError, match="exists already"):
        files.make_overlay(str(overlay), backing_path=str(folder / "top.qcow2"), backing_format="qcow2",
                           virtual_bytes=4 * MIB, owner=None)
    overlay.with_suffix(".converted").unlink()
    assert files.files_in(str(own)) == (str(overlay),)
    files.remove_folder_if_empty(str(own))
    assert overlay.exists()
    assert files.remove(str(overlay))
    assert not files.remove(str(overlay))
    assert files.files_in(str(own)) == ()
    files.remove_folder_if_empty(str(own))
    assert not own.exists()
    assert files.files_in(str(own)) == ()
    with pytest.raises(HypervisorError, match="no such folder"):
        files.require_writable(str(own / "deeper"))


def test_layers_are_merged_down(files: HypervisorFiles, folder: Path) -> None:
    upper = folder / "upper.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "top.qcow2", "-F", "qcow2", upper)
    run("qemu-io", "-c", "write -P 9 2M 64k", upper)
    seen = bytes_of(upper)
    files.merge_layers(str(upper), into=str(folder / "base.raw"))
    assert (folder / "base.raw").read_bytes() == seen
    assert seen[:1] == b"\7"
    assert seen[2 * MIB:2 * MIB + 1] == b"\t"


def test_layers_are_pulled_up(files: HypervisorFiles, folder: Path) -> None:
    upper = folder / "upper.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "top.qcow2", "-F", "qcow2", upper)
    run("qemu-io", "-c", "write -P 9 2M 64k", upper)
    seen, below = bytes_of(upper), (folder / "top.qcow2").read_bytes()
    files.rebase(str(upper), base=str(folder / "base.raw"), base_format="raw")
    assert [layer.path for layer in read_chain(files, str(upper), "qcow2")] == [
        str(upper), str(folder / "base.raw")
    ]
    assert bytes_of(upper) == seen
    assert (folder / "top.qcow2").read_bytes() == below


def test_what_has_the_same_name_is_spared_where_links_cannot_be_followed(
    files: HypervisorFiles, folder: Path
) -> None:
    (folder / "link").symlink_to("below")
    (folder / "below" / "0000000a.mem").touch()
    by_link = str(folder / "link" / "0000000a.mem")
    assert files.same_files((by_link,), frozenset({str(folder / "below" / "0000000a.mem")})) == {by_link}


def test_a_pool_of_somebodys_is_used_and_stays(host: PrivateLibvirtd, folder: Path) -> None:
    with libvirt.open(host.uri) as connection:
        pool = connection.storagePoolDefineXML(
            f"<pool type='dir'><name>theirs</name><target><path>{folder}</path></target></pool>"
        )
        try:
            for is_active in (True, False):
                if is_active:
                    pool.create()
                files = VolumeFiles(connection)
                assert files.is_taken(str(folder / "top.qcow2"))
                files.release()
                assert [each.name() for each in connection.listAllStoragePools()] == ["theirs"]
                assert bool(pool.isActive()) is is_active
                if is_active:
                    pool.destroy()
        finally:
            pool.undefine()


def test_two_clients_share_a_pool_and_survive_that_the_other_ends_it(host: PrivateLibvirtd, folder: Path) -> None:
    with libvirt.open(host.uri) as one, libvirt.open(host.uri) as two:
        first, second = VolumeFiles(one), VolumeFiles(two)
        for files in (first, second):
            assert files.is_taken(str(folder / "top.qcow2"))
        first.release()
        assert second.digest_of(str(folder / "base.raw"))
        assert second.facts_of(str(folder / "top.qcow2")) is not None
        second.release()
        assert one.listAllStoragePools() == []
