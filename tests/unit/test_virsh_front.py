"""virtsnap-virsh: what is ours, what the real virsh gets, and which one that is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from virtsnap.cli.virsh import front
from virtsnap.cli.virsh.console import escape_byte
from virtsnap.cli.virsh.preferences import Preferences
from virtsnap.host.programs import find_program, is_script


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What went to the real virsh."""
    seen: list[list[str]] = []
    monkeypatch.setattr(front, "real_virsh", lambda: ("/usr/bin/virsh", {}))

    def run(words: Sequence[str], *, environment: dict[str, str]) -> int:
        seen.append(list(words))
        return 0

    def become(words: Sequence[str], *, environment: dict[str, str]) -> None:
        sys.exit(run(words, environment=environment))

    monkeypatch.setattr(front, "become_program", become)
    monkeypatch.setattr(front, "run_program", run)
    return seen


@pytest.mark.parametrize("words", [
    [], ["list"], ["-c", "x:///", "list", "--all"], ["--version"], ["-V"], ["-h"], ["-c"], ["--nonsense"], ["-q"],
    ["snapshot-create", "VM", "x.xml"], ["list; domname 1"], ["dominfo", "snapshot-list"], ['snapshot-list "VM'],
    ["help", "snapshot-list"],
])
def test_what_is_not_ours_goes_to_virsh_as_it_came(calls: list[list[str]], words: list[str]) -> None:
    with pytest.raises(SystemExit):
        front.main(words)
    assert calls == [["/usr/bin/virsh", *words]]


@pytest.mark.parametrize("words", [["snapshot-list", "--help"], ["undefine", "VM", "--newer-option"],
                                   ["domxml-from-native", "vmware-vmx", "f"], ["console", "--help"]])
def test_what_virsh_knows_better_goes_there_too(calls: list[list[str]], words: list[str]) -> None:
    assert front.main(["-q", *words]) == 0
    assert calls == [["/usr/bin/virsh", "-q", *words]]


def test_ours_are_read_before_anything_is_run(calls: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["list; snapshot-list VM --bogus"]) == 1
    assert calls == []
    assert capsys.readouterr().err == "error: command 'snapshot-list' doesn't support option --bogus\n"


def test_a_string_stops_at_quit(calls: list[list[str]]) -> None:
    assert front.main(["-q", "list --all; quit; snapshot-list VM"]) == 0
    assert calls == [["/usr/bin/virsh", "-q", "list", "--all"]]


def test_global_options_are_read_as_getopt_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRSH_DEFAULT_CONNECT_URI", "env:///")
    call = front.read_call(["-qrc", "x:///", "--tim", "-e", "^b", "-d0", "--log=f", "snapshot-list", "-c"])
    assert call is not None
    assert call.words == ("snapshot-list", "-c")
    assert call.options == ("-qrc", "x:///", "--tim", "-e", "^b", "-d0", "--log=f")
    assert call.preferences == Preferences(uri="x:///", quiet=True, readonly=True, timing=True, escape="^b")
    default = front.read_call(["snapshot-list"])
    assert default is not None
    assert default.preferences.uri == "env:///"


def test_escape_characters() -> None:
    assert (escape_byte("^]"), escape_byte("^b"), escape_byte("~")) == (b"\x1d", b"\x02", b"~")


def program(place: Path, text: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)
    return place


def test_the_real_virsh_is_the_first_that_is_not_this_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = program(tmp_path / "bin" / "virtsnap-virsh", "#!/usr/bin/python3\n")
    (tmp_path / "front").mkdir()
    link = tmp_path / "front" / "virsh"
    link.symlink_to(ours)
    wrapper = program(tmp_path / "wrapper" / "virsh", "#!/bin/sh\n")
    real = program(tmp_path / "real" / "virsh", "\x7fELF")
    (tmp_path / "folder" / "virsh").mkdir(parents=True)
    monkeypatch.setenv("PATH", ":".join(
        str(tmp_path / name) for name in ("nowhere", "folder", "front", "wrapper", "real")
    ))
    monkeypatch.delenv(front.CHOSEN, raising=False)
    monkeypatch.delenv(front.TRIED, raising=False)
    monkeypatch.setattr("sys.argv", [str(link)])
    found, environment = front.real_virsh()
    assert (found, environment[front.TRIED]) == (str(wrapper), str(wrapper))
    monkeypatch.setenv(front.TRIED, str(wrapper))
    found, environment = front.real_virsh()
    assert found == str(real)
    assert environment[front.TRIED] == str(wrapper), "a real virsh leads nowhere else"
    monkeypatch.setenv(front.CHOSEN, "/opt/virsh")
    assert front.real_virsh()[0] == "/opt/virsh"


def test_programs_are_found_by_what_they_are(tmp_path: Path) -> None:
    script = program(tmp_path / "a" / "x", "#!/bin/sh\n")
    assert is_script(str(script))
    assert not is_script(str(tmp_path / "none"))
    assert find_program("x", search_path=str(tmp_path / "a")) == str(script)
    assert find_program("x", search_path=str(tmp_path / "a"), not_these=[str(script)]) is None
