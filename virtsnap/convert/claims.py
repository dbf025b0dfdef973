"""Claims kept back: what a plan would claim of the command line, until it is certain that all of it can be said.

A disk of libvirt's stands for several options of QEMU at once. Either all of
them are understood and claimed together, or none is, and QEMU gets them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.rows import Key, Version
from virtsnap.domain_xml.templates import Element


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """A place on the command line: the key of a word.

    `part` marks what is a part of the key's value, such as the host in
    `nbd:host:10809`: the key is claimed as a whole, and a part has a say in
    that only where it does not stand in the domain.
    """

    word: Word
    key: str
    part: bool = False


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
        self._notes: list[tuple[Word, str]] = []
        self._taken: set[int] = set()
        self.warnings: list[str] = []

    def take(self, said: Said, outcome: Outcome = Outcome.MAPPED, note: str | None = None) -> None:
        """Note that something is understood."""
        self._taken.add(id(said))
        self._claims.append((said, outcome, note))

    def has(self, said: Said) -> bool:
        """Tell whether something is understood."""
        return id(said) in self._taken

    def words(self) -> list[Word]:
        """Give the words of which something is understood."""
        found = {id(said.word): said.word for said, _, _ in self._claims if said.word is not None}
        return list(found.values())

    def take_word(self, word: Word, outcome: Outcome, note: str | None = None) -> None:
        """Note that all keys of a word are understood; `note` is about the word."""
        for key in dict.fromkeys(item.key for item in word.properties):
            self.take(Said(word=word, key=key), outcome)
        if note is not None:
            self._notes.append((word, note))

    def places(self) -> list[Said]:
        """Give what has been taken, in order."""
        return [said for said, _, _ in self._claims]

    def commit(self, *elements: Element) -> None:
        """Claim everything, and note on the words where they stand.

        What is said of a key's parts counts after what is said of the key.
        """
        for said, outcome, note in sorted(self._claims, key=lambda claim: claim[0].part):
            if not said.part or outcome > Outcome.IMPLIED:
                said.word.claim(said.key, outcome, note)
            said.word.land(*elements)
        for word, text in self._notes:
            word.note(text)


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
        """Take every key of a table; give the values of its holes, as `rows.read_keys` does for a whole word.

        Raises NotSayable for the first value that its row cannot read.
        """
        holes: dict[str, str | None] = {}
        for row in keys:
            value = self.get(row.key)
            if value is None or target < row.since or (row.needs is not None and row.needs not in holes):
                continue
            try:
                read = row.read(value) if row.hole is None else row.read_line(value)
            except ValueError as exc:
                raise NotSayable(str(exc)) from exc
            outcome = row.outcome
            usual = read is None or (row.hole is None and outcome is Outcome.MAPPED)
            self.take(row.key, Outcome.IMPLIED if usual else outcome, None if usual else row.note)
            if row.hole is not None and read is not None:
                holes[row.hole] = read
        return holes
