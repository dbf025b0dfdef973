"""An id that nothing defines is one error that names the argument; QEMU's own ids count as defined."""

from __future__ import annotations

import pytest

from virtsnap.command_line.options import parse_options
from virtsnap.convert.references import check_references
from virtsnap.errors import CommandLineError


@pytest.mark.parametrize(
    ("words", "complaint", "argument"),
    [
        (["-device", "virtio-blk-pci,drive=d0"], "no -drive or -blockdev has the id d0", 2),
        (["-S", "-device", '{"driver":"e1000","netdev":"n"}'], "no -netdev has the id n", 3),
        (["-serial", "chardev:c"], "no -chardev has the id c", 2),
        (["-mon", "c,mode=control"], "no -chardev has the id c", 2),
        (["-device", "virtio-rng-pci,rng=r"], "no -object has the id r", 2),
        (["-blockdev", "raw,node-name=a,file=b"], "no -drive or -blockdev has the id b", 2),
        (["-numa", "node,memdev=m"], "no -object has the id m", 2),
    ],
)
def test_undefined_id_names_the_argument(words: list[str], complaint: str, argument: int) -> None:
    with pytest.raises(CommandLineError, match=complaint) as caught:
        check_references(parse_options(["qemu", *words]))
    assert caught.value.argument == argument
    assert caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        ["-drive", "if=none,file=a", "-device", "virtio-blk-pci,drive=none0"],
        ["-hda", "a", "-device", "ide-hd,drive=ide0-hd0"],
        ["-readconfig", "f.cfg", "-device", "virtio-blk-pci,drive=d0"],
        ["-blockdev", '{"driver":"raw","node-name":"a","file":{"driver":"file","filename":"f","node-name":"b"}}',
         "-device", "virtio-blk-pci,drive=b"],
        ["-chardev", "null,id=c", "-serial", "chardev:c", "-mon", "chardev=c"],
    ],
)
def test_defined_ids_are_no_error(words: list[str]) -> None:
    check_references(parse_options(["qemu", *words]))
