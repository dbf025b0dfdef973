"""The beginning of QEMU's stream, with and without what QEMU puts between."""

from __future__ import annotations

import struct

import pytest

from tests.unit.ram_samples import COMMAND, SECTION, SIZES, beginning, end_of_part, part, text
from virtsnap.host.qemu_stream import Bytes, read_setup

PAGE_BITS = b"\x05" + text("configuration/target-page-bits") + struct.pack(">II", 1, 12)
IGNORES_SHARED = b"\x05" + text("configuration/capabilities") + struct.pack(">II", 1, 1) + text("x-ignore-shared")


@pytest.mark.parametrize("before", [b"", b"an image's head"])
@pytest.mark.parametrize(("between", "kept"), [
    ((), ()), ((COMMAND, COMMAND), ()), ((PAGE_BITS, COMMAND), (PAGE_BITS,)),
])
def test_blocks_are_read_and_words_to_a_peer_are_left_out(
    before: bytes, between: tuple[bytes, ...], kept: tuple[bytes, ...]
) -> None:
    stream = before + beginning(*between) + part(3)
    source = Bytes(stream, len(before))
    setup = read_setup(source)
    assert (setup.section, setup.names, setup.is_marked, setup.has_footers) == (3, SIZES, False, True)
    assert setup.without_marks == beginning(*kept)
    assert stream[source.at :] == part(3)
    assert (setup.end_of_part(), setup.last_part()) == (end_of_part(), part(3))


def test_a_machine_too_old_for_footers() -> None:
    footer = b"\x7e" + SECTION
    source = Bytes(beginning().removesuffix(footer) + b"\x03" + SECTION)
    setup = read_setup(source)
    assert not setup.has_footers
    assert setup.last_part() == part(3).removesuffix(footer)
    assert source.peek() == 3


@pytest.mark.parametrize("length", range(1, len(beginning())))
def test_one_that_is_cut_short_is_no_stream(length: int) -> None:
    if length == len(beginning()) - 5:  # the footer alone is missing: what comes next tells
        return
    with pytest.raises((ValueError, IndexError, struct.error)):
        read_setup(Bytes(beginning()[:length]))


@pytest.mark.parametrize(("stream", "said"), [
    (beginning(b"\x05" + text("configuration/postcopy") + struct.pack(">I", 1)), "configuration/postcopy"),
    (beginning(IGNORES_SHARED.replace(b"x-ignore-shared", b"x-ignore-others")), "x-ignore-others"),
    (beginning().replace(b"\x03ram", b"\x03rom"), "does not begin with the RAM"),
    (b"QEVM\0\0\0\3\1", "no configuration"),
])
def test_what_is_not_understood_is_named(stream: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_setup(Bytes(stream))
