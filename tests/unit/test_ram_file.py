"""RAM in a file: put into a definition, found, moved; what excludes it; a stream without it for any QEMU."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.unit.snapshot_samples import domain_xml
from virtsnap.domain_xml.live import QEMU_NS, parse_xml
from virtsnap.domain_xml.ram_file import RamFile, gives_memory_back, move_ram, read_ram_file, with_ram_in_file
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.memory_image import change_image, memory_image_problem

SIZED = domain_xml().replace("<uuid>", "<memory unit='MiB'>256</memory><uuid>")


def words(xml: str) -> list[str]:
    return [arg.get("value", "") for arg in parse_xml(xml).iter(f"{{{QEMU_NS}}}arg")]


def test_the_ram_is_put_into_a_file_and_found_there() -> None:
    xml = with_ram_in_file(SIZED, folder="/dev/shm")
    option, ram, machine, backend = words(xml)
    assert (option, machine, backend) == ("-object", "-machine", "memory-backend=virtsnap-ram")
    assert json.loads(ram) == {"qom-type": "memory-backend-file", "id": "virtsnap-ram", "size": 256 << 20,
                               "mem-path": "/dev/shm", "share": True}
    assert read_ram_file(parse_xml(xml)) == RamFile(path="/dev/shm", is_shared=True, size_bytes=256 << 20)
    assert read_ram_file(parse_xml(SIZED)) is None


def test_other_words_of_the_command_line_stay() -> None:
    line = "<qemu:commandline><qemu:arg value='-nodefaults'/></qemu:commandline>"
    xml = with_ram_in_file(SIZED.replace("</domain>", f"{line}</domain>"))
    assert words(xml)[0] == "-nodefaults"
    assert len(words(xml)) == 5


def test_the_ram_moves_to_a_copy_and_back() -> None:
    domain = parse_xml(with_ram_in_file(SIZED))
    assert move_ram(domain, "/images/a, b.ram", is_shared=False, is_read_only=True)
    found = read_ram_file(domain)
    assert found == RamFile(path="/images/a, b.ram", is_shared=False, size_bytes=256 << 20)
    assert '"readonly": true, "rom": "off"' in "".join(arg.get("value", "") for arg in domain.iter("{*}arg"))
    assert move_ram(domain, "/dev/shm", is_shared=True)
    assert parse_xml(with_ram_in_file(SIZED)).xpath("string(//*[local-name()='arg'][2]/@value)") == domain.xpath(
        "string(//*[local-name()='arg'][2]/@value)"
    )
    assert not move_ram(parse_xml(SIZED), "/x", is_shared=True)


@pytest.mark.parametrize(("extra", "reason"), [
    ("<memoryBacking><hugepages/></memoryBacking>", "memoryBacking"),
    ("<cpu><numa><cell id='0' memory='1'/></numa></cpu>", "NUMA"),
    ("<launchSecurity type='sev'/>", "encrypted"),
    ("<qemu:commandline><qemu:arg value='-mem-path'/><qemu:arg value='/x'/></qemu:commandline>", "commandline"),
])
def test_what_excludes_it_is_named(extra: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        with_ram_in_file(SIZED.replace("</domain>", f"{extra}</domain>"))


def test_a_shared_memory_device_excludes_it() -> None:
    virtiofs = "<filesystem type='mount'><driver type='virtiofs'/></filesystem>"
    with pytest.raises(UnsupportedError, match="virtiofs"):
        with_ram_in_file(SIZED.replace("</devices>", f"{virtiofs}</devices>"))


def test_a_balloon_below_the_full_size_gives_memory_back() -> None:
    assert not gives_memory_back(parse_xml(SIZED))
    assert not gives_memory_back(parse_xml(SIZED.replace(
        "<uuid>", "<currentMemory unit='KiB'>262144</currentMemory><uuid>")))
    assert gives_memory_back(parse_xml(SIZED.replace(
        "<uuid>", "<currentMemory unit='KiB'>131072</currentMemory><uuid>")))


# A memory image: header, definition, cookie, and the beginning of a stream with two blocks of RAM


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def stream(*, marked: bool) -> bytes:
    marks = b"\x05" + text("configuration/capabilities") + struct.pack(">II", 1, 1) + text("x-ignore-shared")
    name = b"pc-i440fx-7.2"
    bits = b"\x05" + text("configuration/target-page-bits") + struct.pack(">II", 1, 12)
    begin = b"QEVM" + struct.pack(">IBI", 3, 7, len(name)) + name + bits + (marks if marked else b"")
    blocks = b"".join(
        text(block) + struct.pack(">Q", size) + (struct.pack(">Q", 77) if marked else b"")
        for block, size in (("virtsnap-ram", 0x10000), ("vga.vram", 0x4000))
    )
    setup = b"\x01" + struct.pack(">I", 3) + text("ram") + struct.pack(">IIQ", 0, 4, 0x14000 | 4) + blocks
    return begin + setup + struct.pack(">Q", 0x10) + b"and so on" * 1000


def image(path: Path, *, marked: bool, compressed: int = 0, room: int = 0) -> None:
    data = b"<domain/>\0<cookie/>\0".ljust(20 + room, b"\0")
    head = struct.pack("<16s5I", b"LibvirtQemudSave", 2, len(data), 0, compressed, 10)
    path.write_bytes(head.ljust(92, b"\0") + data + stream(marked=marked))


def read_back(path: Path) -> tuple[int, str, str, bytes]:
    content = path.read_bytes()
    _, _, length, runs, _, cookie = struct.unpack_from("<16s5I", content)
    data = content[92 : 92 + length]
    first, second = (part.partition(b"\0")[0].decode() for part in (data, data[cookie:]))
    return runs, first, second, content[92 + length :]


@pytest.mark.parametrize("room", [0, 1000])
def test_a_stream_without_ram_becomes_one_for_any_qemu(tmp_path: Path, room: int) -> None:
    path = tmp_path / "s.mem"
    image(path, marked=True, room=room)
    for _ in range(2):
        change_image(str(path), lambda _: "<domain>with more in it</domain>", runs=True)
        assert read_back(path) == (1, "<domain>with more in it</domain>", "<cookie/>", stream(marked=False))
        assert memory_image_problem(LocalFiles(), str(path)) is None
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_ordinary_image_keeps_its_stream_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.mem"
    image(path, marked=False, room=1000)
    before = path.stat()
    change_image(str(path), lambda xml: xml.replace("domain", "domains"), runs=False)
    assert read_back(path) == (0, "<domains/>", "<cookie/>", stream(marked=False))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)


def test_a_compressed_image_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.mem"
    image(path, marked=True, compressed=1)
    before = path.read_bytes()
    with pytest.raises(HypervisorError, match="compressed") as caught:
        change_image(str(path), lambda xml: xml, runs=True)
    assert "snapshot_image_format" in (caught.value.hint or "")
    assert path.read_bytes() == before


def test_a_stream_that_is_not_understood_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.mem"
    image(path, marked=True)
    before = path.read_bytes().replace(b"x-ignore-shared", b"x-something-new")
    path.write_bytes(before)
    with pytest.raises(HypervisorError, match="x-something-new"):
        change_image(str(path), lambda xml: xml, runs=True)
    assert path.read_bytes() == before
