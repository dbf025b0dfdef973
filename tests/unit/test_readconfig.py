"""-readconfig: what a file says is converted as if it stood on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtsnap.convert import Conversion, convert_command_line
from virtsnap.errors import CommandLineError
from virtsnap.host.text_files import read_text

FILE = '''
# a port, a disk behind it and a machine's memory
[memory]
  size = "256"
[device "port1"]
  driver = "pcie-root-port"
  bus = "pcie.0"
  addr = "3.0"

[drive "d0"]
  file = "/images/a,b.qcow2"
  if = "none"
  format = "qcow2"
[device]
  driver = "virtio-blk-pci"
  bus = "port1"
  drive = "d0"
'''
ARGV = ("qemu-system-x86_64", "-M", "q35", "-nodefaults", "-readconfig", "my.cfg", "-device", "virtio-rng-pci")


def convert(text: str | None, argv: tuple[str, ...] = ARGV) -> Conversion:
    return convert_command_line(argv, base=Path("/folder"), read_file={Path("/folder/my.cfg"): text}.get)


def entry_of(found: Conversion, option: str) -> dict[str, object]:
    return next(entry for entry in found.report["arguments"] if entry["text"].startswith(option))


def test_options_of_the_file_stand_in_the_domain_and_the_report_has_one_entry_for_it() -> None:
    found = convert(FILE)
    assert '<memory unit="KiB">262144</memory>' in found.xml
    assert '<source file="/images/a,b.qcow2"/>' in found.xml
    assert "readconfig" not in found.xml
    assert [entry["argv"] for entry in found.report["arguments"]] == [[0, 0], [1, 2], [3, 3], [4, 5], [6, 7]]
    entry = entry_of(found, "-readconfig")
    assert entry["outcome"] == "mapped"
    assert len(entry["xpath"]) >= 3  # type: ignore[arg-type]


def test_device_of_qemu_alone_makes_the_file_passed_through_and_is_named() -> None:
    entry = entry_of(convert('[device "e"]\n driver = "edu"\n'), "-readconfig")
    assert entry["outcome"] == "passthrough"
    assert "-device id=e,driver=edu: passthrough" in str(entry["note"])


def test_program_that_an_option_in_the_file_runs_is_marked() -> None:
    text = '[netdev "t"]\n type = "tap"\n script = "/etc/up"\n downscript = "no"\n'
    entry = entry_of(convert(text), "-readconfig")
    assert entry["host"] == "reads my.cfg; runs /etc/up when the domain starts"


@pytest.mark.parametrize("text", [None, '[nobody "knows"]\n this = "group"\n'], ids=["absent", "unknown group"])
def test_file_that_cannot_be_read_here_is_left_to_qemu(text: str | None) -> None:
    found = convert(text, (*ARGV, "-device", "virtio-serial-pci,bus=elsewhere"))
    assert '<qemu:arg value="-readconfig"/>' in found.xml
    assert entry_of(found, "-readconfig")["outcome"] == "passthrough"


def test_line_that_qemu_refuses_is_an_error_that_names_line_and_argument() -> None:
    with pytest.raises(CommandLineError, match="line 2") as caught:
        convert('[device "a"]\ndriver: edu\n')
    assert caught.value.argument == 5


def test_id_that_no_option_and_no_file_defines_is_an_error_once_the_file_is_read() -> None:
    with pytest.raises(CommandLineError, match="d1"):
        convert(FILE, (*ARGV, "-device", "virtio-blk-pci,drive=d1"))


def test_text_is_read_from_regular_small_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text("x")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert read_text(tmp_path / "a.cfg") == "x"
    assert [read_text(path) for path in (tmp_path, tmp_path / "none", tmp_path / "binary", Path("/dev/zero"))] == [
        None, None, None, None,
    ]
