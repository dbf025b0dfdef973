"""The words of one virsh command become its options, by virsh's rules.

`--opt=value` and `--opt value`, data words that fill the options in their
order, `--` after which everything is data, and a whole command line in one
word with `;`, quotes and `#` (virsh 9.0 and 11.3; the messages are virsh's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from virtsnap.errors import UsageError


class VirshSyntaxError(UsageError):
    """Words that virsh would not take; the message may have several lines."""

    code = "usage"


@dataclass(frozen=True, kw_only=True)
class Option:
    """A row of a verb's table.

    A `flag` takes no value; one that is not `is_data` is never filled by a data word; `is_list` takes all
    data words that are left, and may be named again and again.
    """

    name: str
    flag: bool = False
    is_required: bool = False
    is_data: bool = True
    is_list: bool = False
    # Known to virsh, and done by nobody here: the reason, for the refusal
    refused: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb of virsh and its options, in virsh's order."""

    name: str
    summary: str
    options: tuple[Option, ...]

    def option(self, name: str) -> Option | None:
        """Find an option by name."""
        return next((option for option in self.options if option.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb with the options that were given: the values of each, in order; none for a flag."""

    verb: Verb
    given: dict[str, list[str]] = field(default_factory=dict)
    wants_help: bool = False

    def has(self, name: str) -> bool:
        """Say whether the option was given."""
        return name in self.given

    def get(self, name: str) -> str | None:
        """Give the option's value, or None.

        On failure: VirshSyntaxError for an empty one, which virsh finds when it runs the command.
        """
        values = self.given.get(name)
        if not values:
            return None
        if not values[0]:
            raise VirshSyntaxError(f"Failed to get option '{name}': Option argument is empty")
        return values[0]

    def require(self, name: str) -> str:
        """Give the value of a required option."""
        value = self.get(name)
        assert value is not None, f"{name} is required by the verb's table"
        return value

    def all(self, name: str) -> tuple[str, ...]:
        """Give all values of a list option."""
        return tuple(self.given.get(name, ()))


def parse_command(verb: Verb, words: Sequence[str], *, tells_all_missing: bool = True) -> Command:
    """Read the words after the verb.

    `tells_all_missing`: virsh before 10.3 names every option that is missing, later ones the first.
    On failure: VirshSyntaxError.
    """
    given: dict[str, list[str]] = {}
    wants_help, data_only = False, False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not data_only and word == "--":
            data_only = True
        elif not data_only and word.startswith("--") and word[2:3].isascii() and word[2:3].isalnum():
            name, equals, value = word[2:].partition("=")
            if name == "help":
                wants_help = True
                continue
            option = _named(verb, name, given)
            if option.flag:
                if equals:
                    raise VirshSyntaxError(f"invalid '=' after option --{name}")
                given[name] = []
            elif equals:
                given.setdefault(name, []).append(value)
            elif rest:
                given.setdefault(name, []).append(rest.pop(0))
            else:
                raise VirshSyntaxError(f"expected syntax: --{name} <string>")
        else:
            given.setdefault(_next_data_option(verb, given, word), []).append(word)
    missing = [option for option in verb.options if option.is_required and option.name not in given]
    if missing and not wants_help:
        raise VirshSyntaxError("\n".join(
            f"command '{verb.name}' requires <{option.name}> option"
            for option in (missing if tells_all_missing else missing[:1])
        ))
    return Command(verb=verb, given=given, wants_help=wants_help)


def _named(verb: Verb, name: str, given: dict[str, list[str]]) -> Option:
    option = verb.option(name)
    if option is None:
        raise VirshSyntaxError(f"command '{verb.name}' doesn't support option --{name}")
    if name in given and not option.is_list:
        raise VirshSyntaxError(f"option --{name} already seen")
    return option


def _next_data_option(verb: Verb, given: dict[str, list[str]], word: str) -> str:
    for option in verb.options:
        if not option.flag and option.is_data and (option.is_list or option.name not in given):
            return option.name
    raise VirshSyntaxError(f"unexpected data '{word}'")


def split_commands(text: str) -> list[list[str]]:
    """Split virsh's one-word form into commands and those into words.

    `;` and newlines end a command, `'`, `"` and a backslash quote as in a shell, a word that begins with
    `#` begins a comment. On failure: VirshSyntaxError.
    """
    commands: list[list[str]] = [[]]
    at = 0
    while True:
        while text[at : at + 1] in (" ", "\t") or text.startswith("\\\n", at):
            at += 2 if text[at] == "\\" else 1
        if at >= len(text):
            return [command for command in commands if command]
        if text[at] in ";\n":
            commands.append([])
            at += 1
        elif text[at] == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end + 1
            commands.append([])
        else:
            word, at = _read_word(text, at)
            commands[-1].append(word)


def _read_word(text: str, at: int) -> tuple[str, int]:
    """Read one word; a `'` that is never closed goes on to the end, as it does in virsh."""
    word: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char in " \t;\n":
            break
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif char == "\\" and quote != "'":
            at += 1
            if at >= len(text):
                raise VirshSyntaxError("dangling \\")
            if text[at] != "\n":
                word.append(text[at])
        else:
            word.append(char)
        at += 1
    if quote == '"':
        raise VirshSyntaxError('missing "')
    return "".join(word), at


def split_list(text: str) -> list[str]:
    """Split a memspec or diskspec at its commas; `,,` is a comma."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
