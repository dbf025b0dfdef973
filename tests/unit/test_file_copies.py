"""A file with holes is copied, and an older copy of it is brought up to date."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest

from virtsnap.errors import HypervisorError, OperationTimeoutError
from virtsnap.host import file_copies, guest_ram
from virtsnap.host.file_copies import CopyInTwoParts, copy_data, in_both, in_first, populate

PAGE = 4096
SIZE = 96 * PAGE + 4096  # no multiple of a block


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_copies, "_BLOCK", 4 * PAGE)
    monkeypatch.setattr(file_copies, "_CHUNK", 24 * PAGE)
    monkeypatch.setattr(file_copies, "_RUN", 8 * PAGE)


def write(path: Path, pages: dict[int, bytes]) -> None:
    """Make a sparse file whose pages are filled with these bytes, and empty elsewhere."""
    with path.open("wb") as file:
        file.truncate(SIZE)
        for number, byte in pages.items():
            file.seek(number * PAGE)
            file.write(byte * PAGE)


def both(tmp_path: Path) -> tuple[Path, Path, int, int]:
    given, taken = tmp_path / "given", tmp_path / "taken"
    taken.touch()
    fds = os.open(given, os.O_RDONLY), os.open(taken, os.O_RDWR)
    os.ftruncate(fds[1], SIZE)
    return given, taken, *fds


def test_all_data_and_no_hole_is_copied(tmp_path: Path) -> None:
    write(tmp_path / "given", {3: b"a", 4: b"b", 60: b"c", 96: b"d"})
    given, taken, source, target = both(tmp_path)
    copy_data(source, target)
    assert taken.read_bytes() == given.read_bytes()
    assert taken.stat().st_blocks * 512 <= 5 * PAGE


@pytest.mark.parametrize("seed", range(40))
def test_an_older_copy_becomes_the_newer_file_whatever_changed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    pages = range(SIZE // PAGE)
    old = {number: bytes([chance.randrange(256)]) for number in chance.sample(pages, 30)}
    write(tmp_path / "given", old)
    given, taken, source, target = both(tmp_path)
    new = {number: byte for number, byte in old.items() if chance.random() < 0.8}
    new |= {number: bytes([chance.randrange(256)]) for number in chance.sample(pages, chance.randrange(12))}
    with CopyInTwoParts(source, target) as copy:
        write(given, new)
        copy.finish()
    assert taken.read_bytes() == given.read_bytes()


def test_only_blocks_that_differ_are_written(tmp_path: Path) -> None:
    write(tmp_path / "given", dict.fromkeys(range(SIZE // PAGE), b"x"))
    given, _, source, target = both(tmp_path)
    with CopyInTwoParts(source, target) as copy:
        assert copy.finish() == 0
        with given.open("r+b") as file:
            file.seek(50 * PAGE + 77)
            file.write(b"!")
        assert copy.finish() == 4 * PAGE


def test_reading_makes_no_page_in_a_hole() -> None:
    """A tmpfs would give it one, of the guest's RAM."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        write(Path(place) / "given", dict.fromkeys(range(0, 96, 4), b"x"))
        given, taken, source, target = both(Path(place))
        before = given.stat().st_blocks
        with CopyInTwoParts(source, target) as copy:
            copy.finish()
        assert (given.stat().st_blocks, taken.stat().st_blocks) == (before, before)


def test_every_hole_has_its_pages_where_that_is_wanted() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        given = Path(place) / "given"
        write(given, {3: b"a", 40: b"b"})
        before = given.read_bytes(), given.stat().st_mtime_ns
        with given.open("rb") as file:
            populate(file.fileno())
        assert given.stat().st_blocks * 512 == -(-SIZE // PAGE) * PAGE
        assert (given.read_bytes(), given.stat().st_mtime_ns) == before


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_cut_as_sets_would_be(seed: int) -> None:
    chance = random.Random(seed)

    def pieces() -> list[tuple[int, int]]:
        edges = sorted(chance.sample(range(60), 2 * chance.randrange(8)))
        return list(zip(edges[::2], edges[1::2], strict=True))

    def members(found: list[tuple[int, int]]) -> list[int]:
        return [each for first, end in found for each in range(first, end)]

    one, other = pieces(), pieces()
    assert members(in_both(one, other)) == sorted(set(members(one)) & set(members(other)))
    assert members(in_first(one, other)) == sorted(set(members(one)) - set(members(other)))


def test_the_time_can_run_out(tmp_path: Path) -> None:
    write(tmp_path / "given", {1: b"a"})
    given, _, source, target = both(tmp_path)
    with pytest.raises(OperationTimeoutError):
        copy_data(source, target, timeout_s=-1)
    with pytest.raises(OperationTimeoutError), CopyInTwoParts(source, target, timeout_s=-1):
        pass
    with pytest.raises(OperationTimeoutError):
        populate(source, timeout_s=-1)
    with CopyInTwoParts(source, target) as copy:
        write(given, {1: b"b"})
        with pytest.raises(OperationTimeoutError):
            copy.finish(timeout_s=-1)


def test_a_clone_has_its_name_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, to = tmp_path / "given", tmp_path / "to"
    write(given, {1: b"a"})
    shares, seen = True, []

    def share_blocks(source: int, target: int) -> bool:
        seen.append(to.exists())
        os.write(target, os.pread(source, SIZE, 0))
        return shares

    monkeypatch.setattr(guest_ram, "share_blocks", share_blocks)
    guest_ram.clone_file(str(given), str(to))
    assert seen == [False]
    assert to.read_bytes() == given.read_bytes()
    assert to.stat().st_mode & 0o777 == 0o600
    to.unlink()
    shares = False
    with pytest.raises(HypervisorError, match=f"{to}: its file system shares no blocks with {given}"):
        guest_ram.clone_file(str(given), str(to))
    assert list(tmp_path.iterdir()) == [given]
