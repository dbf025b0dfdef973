"""A file name with a line break in it: libvirt's schema has no room for one, so QEMU gets the device."""

from __future__ import annotations

import pytest

from tests.schema import SCHEMA_VERSION, schema_problem
from virtsnap.convert import convert_command_line

PASSED_ON = [
    ["-hda", "\n"], ["-cdrom", "\r"], ["-fda", "a\nb"], ["-drive", "file=a\nb,if=virtio"],
    ["-drive", "file=x\ry,if=none,id=a", "-device", "virtio-blk,drive=a"],
    ["-virtfs", "local,path=a\n,mount_tag=x,security_model=none"],
    ["-object", "rng-random,filename=a\n,id=r", "-device", "virtio-rng-pci,rng=r"],
]


@pytest.mark.parametrize("words", PASSED_ON)
def test_device_whose_file_has_a_line_break_is_passed_through(words: list[str]) -> None:
    conversion = convert_command_line(["qemu-system-x86_64", *words], for_libvirt=SCHEMA_VERSION)
    assert schema_problem(conversion.xml) is None
    assert {entry["outcome"] for entry in conversion.report["arguments"][1:]} == {"passthrough"}
