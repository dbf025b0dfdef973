"""The kernel's word on which pages of a privately mapped file are a process's own; the process is this one."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtsnap.errors import HypervisorError
from virtsnap.host import qemu_process
from virtsnap.host.private_pages import private_pages

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 64
SIZE = PAGES * PAGE


@pytest.fixture(autouse=True)
def qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_process, "find_qemu", lambda _: os.getpid())


@pytest.fixture(params=["disk", "memory"])
def mapped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, mmap.mmap]]:
    """A file with data in its first half and a hole in its second, mapped privately."""
    folder = tmp_path if request.param == "disk" else Path("/dev/shm")
    path = folder / f"virtsnap-test-{os.getpid()}-{tmp_path.name}.ram"
    with path.open("wb+") as file:
        file.write(b"x" * (SIZE // 2))
        file.truncate(SIZE)
        pages = mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE)
    yield path, pages
    pages.close()
    path.unlink()


def test_reading_makes_no_page_its_own_and_writing_does(mapped: tuple[Path, mmap.mmap]) -> None:
    path, pages = mapped
    assert private_pages("", path=str(path), size_bytes=SIZE) == []
    assert pages[:SIZE].count(b"x") == SIZE // 2
    assert private_pages("", path=str(path), size_bytes=SIZE) == []
    for number in (0, 5, 6, PAGES - 1):
        pages[number * PAGE + 9] = 1
    expected = [(0, PAGE), (5 * PAGE, 7 * PAGE), (SIZE - PAGE, SIZE)]
    assert private_pages("", path=str(path), size_bytes=SIZE) == expected
    # What is given back is the file's again, and so is not the guest's.
    pages.madvise(mmap.MADV_DONTNEED, 5 * PAGE, PAGE)
    assert private_pages("", path=str(path), size_bytes=SIZE)[1] == (6 * PAGE, 7 * PAGE)


def test_a_mapping_in_several_pieces_is_one_file(mapped: tuple[Path, mmap.mmap]) -> None:
    path, pages = mapped
    pages.madvise(mmap.MADV_SEQUENTIAL, 16 * PAGE, 16 * PAGE)  # the kernel splits it in three
    pages[15 * PAGE : 17 * PAGE] = b"y" * (2 * PAGE)
    found = private_pages("", path=str(path), size_bytes=SIZE)
    assert found == [(15 * PAGE, 16 * PAGE), (16 * PAGE, 17 * PAGE)]


def test_what_is_not_mapped_whole_is_refused(mapped: tuple[Path, mmap.mmap]) -> None:
    path, _ = mapped
    for wrong, size in ((path, 2 * SIZE), (path, SIZE // 2), (path.with_name("other.ram"), SIZE)):
        with pytest.raises(HypervisorError, match="has not mapped"):
            private_pages("", path=str(wrong), size_bytes=size)


def test_no_qemu_and_no_right_to_look(mapped: tuple[Path, mmap.mmap], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = mapped
    monkeypatch.setattr(qemu_process, "find_qemu", lambda _: None)
    with pytest.raises(HypervisorError, match="not in sight"):
        private_pages("", path=str(path), size_bytes=SIZE)
    monkeypatch.setattr(qemu_process, "find_qemu", lambda _: 0)
    with pytest.raises(HypervisorError, match="may not be looked into"):
        private_pages("", path=str(path), size_bytes=SIZE)
