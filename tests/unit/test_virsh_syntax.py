"""virsh's words are read by virsh's rules, and refused in virsh's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtsnap.cli.main import VERBS as OUR_VERBS
from virtsnap.cli.virsh.answers import ANSWERS
from virtsnap.cli.virsh.syntax import Command, VirshSyntaxError, parse_command, split_commands, split_list
from virtsnap.cli.virsh.verbs import CONSOLE, UNDEFINE, VERBS


def parse(line: str) -> Command:
    verb, *words = line.split(" ")
    return parse_command({**VERBS, "console": CONSOLE, "undefine": UNDEFINE}[verb], words)


def test_every_verb_has_a_place_and_an_answer() -> None:
    assert set(ANSWERS) == set(VERBS)
    assert set(VERBS) <= set(OUR_VERBS)


@pytest.mark.parametrize(("line", "given_"), [
    ("snapshot-revert VM s", {"domain": ["VM"], "snapshotname": ["s"]}),
    ("snapshot-revert --snapshotname s VM", {"snapshotname": ["s"], "domain": ["VM"]}),
    ("snapshot-revert --domain=VM s --force", {"domain": ["VM"], "snapshotname": ["s"], "force": []}),
    ("snapshot-revert VM -- --force", {"domain": ["VM"], "snapshotname": ["--force"]}),
    ("snapshot-revert VM ---x", {"domain": ["VM"], "snapshotname": ["---x"]}),
    ("snapshot-revert VM --snapshotname --force", {"domain": ["VM"], "snapshotname": ["--force"]}),
    ("snapshot-revert VM --snapshotname=a=b", {"domain": ["VM"], "snapshotname": ["a=b"]}),
    ("snapshot-list VM s --tree", {"domain": ["VM"], "from": ["s"], "tree": []}),
    ("snapshot-create-as --diskspec vda VM n d vdb --memspec m vdc",
     {"diskspec": ["vda", "vdb", "vdc"], "domain": ["VM"], "name": ["n"], "description": ["d"], "memspec": ["m"]}),
    ("snapshot-current VM s --name", {"domain": ["VM"], "snapshotname": ["s"], "name": []}),
    ("console VM serial1 --force", {"domain": ["VM"], "devname": ["serial1"], "force": []}),
    ("undefine --snapshots-metadata VM", {"snapshots-metadata": [], "domain": ["VM"]}),
])
def test_words_become_options(line: str, given_: dict[str, list[str]]) -> None:
    assert parse(line).given == given_


@pytest.mark.parametrize(("line", "message"), [
    ("snapshot-revert", "command 'snapshot-revert' requires <domain> option"),
    ("domxml-from-native", "command 'domxml-from-native' requires <format> option\n"
                           "command 'domxml-from-native' requires <config> option"),
    ("snapshot-revert VM --bogus", "command 'snapshot-revert' doesn't support option --bogus"),
    ("snapshot-revert VM --force=1", "invalid '=' after option --force"),
    ("snapshot-revert VM --force --force", "option --force already seen"),
    ("snapshot-revert VM --domain VM", "option --domain already seen"),
    ("snapshot-revert VM --snapshotname", "expected syntax: --snapshotname <string>"),
    ("snapshot-revert VM s t", "unexpected data 't'"),
    ("snapshot-dumpxml VM s //name", "unexpected data '//name'"),
])
def test_words_that_virsh_refuses_are_refused_in_its_words(line: str, message: str) -> None:
    with pytest.raises(VirshSyntaxError) as caught:
        parse(line)
    assert caught.value.message == message


def test_newer_virsh_names_the_first_missing_option_only() -> None:
    with pytest.raises(VirshSyntaxError) as caught:
        parse_command(VERBS["snapshot-dumpxml"], [], tells_all_missing=False)
    assert caught.value.message == "command 'snapshot-dumpxml' requires <domain> option"


def test_an_empty_value_is_found_when_it_is_used() -> None:
    command = parse("snapshot-revert VM --snapshotname=")
    with pytest.raises(VirshSyntaxError, match="Failed to get option 'snapshotname': Option argument is empty"):
        command.get("snapshotname")


def test_help_needs_nothing_else() -> None:
    assert parse("snapshot-revert --help").wants_help


@pytest.mark.parametrize(("text", "commands"), [
    ("snapshot-delete VM a; snapshot-create-as VM a",
     [["snapshot-delete", "VM", "a"], ["snapshot-create-as", "VM", "a"]]),
    ("list;;list\nlist ; ", [["list"], ["list"], ["list"]]),
    ("a 'b c;d' \"e 'f'\" g\\ h", [["a", "b c;d", "e 'f'", "g h"]]),
    ('a "b\\"c" \'d\\e\' f\\\ng', [["a", 'b"c', "d\\e", "fg"]]),
    ("a b#c # d; e\nf", [["a", "b#c"], ["f"]]),
    ("a 'never closed", [["a", "never closed"]]),
    ("a ''", [["a", ""]]),
    ("", []), (" \t", []), ("# only", []), ("a \\\n b", [["a", "b"]]),
])
def test_one_word_may_hold_several_commands(text: str, commands: list[list[str]]) -> None:
    assert split_commands(text) == commands


@pytest.mark.parametrize(("text", "message"), [('a "b', 'missing "'), ("a b\\", "dangling \\")])
def test_quoting_that_virsh_refuses(text: str, message: str) -> None:
    with pytest.raises(VirshSyntaxError) as caught:
        split_commands(text)
    assert caught.value.message == message


@given(st.text(alphabet="ab;'\"\\ \n#-="))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        commands = split_commands(text)
    except VirshSyntaxError:
        return
    assert all(commands)


@given(st.lists(st.text(alphabet="a-=;' ")))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        command = parse_command(VERBS["snapshot-create-as"], words)
    except VirshSyntaxError:
        return
    assert command.has("domain") or command.wants_help


def test_two_commas_are_one() -> None:
    assert split_list("vda,file=/a,,b,snapshot=no") == ["vda", "file=/a,b", "snapshot=no"]
