"""The RAM in a memory image is moved into a file; what is left is a stream without a page of it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.unit.ram_samples import RAM_PAGES, SWITCHOVER, beginning, content, page, part
from virtsnap.errors import HypervisorError
from virtsnap.host import ram_stream
from virtsnap.host.qemu_stream import PAGE
from virtsnap.host.ram_stream import split_image

PAGES = RAM_PAGES
DEVICES = b"\x04devices, and whatever else comes after the RAM" * 100


def image(path: Path, *sections: bytes) -> None:
    head = struct.pack("<16s5I", b"LibvirtQemudSave", 2, 10, 1, 0, 0).ljust(92, b"\0")
    path.write_bytes(head + b"<domain/>\0" + beginning() + b"".join(sections) + DEVICES)
    path.chmod(0o600)


VGA = page(1, block="vga.vram", data=content(99)), page(2, block=None, data=None)
RAM = (
    page(0, block="virtsnap-ram", data=content(1)),
    page(1, block=None, data=content(2)),
    page(2, block=None, data=None),
    page(9, block=None, data=content(3)),
)
# Pages that the guest wrote to while they were sent come again.
AGAIN = page(1, block="virtsnap-ram", data=content(4)), page(9, block=None, data=None)


@pytest.mark.parametrize("most", [1, 512])
def test_pages_land_where_they_belong_and_all_else_stays(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ram_stream, "_MOST_AT_ONCE", most)
    memory, ram = tmp_path / "s.mem", tmp_path / "s.ram"
    image(memory, part(2, *RAM, *VGA), SWITCHOVER, part(3, *AGAIN))
    held = split_image(str(memory), block="virtsnap-ram", size_bytes=PAGES * PAGE, to=str(ram), owner=None)
    expected = {0: content(1), 1: content(4)}
    assert ram.read_bytes() == b"".join(expected.get(number, bytes(PAGE)) for number in range(PAGES))
    assert held <= 4 * PAGE  # the rest is holes
    left = tmp_path / "left.mem"
    image(left, part(2, *VGA), SWITCHOVER, part(3))
    assert memory.read_bytes() == left.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (memory, ram)} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {"s.mem", "s.ram", "left.mem"}


def test_pages_that_the_image_lacks_come_from_the_file_that_it_stands_on(tmp_path: Path) -> None:
    memory, ram, base = tmp_path / "s.mem", tmp_path / "s.ram", tmp_path / "base.ram"
    base.write_bytes(content(7) * PAGES)
    image(memory, part(2, *RAM, *VGA), part(3, *AGAIN))
    split_image(str(memory), block="virtsnap-ram", size_bytes=PAGES * PAGE, to=str(ram), owner=None,
                base=str(base))
    expected = {0: content(1), 1: content(4), 2: bytes(PAGE), 9: bytes(PAGE)}
    assert ram.read_bytes() == b"".join(expected.get(number, content(7)) for number in range(PAGES))
    assert base.read_bytes() == content(7) * PAGES
    base.write_bytes(content(7))
    image(memory, part(3, *RAM))
    ram.unlink()
    with pytest.raises(HypervisorError, match="has another size"):
        split_image(str(memory), block="virtsnap-ram", size_bytes=PAGES * PAGE, to=str(ram), owner=None,
                    base=str(base))
    assert not ram.exists()


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    memory, ram = tmp_path / "s.mem", tmp_path / "s.ram"
    image(memory, part(3, *RAM))
    for _ in range(2):
        split_image(str(memory), block="virtsnap-ram", size_bytes=PAGES * PAGE, to=str(ram), owner=None)
        assert ram.read_bytes()[: 2 * PAGE] == content(1) + content(2)
    ram.unlink()
    with pytest.raises(HypervisorError, match="no page"):
        split_image(str(memory), block="virtsnap-ram", size_bytes=PAGES * PAGE, to=str(ram), owner=None)


@pytest.mark.parametrize(("pages", "size", "said"), [
    ((struct.pack(">Q", 0x40),), PAGES * PAGE, "flags 0x40"),
    (RAM, 2 * PAGE, "no RAM virtsnap-ram of 8192 bytes"),
    ((page(0, block="virtsnap-ram", data=b"short"),), PAGES * PAGE, "cannot be taken out"),
])
def test_what_is_not_understood_is_refused_and_stays(
    tmp_path: Path, pages: tuple[bytes, ...], size: int, said: str
) -> None:
    memory, ram = tmp_path / "s.mem", tmp_path / "s.ram"
    image(memory, part(3, *pages))
    before = memory.read_bytes()
    with pytest.raises(HypervisorError, match=said) as caught:
        split_image(str(memory), block="virtsnap-ram", size_bytes=size, to=str(ram), owner=None)
    assert "--engine libvirt" in (caught.value.hint or "")
    assert memory.read_bytes() == before
    assert list(tmp_path.iterdir()) == [memory]
