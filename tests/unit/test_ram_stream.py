"""The RAM in a memory image is moved into a file; what is left is a stream without a page of it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from virtsnap.errors import HypervisorError
from virtsnap.host import ram_stream
from virtsnap.host.ram_stream import PAGE, split_image

PAGES = 16
ZERO, WHOLE, END, SAME = 0x02, 0x08, 0x10, 0x20
DEVICES = b"\x04devices, and whatever else comes after the RAM" * 100


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def content(number: int) -> bytes:
    return bytes([number]) * PAGE


def page(number: int, *, block: str | None, data: bytes | None) -> bytes:
    """Write a page as QEMU does: `block` None is the block of the page before, `data` None a page of zeros."""
    flags = (ZERO if data is None else WHOLE) | (SAME if block is None else 0)
    return struct.pack(">Q", number * PAGE | flags) + (text(block) if block else b"") + (data or b"\0")


def section(kind: int, *pages: bytes) -> bytes:
    number = struct.pack(">I", 3)
    return bytes([kind]) + number + b"".join(pages) + struct.pack(">Q", END) + b"\x7e" + number


def beginning() -> bytes:
    sizes = {"virtsnap-ram": PAGES * PAGE, "vga.vram": 4 * PAGE}
    blocks = b"".join(text(block) + struct.pack(">Q", size) for block, size in sizes.items())
    setup = b"\x01" + struct.pack(">I", 3) + text("ram") + struct.pack(">IIQ", 0, 4, sum(sizes.values()) | 4)
    end = struct.pack(">Q", END) + b"\x7e\0\0\0\x03"
    return b"QEVM" + struct.pack(">IBI", 3, 7, 2) + b"pc" + setup + blocks + end


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
# QEMU 10 says so between the sections that it now switches over.
COMMAND = b"\x08" + struct.pack(">HH", 10, 3) + b"\x03\x02\x01"
AGAIN = page(1, block="virtsnap-ram", data=content(4)), page(9, block=None, data=None)


@pytest.mark.parametrize("most", [1, 512])
def test_pages_land_where_they_belong_and_all_else_stays(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ram_stream, "_MOST_AT_ONCE", most)
    memory, ram = tmp_path / "s.mem", tmp_path / "s.ram"
    image(memory, section(2, *RAM, *VGA), COMMAND, section(3, *AGAIN))
    held = split_image(str(memory), block="virtsnap-ram", size_bytes=PAGES * PAGE, to=str(ram), owner=None)
    expected = {0: content(1), 1: content(4)}
    assert ram.read_bytes() == b"".join(expected.get(number, bytes(PAGE)) for number in range(PAGES))
    assert held <= 4 * PAGE  # the rest is holes
    left = tmp_path / "left.mem"
    image(left, section(2, *VGA), COMMAND, section(3))
    assert memory.read_bytes() == left.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (memory, ram)} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {"s.mem", "s.ram", "left.mem"}


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    memory, ram = tmp_path / "s.mem", tmp_path / "s.ram"
    image(memory, section(3, *RAM))
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
    image(memory, section(3, *pages))
    before = memory.read_bytes()
    with pytest.raises(HypervisorError, match=said) as caught:
        split_image(str(memory), block="virtsnap-ram", size_bytes=size, to=str(ram), owner=None)
    assert "--engine libvirt" in (caught.value.hint or "")
    assert memory.read_bytes() == before
    assert list(tmp_path.iterdir()) == [memory]
