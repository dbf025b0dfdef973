"""The verb `convert`: where it reads, where it writes, what it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtsnap.cli.convert_verbs import program_finder
from virtsnap.cli.main import main

RNG = ["qemu-system-x86_64", "-nodefaults", "-device", "virtio-rng-pci"]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    return tmp_path


def test_words_after_the_dashes_become_xml_on_stdout(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--name", "sut", "--", *RNG]) == 0
    assert "<name>sut</name>" in capsys.readouterr().out


def test_file_gives_name_xml_and_report(in_folder: Path) -> None:
    Path("box.args").write_text(" ".join(RNG))
    assert main(["-q", "convert", "--report", "r.json", "-o", "box.xml", "box.args"]) == 0
    assert "<name>box</name>" in Path("box.xml").read_text()
    report = json.loads(Path("r.json").read_text())
    assert [entry["argv"] for entry in report["arguments"]] == [[0, 0], [1, 1], [2, 3]]


def test_what_is_no_regular_file_is_written_to_and_not_replaced(in_folder: Path) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        assert main(["-q", "convert", "-o", "pipe", "--", *RNG]) == 0
        assert b"<domain" in os.read(reader, 65536)
    finally:
        os.close(reader)
    assert Path("pipe").is_fifo()


def test_a_link_goes_on_pointing_where_it_did(in_folder: Path) -> None:
    Path("real.xml").write_text("old")
    Path("link.xml").symlink_to("real.xml")
    assert main(["-q", "convert", "-o", "link.xml", "--", *RNG]) == 0
    assert Path("link.xml").is_symlink()
    assert "<domain" in Path("real.xml").read_text()


def test_standard_input_is_a_dash(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(" ".join(RNG)))
    assert main(["convert", "-"]) == 0
    assert "<rng" in capsys.readouterr().out


def test_json_is_one_object_with_xml_and_report(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "-q", "convert", "--", *RNG]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["ok"], found["op"]) == (1, True, "convert")
    assert found["xml"].startswith("<domain")
    assert found["report"]["arguments"][0]["argv"] == [0, 0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("qemu-system-x86_64 -append 'open", "unbalanced single quote"),
        ("qemu-system-x86_64 -m", "-m: its value is missing"),
        ("qemu-system-x86_64 -device virtio-blk-pci,drive=d0", "no -drive or -blockdev has the id d0"),
    ],
)
def test_broken_command_line_is_one_error_and_no_file(
    in_folder: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    Path("bad.args").write_text(text)
    assert main(["convert", "-o", "out.xml", "--report", "r.json", "bad.args"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert complaint in captured.err
    assert sorted(file.name for file in in_folder.iterdir()) == ["bad.args"]


def test_broken_command_line_under_json_is_one_object(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "convert", "--", "qemu", "-m"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["error"]["code"] == "command-line"


def test_folder_of_files_goes_on_after_a_failure(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.args").write_text(" ".join(RNG))
    Path("bad.args").write_text("qemu -m")
    assert main(["convert", "--output-dir", "out", "bad.args", "good.args"]) == 1
    assert sorted(file.name for file in Path("out").iterdir()) == ["good.report.json", "good.xml"]
    assert "bad.args" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["convert"], ["convert", "a", "b"], ["convert", "a", "--", "qemu"], ["convert", "missing.args"],
     ["convert", "--for-libvirt", "new", "--", "qemu"], ["convert", "-o", "no/such/folder/x", "--", *RNG]],
)
def test_wrong_usage_exits_2(in_folder: Path, words: list[str]) -> None:
    assert main(words) == 2


def test_running_process_is_read_with_its_working_directory(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # any program whose words look like QEMU's will do: what counts is /proc
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    words = ["qemu-system-x86_64", *argv[1:], "-nodefaults", "-kernel", "vmlinuz"]
    process = subprocess.Popen(words, executable=sys.executable, cwd=in_folder)
    try:
        while Path(f"/proc/{process.pid}/cmdline").read_bytes()[:4] != b"qemu":
            os.sched_yield()
        main(["convert", "--pid", str(process.pid)])
    finally:
        process.kill()
        process.wait()
    assert "qemu-system-x86_64</emulator>" in capsys.readouterr().out


def test_version_imports_neither_libvirt_nor_lxml() -> None:
    code = "import sys; from virtsnap.cli.main import main; main(['--version']); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"libvirt", "lxml", "rich"} & set(found.split())


def test_template_has_placeholders(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--template", "--", *RNG]) == 0
    captured = capsys.readouterr()
    assert "<name>{name}</name>" in captured.out
    assert "placeholder: name for guest" in captured.err
    assert main(["--json", "-q", "convert", "--template", "--", *RNG]) == 0
    assert json.loads(capsys.readouterr().out)["placeholders"] == {"name": "guest"}


def test_explain_prints_the_rows_of_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--explain", "-device", "virtio-rng-pci"]) == 0
    out = capsys.readouterr().out
    assert "max-bytes" in out
    assert "rng/rate/@bytes" in out


def test_explain_says_that_an_unknown_device_is_passed_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--explain", "-device", "no-such-device"]) == 2
    assert "passed through" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-daemonize"], "managed"),
        (["-monitor", "stdio"], "virsh qemu-monitor-command"),
        (["-global", "PIIX4_PM.disable_s3=1"], "pm/suspend-to-mem"),
        (["-nic", "user,model=e1000"], "devices/interface"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_explain_tries_out_an_option_that_has_no_table(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "--explain", *words]) == 0
    assert expected in " ".join(capsys.readouterr().out.split())


def test_explain_asks_for_the_value_that_an_option_without_a_table_wants(
    capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "--explain", "-drive"]) == 2
    assert "-drive: its value is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kvm", "qemu"])
def test_kvm_and_qemu_are_the_emulator_that_is_installed(
    name: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for program in ("kvm", "qemu-system-x86_64"):
        Path(program).write_text("")
        Path(program).chmod(0o755)
    monkeypatch.setenv("PATH", str(in_folder))
    assert main(["-q", "convert", "--", name]) == 0
    assert f"<emulator>{in_folder}/qemu-system-x86_64</emulator>" in capsys.readouterr().out


def test_emulator_of_a_libvirt_is_the_one_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtsnap.host.versions.known_emulator", lambda uri, arch: f"/opt/qemu-system-{arch}")
    find = program_finder("qemu+ssh://elsewhere/system")
    assert find("kvm") == "/opt/qemu-system-x86_64"
    assert find("qemu-system-aarch64") == "/opt/qemu-system-aarch64"
    assert find("qemu-system-x86_64-spice") is None


def test_failure_in_a_batch_carries_its_hint(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.args").write_text("qemu-system-x86_64 -device virtio-blk-pci,drive=no")
    Path("good.args").write_text(" ".join(RNG))
    assert main(["--json", "convert", "--output-dir", "out", "bad.args", "good.args"]) == 1
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["ok"] for file in files] == [False, True]
    assert "node-name=no" in files[0]["error"]["hint"]
    assert Path("out/good.xml").exists()
