"""Drives get QEMU's numbers and ids; disks get libvirt's names; file names become keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtsnap.command_line.options import parse_options
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.machine import read_machine
from virtsnap.convert.ledger import NotSayable
from virtsnap.convert.storage.block_files import parse_file_name
from virtsnap.convert.storage.disk_targets import letters
from virtsnap.convert.storage.drives import number_drives
from virtsnap.convert.storage.images import drives_of, read_image
from virtsnap.convert.storage.scsi_hostdevs import host_address
from virtsnap.domain_xml.templates import Templates


def _draft(*words: str) -> Draft:
    line = parse_options(["/usr/bin/qemu-system-x86_64", *words])
    return Draft(
        line, read_machine(line), target=(11, 3), templates=Templates(), name="guest", base=Path("/base")
    )


# What `info block` of QEMU 7.2 shows for the same words.
@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("-drive if=none -drive if=none", ["none0", "none1"]),
        ("-drive if=virtio,file=a -drive if=virtio,file=b", ["virtio0", "virtio1"]),
        ("-hda a -hdb b -cdrom c -hdd d", ["ide0-hd0", "ide0-hd1", "ide1-cd0", "ide1-hd1"]),
        ("-drive file=a -drive file=b -drive file=c", ["ide0-hd0", "ide0-hd1", "ide1-hd0"]),
        ("-M q35 -drive file=a -drive file=b,media=cdrom", ["ide0-hd0", "ide1-cd0"]),
        ("-drive if=scsi,file=a,index=9", ["scsi1-hd2"]),
        ("-fda a -fdb b", ["floppy0", "floppy1"]),
        ("-drive file=a,bus=1,unit=1,id=mine", ["mine"]),
    ],
)
def test_drives_get_the_ids_that_qemu_makes_up(words: str, ids: list[str]) -> None:
    assert [drive.id for drive in number_drives(_draft(*words.split()))] == ids


def test_names_go_on_after_z() -> None:
    assert [letters(number) for number in (0, 25, 26, 701, 702)] == ["a", "z", "aa", "zz", "aaa"]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("a:b/c", None),
        ("./a:b", {"driver": "file", "filename": "./a:b"}),
        ("/dev/shm/a", {"driver": "file", "filename": "/dev/shm/a"}),
        ("/dev/sr0", {"driver": "host_cdrom", "filename": "/dev/sr0"}),
        ("file:/a", {"driver": "file", "filename": "/a"}),
        ("fat:floppy:rw:16:/d", {"driver": "vvfat", "floppy": "on", "rw": "on", "fat-type": "16", "dir": "/d"}),
        ("iscsi://[oops/x", None),
    ],
)
def test_file_names_become_keys(name: str, keys: dict[str, str] | None) -> None:
    if keys is None:
        with pytest.raises(NotSayable):
            parse_file_name(name)
    else:
        assert dict(parse_file_name(name)) == keys


def test_firmware_images_can_be_read_without_a_disk() -> None:
    draft = _draft(
        "-drive", "if=pflash,format=raw,readonly=on,file=code.fd",
        "-drive", "if=pflash,format=qcow2,file=/vars.qcow2",
    )
    code, store = (read_image(draft, drive.id) for drive in drives_of(draft, "pflash"))
    assert (code.path, code.format, code.readonly) == ("/base/code.fd", "raw", True)
    assert (store.path, store.format, store.readonly) == ("/vars.qcow2", "qcow2", False)
    assert draft.group("drive")[0].untouched
    code.claim(draft)
    assert not draft.group("drive")[0].untouched


def test_formats_are_read_from_the_image_where_it_is_there(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(120))
    draft = _draft("-drive", f"if=pflash,file={image}")
    assert read_image(draft, "pflash0").format == "qcow2"


def test_scsi_addresses_come_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "devices/2:0:3:1").mkdir(parents=True)
    (tmp_path / "sg5").mkdir()
    (tmp_path / "sg5/device").symlink_to(tmp_path / "devices/2:0:3:1")
    assert host_address("/dev/sg5", tmp_path) == ("2", "0", "3", "1")
    with pytest.raises(NotSayable):
        host_address("/dev/sg6", tmp_path)
