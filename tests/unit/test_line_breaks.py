"""A file name with a line break in it: libvirt's schema has no room for one, so QEMU gets the disk as it is."""

from __future__ import annotations

import pytest

from tests.schema import SCHEMA_VERSION, schema_problem
from virtsnap.convert import convert_command_line


@pytest.mark.parametrize("words", [
    ["-hda", "\n"], ["-cdrom", "\r"], ["-fda", "a\nb"], ["-drive", "file=a\nb,if=virtio"],
    ["-drive", "file=x\ry,if=none,id=a", "-device", "virtio-blk,drive=a"],
])
def test_disk_whose_file_has_a_line_break_is_passed_through(words: list[str]) -> None:
    conversion = convert_command_line(["qemu-system-x86_64", *words], for_libvirt=SCHEMA_VERSION)
    assert schema_problem(conversion.xml) is None
    assert {entry["outcome"] for entry in conversion.report["arguments"][1:]} == {"passthrough"}
