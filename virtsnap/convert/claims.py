"""Claims kept back: what a plan would claim of the command line, until it is certain that all of it can be said.

A disk of libvirt's stands for several options of QEMU at once. Either all of
them are understood and claimed together, or none is, and QEMU gets them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Version
from virtsnap.domain_xml.templates import Element


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """A place on the command line: the key of a word.

    `word` is None for what no key of its own says, a part of a file name such
    as `nbd:host:10809`, whose key is claimed as a whole.
    """

    word: Word | None = None
    key: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One key as the reader sees it, its value, and where it was said."""

    key: str
    value: str
    said: Said


class Claims:
    """The claims of one plan, in order."""

    def __init__(self) -> None:
        self._claims: list[tuple[Said, Outcome, str | None]] = []
        self._taken: set[int] = set()
        self.warnings: list[str] = []

    def take(self, said: Said, outcome: Outcome = Outcome.MAPPED, note: str | None = None) -> None:
        """Note that something is understood."""
        self._taken.add(id(said))
        self._claims.append((said, outcome, note))

    def has(self, said: Said) -> bool:
        """Tell whether something is understood."""
        return id(said) in self._taken

    def take_word(self, word: Word, outcome: Outcome, note: str | None = None) -> None:
        """Note that all keys of a word are understood; `note` is about the word."""
        for number, key in enumerate(dict.fromkeys(item.key for item in word.properties)):
            self.take(Said(word=word, key=key), outcome, note if number == 0 else None)

    def places(self) -> list[Said]:
        """Give what has been taken, in order."""
        return [said for said, _, _ in self._claims]

    def commit(self, *elements: Element) -> None:
        """Claim everything, and note on the words where they stand."""
        for said, outcome, note in self._claims:
            if said.word is not None:
                said.word.claim(said.key, outcome, note)
                said.word.land(*elements)


class Options:
    """The keys of one node or object, whose claims are kept back.

    Of entries with the same key the last one counts, as in QEMU.
    """

    def __init__(self, entries: Iterable[Entry], claims: Claims) -> None:
        self.entries = tuple(entries)
        self.claims = claims

    @classmethod
    def of_word(cls, word: Word, claims: Claims) -> Options:
        """Give the options of a whole word."""
        return cls(
            (
                Entry(key=item.key, value=item.value, said=Said(word=word, key=item.key))
                for item in word.properties
            ),
            claims,
        )

    def below(self, prefix: str) -> Options:
        """Give the options under `prefix.`, with that prefix taken off."""
        start = prefix + "."
        inner = [
            replace(entry, key=entry.key.removeprefix(start))
            for entry in self.entries
            if entry.key.startswith(start)
        ]
        return Options(inner, self.claims)

    def get(self, key: str) -> str | None:
        """Give a value without taking it."""
        return next((entry.value for entry in reversed(self.entries) if entry.key == key), None)

    def has(self, key: str) -> bool:
        """Tell whether a key is said."""
        return any(entry.key == key for entry in self.entries)

    def take(self, key: str, outcome: Outcome = Outcome.MAPPED, note: str | None = None) -> str | None:
        """Take every occurrence of a key; give the value that counts."""
        for entry in self.entries:
            if entry.key == key:
                self.claims.take(entry.said, outcome, note)
        return self.get(key)

    def take_any(self, *keys: str, outcome: Outcome = Outcome.MAPPED) -> str | None:
        """Take the several names of one thing; give the value of the first that is said."""
        found = [self.take(key, outcome) for key in keys]
        return next((value for value in found if value is not None), None)

    def take_all(self, outcome: Outcome, note: str | None = None) -> None:
        """Take everything that is left."""
        for entry in list(self.left()):
            self.claims.take(entry.said, outcome, note)

    def left(self) -> Iterator[Entry]:
        """Give what has not been taken."""
        return (entry for entry in self.entries if not self.claims.has(entry.said))

    def read(self, keys: Sequence[Key], target: Version) -> dict[str, str | None]:
        """Take every key of a table; give the values of its holes, as `rows.read_keys` does for a whole word."""
        holes: dict[str, str | None] = {}
        for row in keys:
            value = self.get(row.key)
            if value is None or target < row.since:
                continue
            read = row.read(value)
            outcome = row.outcome
            if outcome is Outcome.MAPPED and (read is None or row.hole is None):
                outcome = Outcome.IMPLIED
            self.take(row.key, outcome, row.note)
            if row.hole is not None and read is not None:
                holes[row.hole] = read
        return holes
