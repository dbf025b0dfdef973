"""A peer that plays QEMU is asked for pages; what it sends becomes an image that has them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from tests.unit.ram_samples import (
    COMMAND,
    RAM_PAGES,
    SIZES,
    beginning,
    content,
    end_of_part,
    page,
    part,
)
from virtsnap.errors import HypervisorError, OperationTimeoutError
from virtsnap.host import Domain, asked_ram
from virtsnap.host.asked_ram import PagesRefusedError, save_changes
from virtsnap.host.memory_image import read_definition
from virtsnap.host.qemu_stream import PAGE
from virtsnap.host.ram_stream import split_image

XML, COOKIE = "<domain><name>ä</name></domain>", "<cookie><cpu/></cookie>"
DEVICES = b"\x04the sections of the devices\0"
OWN = [(1 * PAGE, 3 * PAGE), (9 * PAGE, 10 * PAGE)]
SCREEN = [page(0, block="vga.vram", data=content(50)), *(page(n, block=None, data=None) for n in (1, 2, 3))]


class Peer:
    """Sends what it was told to, and keeps what it was asked for."""

    def __init__(self, *sent: bytes, ends: bool = True, reads: bool = True) -> None:
        self._sent, self._ends, self._reads = b"".join(sent), ends, reads
        self.asked: list[tuple[str, int, int]] = []

    @contextlib.contextmanager
    def sending_state(self) -> Iterator[socket.socket]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            words = bytearray()
            threads = [threading.Thread(target=self._send, args=(theirs,))]
            if self._reads:
                threads.append(threading.Thread(target=self._hear, args=(theirs, words)))
            for thread in threads:
                thread.start()
            try:
                yield ours
            finally:
                ours.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join()
            while words:
                kind, length, start, size, name = struct.unpack_from(">HHQIB", words)
                assert (kind, length) == (3, 13 + name)
                self.asked.append((words[17 : 17 + name].decode(), start, size))
                del words[: 17 + name]

    def _hear(self, by: socket.socket, words: bytearray) -> None:
        with contextlib.suppress(OSError):
            while said := by.recv(100):
                words += said

    def _send(self, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            to.sendall(self._sent)
            if self._ends:
                to.shutdown(socket.SHUT_WR)


@pytest.fixture
def domain(mocker: MockerFixture) -> Domain:
    mocker.patch.object(asked_ram, "private_pages", return_value=OWN)
    found = mocker.MagicMock(spec=Domain)
    found.name = "sut"
    found.uuid = "0"
    found.monitor = mocker.MagicMock(**{"device_state.return_value": b"QEVM\0\0\0\3" + DEVICES})
    assert isinstance(found, Domain)
    return found


def save(domain: Domain, peer: Peer, to: Path, timeout_s: float | None = 20.0) -> int:
    domain.monitor.sending_state = peer.sending_state  # type: ignore[method-assign]
    return save_changes(domain, xml=XML, cookie=COOKIE, block="virtsnap-ram", size_bytes=SIZES["virtsnap-ram"],
                        ram_path="/r.ram", to=str(to), timeout_s=timeout_s)


def stream_in(image: Path) -> bytes:
    return image.read_bytes()[92 + struct.unpack_from("<I", image.read_bytes(), 20)[0] :]


# A page too many comes before those that were asked for, some after the last of them, and the block's name is not
# said again where a new part begins.
BEFORE = part(2, page(0, block="virtsnap-ram", data=content(10)), page(1, block=None, data=content(11)))
ASKED = [page(2, block=None, data=None), *SCREEN, page(9, block="virtsnap-ram", data=content(19))]
TOO_MANY = [page(n, block=None, data=content(60)) for n in range(10, RAM_PAGES)]


@pytest.mark.parametrize("held", [1, 4 << 20])
def test_what_was_asked_for_is_in_the_image_and_nothing_after_it(
    domain: Domain, tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_ram, "_HELD", held)
    peer = Peer(beginning(COMMAND, COMMAND), BEFORE, COMMAND, part(2, *ASKED, *TOO_MANY))
    asked_bytes = save(domain, peer, tmp_path / "s.mem")
    assert sorted(peer.asked) == [
        ("vga.vram", 0, SIZES["vga.vram"]), ("virtsnap-ram", 1 * PAGE, 2 * PAGE), ("virtsnap-ram", 9 * PAGE, PAGE),
    ]
    assert asked_bytes == 3 * PAGE + SIZES["vga.vram"]
    image = tmp_path / "s.mem"
    expected = beginning() + BEFORE + part(2, *ASKED) + part(3) + DEVICES
    assert stream_in(image) == expected
    assert read_definition(str(image)) == XML
    assert COOKIE.encode() + b"\0" in image.read_bytes()
    assert image.read_bytes()[:16] == b"LibvirtQemudSave"
    assert image.stat().st_mode & 0o777 == 0o600
    base, ram = tmp_path / "base.ram", tmp_path / "s.ram"
    base.write_bytes(content(7) * RAM_PAGES)
    split_image(str(image), block="virtsnap-ram", size_bytes=RAM_PAGES * PAGE, to=str(ram), owner=None,
                base=str(base))
    changed = {0: content(10), 1: content(11), 2: bytes(PAGE), 9: content(19)}
    assert ram.read_bytes() == b"".join(changed.get(n, content(7)) for n in range(RAM_PAGES))


def test_the_last_page_may_be_the_last_of_all(domain: Domain, tmp_path: Path) -> None:
    save(domain, Peer(beginning(), BEFORE, part(3, *ASKED), DEVICES), tmp_path / "s.mem")
    assert stream_in(tmp_path / "s.mem") == beginning() + BEFORE + part(3, *ASKED) + part(3) + DEVICES


@pytest.mark.parametrize(("sent", "said"), [
    ((beginning(), BEFORE), "ended before all was there"),
    ((beginning()[:40],), "ended before all was there"),
    ((beginning(), b"\x04", DEVICES), "section of kind 4"),
    ((beginning(), part(2, struct.pack(">Q", 0x40))), "flags 0x40"),
    ((beginning(), part(2, page(0, block="pc.ram", data=None)), end_of_part()), "a page of b'pc.ram'"),
    ((beginning(), part(2, page(RAM_PAGES, block="virtsnap-ram", data=None)), bytes(PAGE)), "out of range"),
    ((beginning().replace(b"virtsnap-ram", b"some-one-els"),), "no RAM virtsnap-ram of 65536 bytes"),
])
def test_what_is_not_understood_leaves_no_image(
    domain: Domain, tmp_path: Path, sent: tuple[bytes, ...], said: str
) -> None:
    with pytest.raises(PagesRefusedError, match=said) as caught:
        save(domain, Peer(*sent), tmp_path / "s.mem")
    assert "--engine libvirt" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_qemus_refusal_is_told_in_its_words(domain: Domain, tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(domain.monitor, "device_state", side_effect=HypervisorError("sut: QEMU refuses it: no"))
    with pytest.raises(PagesRefusedError, match="QEMU refuses it: no"):
        save(domain, Peer(beginning(), BEFORE, part(2, *ASKED, *TOO_MANY)), tmp_path / "s.mem")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reads", [True, False])
def test_a_silent_qemu_is_waited_for_no_longer_than_the_time_there_is(
    domain: Domain, tmp_path: Path, reads: bool
) -> None:
    with pytest.raises(OperationTimeoutError, match="the time ran out"):
        save(domain, Peer(beginning(), BEFORE, ends=False, reads=reads), tmp_path / "s.mem", timeout_s=0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("timeout_s", [20.0, None])
def test_a_qemu_that_falls_silent_gives_no_pages(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None, reads: bool
) -> None:
    monkeypatch.setattr(asked_ram, "_ANSWER_TIMEOUT_S", 0.05)
    with pytest.raises(PagesRefusedError, match=r"nothing for 0\.05 s"):
        save(domain, Peer(beginning(), BEFORE, ends=False, reads=reads), tmp_path / "s.mem", timeout_s=timeout_s)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_refusal_for_which_more_would_be_written(
    domain: Domain, tmp_path: Path, mocker: MockerFixture
) -> None:
    full = mocker.patch.object(asked_ram, "new_image")
    with Path("/dev/full").open("wb", buffering=0) as file:
        full.return_value.__enter__.return_value = file
        full.return_value.__exit__.return_value = False
        with pytest.raises(HypervisorError, match=r"sut: cannot write .*s\.mem: No space left") as caught:
            save(domain, Peer(beginning(), BEFORE, part(2, *ASKED, *TOO_MANY)), tmp_path / "s.mem")
    assert not isinstance(caught.value, PagesRefusedError)
    assert "make room" in (caught.value.hint or "")
