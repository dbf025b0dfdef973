"""Shell text becomes words as POSIX sh reads them, and nothing is expanded."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtsnap.command_line.shell_words import parse_shell_text, split_environment
from virtsnap.errors import CommandLineError


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("qemu -m 512", ("qemu", "-m", "512")),
        ("qemu \\\n  -m 512 \\\n", ("qemu", "-m", "512")),
        ("# a remark\n\nqemu -m 512 # another\n", ("qemu", "-m", "512")),
        ("qemu -append 'a  b' -name \"x \\\"y\\\" $HOME\"", ("qemu", "-append", "a  b", "-name", 'x "y" $HOME')),
        ("qemu a\\ b ''", ("qemu", "a b", "")),
        ("qemu -name x#y", ("qemu", "-name", "x#y")),
        ("qemu -m 1 > log 2>&1 < /dev/null &", ("qemu", "-m", "1")),
        ("qemu -name 'a'\\''b'", ("qemu", "-name", "a'b")),
        ("qemu\r\n", ("qemu",)),
    ],
)
def test_text_becomes_words(text: str, argv: tuple[str, ...]) -> None:
    assert parse_shell_text(text).argv == argv


def test_assignments_and_launchers_before_the_emulator_are_no_words_of_argv() -> None:
    words = parse_shell_text("LC_ALL=C sudo QEMU_AUDIO_DRV=none exec kvm -m 1 A=b")
    assert words.environment == (("LC_ALL", "C"), ("QEMU_AUDIO_DRV", "none"))
    assert words.argv == ("kvm", "-m", "1", "A=b")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("qemu -append 'open", "unbalanced single quote in line 1"),
        ('qemu \\\n -name "open', "unbalanced double quote in line 2"),
        ("qemu -m 1\nqemu -m 2\n", "a second command starts at 'qemu'"),
        ("qemu | tee log", "joins commands"),
        ("qemu -m 1 && echo", "joins commands"),
        ("  # only a remark\n", "there is no command"),
        ("-m 512", "starts with the option -m"),
    ],
)
def test_text_that_is_not_one_command_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(CommandLineError, match=complaint):
        parse_shell_text(text)


@given(st.lists(st.text(min_size=0), min_size=1))
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    command = ["qemu", *words]
    assert list(parse_shell_text(shlex.join(command)).argv) == command


def test_words_that_are_all_assignments_hold_no_command() -> None:
    with pytest.raises(CommandLineError, match="there is no command"):
        split_environment(["A=b"])
