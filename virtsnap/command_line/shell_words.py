"""Shell text becomes words: quotes, backslashes, comments and continued lines, as POSIX sh reads them.

Nothing is expanded and nothing is run: `$HOME`, backquotes and globs stay as
they stand, because the shell that would expand them is not here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from virtsnap.errors import CommandLineError

# Words that start a program without being it; what follows is the command line.
LAUNCHERS = frozenset({"exec", "sudo", "nohup", "env", "setsid"})

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_OPERATOR = re.compile(r"\d*(?:>>|>&|<&|>|<)|&&|\|\||[;|&()]")
_PLAIN = re.compile(r"[^\s'\"\\;|&()<>]+")


@dataclass(frozen=True, kw_only=True)
class CommandWords:
    """One command: its environment, and argv with the emulator as argv[0].

    `environment` holds (name, value) of the assignments before the emulator.
    """

    environment: tuple[tuple[str, str], ...]
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Token:
    text: str
    operator: bool = False
    quoted: bool = False


def parse_shell_text(text: str) -> CommandWords:
    """Read one simple command from shell text.

    Accepts comment lines, continued lines, redirections (left out: they are
    the shell's) and a final `&`. Raises CommandLineError for an unbalanced
    quote, for more than one command, and where there is none.
    """
    words: list[str] = []
    skip_target = False
    ended: str | None = None
    for token in _tokens(text):
        if token.operator and token.text in {"\n", ";", "&"}:
            if words:
                ended = token.text
            continue
        if ended is not None:
            shown = "a line that does not end in a backslash" if ended == "\n" else f"{ended!r}"
            raise CommandLineError(
                f"a second command starts at {token.text!r}, after {shown}",
                hint="give one QEMU command line; end continued lines in a backslash, quote special characters",
            )
        if token.operator:
            if token.text[-1] not in "<>&" or token.text == "&&":
                raise CommandLineError(
                    f"{token.text!r} joins commands; one QEMU command line is wanted",
                    hint="quote the word if the character belongs to it",
                )
            skip_target = True
            continue
        if skip_target:
            skip_target = False
            continue
        words.append(token.text)
    return split_environment(words)


def split_environment(words: Sequence[str]) -> CommandWords:
    """Part the words before the emulator (assignments, `sudo`, `exec` …) from argv."""
    environment: list[tuple[str, str]] = []
    at = 0
    while at < len(words):
        if _ASSIGNMENT.match(words[at]):
            name, _, value = words[at].partition("=")
            environment.append((name, value))
        elif words[at] not in LAUNCHERS:
            break
        at += 1
    if at == len(words):
        raise CommandLineError(
            "there is no command in it", hint="the first word is the emulator, such as qemu-system-x86_64"
        )
    if words[at].startswith("-"):
        raise CommandLineError(
            f"the command line starts with the option {words[at]}",
            argument=0,
            hint="put the emulator first, such as qemu-system-x86_64",
        )
    return CommandWords(environment=tuple(environment), argv=tuple(words[at:]))


def _tokens(text: str) -> list[_Token]:
    """Split shell text into words and operators; a newline that ends a command is an operator."""
    found: list[_Token] = []
    word: list[str] | None = None
    at, size = 0, len(text)

    def flush() -> None:
        nonlocal word
        if word is not None:
            found.append(_Token(text="".join(word)))
            word = None

    while at < size:
        char = text[at]
        if char == "\\":
            if text.startswith("\\\n", at):
                at += 2
                continue
            if text.startswith("\\\r\n", at):
                at += 3
                continue
            word = word or []
            word.append(text[at + 1 : at + 2])
            at += 2
        elif char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise _unbalanced("single", text, at)
            word = word or []
            word.append(text[at + 1 : end])
            at = end + 1
        elif char == '"':
            inner, at = _double_quoted(text, at)
            word = word or []
            word.append(inner)
        elif char.isspace():
            flush()
            if char == "\n":
                found.append(_Token(text="\n", operator=True))
            at += 1
        elif char == "#" and word is None:
            end = text.find("\n", at)
            at = size if end < 0 else end
        elif (word is None or char in ";|&()<>") and (operator := _OPERATOR.match(text, at)):
            flush()
            found.append(_Token(text=operator.group(), operator=True))
            at = operator.end()
        else:
            plain = _PLAIN.match(text, at)
            piece = plain.group() if plain else char
            word = word or []
            word.append(piece)
            at += len(piece)
    flush()
    return found


def _double_quoted(text: str, start: int) -> tuple[str, int]:
    """Read a double-quoted piece; return its text and the index behind the closing quote."""
    inner: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(inner), at + 1
        if char == "\\" and text[at + 1 : at + 2] in {'"', "\\", "$", "`", "\n"}:
            if text[at + 1] != "\n":
                inner.append(text[at + 1])
            at += 2
            continue
        inner.append(char)
        at += 1
    raise _unbalanced("double", text, start)


def _unbalanced(kind: str, text: str, at: int) -> CommandLineError:
    line = text.count("\n", 0, at) + 1
    rest = text[at : at + 30].splitlines()[0]
    return CommandLineError(
        f"unbalanced {kind} quote in line {line}, at {rest}", hint="close the quote, or escape it with a backslash"
    )
