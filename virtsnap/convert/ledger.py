"""The account of a conversion: what became of every option and of every key in it.

Each option of the command line becomes a Word. A subject module that
understands a key takes it; what nobody has taken at the end is passed on to
QEMU as it stands. So a key cannot get lost: it is claimed, or it is passed through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from virtsnap.command_line.keyval import Properties, Property
from virtsnap.command_line.options import Option
from virtsnap.domain_xml.templates import Element
from virtsnap.errors import CommandLineError


def refuse(option: Option, why: str, hint: str) -> CommandLineError:
    """Make the error for a value that QEMU itself could not read; it names the option and its argument."""
    return CommandLineError(f"{option.text}: {why}", argument=option.last, hint=hint)


class Outcome(IntEnum):
    """What became of a key, best first; an option's outcome is its worst key's."""

    MAPPED = 0  # native XML
    IMPLIED = 1  # what the domain has anyway
    MANAGED = 2  # libvirt's own plumbing: its monitor, secrets, descriptors
    SUBSTITUTED = 3  # an equivalent, named in the note
    PASSTHROUGH = 4  # kept by <qemu:override> or <qemu:commandline>
    DROPPED = 5  # gone, with the reason

    @property
    def word(self) -> str:
        """The outcome's name in the report."""
        return self.name.lower()


class NotSayable(ValueError):
    """A value for which libvirt has no word; the key is passed through, with this as its note."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What became of one key."""

    outcome: Outcome
    note: str | None = None


class Word:
    """One option with the account of its keys.

    `implied` marks a word that does not stand in argv: a device that QEMU adds
    by itself. It is converted like any other and left out of the report. `aside` marks
    a word that no subject is to convert: QEMU gets it as it stands.
    """

    def __init__(self, option: Option, *, implied: bool = False) -> None:
        self.option = option
        self.implied = implied
        self.aside = False
        self.elements: list[Element] = []
        self.notes: list[str] = []
        # The words to pass on to QEMU in place of the option's own, where a path in it is relative.
        self.passed_as: list[str] | None = None
        # Properties that a device passed on must say, because QEMU would choose them otherwise.
        self.passed_with: dict[str, str] = {}
        self._claims: dict[int, Claim] = {}

    @property
    def group(self) -> str:
        """The option's canonical name, without dashes."""
        return self.option.group

    @property
    def properties(self) -> Properties:
        """The option's properties as parsed."""
        return self.option.properties

    def peek(self, key: str) -> str | None:
        """Give the value of a key without claiming it."""
        return self.properties.get(key)

    def has(self, key: str) -> bool:
        """Tell whether the option says this key."""
        return key in self.properties

    def take(self, key: str, outcome: Outcome = Outcome.MAPPED, note: str | None = None) -> str | None:
        """Claim a key and give its value; None where the option does not say it."""
        self.claim(key, outcome, note)
        return self.properties.get(key)

    def take_read(self, key: str, read: Callable[[str], str | None]) -> str | None:
        """Claim a key and give its value through `read`.

        Where `read` raises NotSayable (or ValueError, for what is no number at all)
        the key stays unclaimed, so that it is passed through, and the reason is
        noted. Where `read` gives None, the value is what the domain has anyway.
        """
        value = self.properties.get(key)
        if value is None:
            return None
        try:
            result = read(value)
        except ValueError as exc:
            self.note(f"{key}: {exc}")
            return None
        self.claim(key, Outcome.MAPPED if result is not None else Outcome.IMPLIED)
        return result

    def claim(self, key: str, outcome: Outcome, note: str | None = None) -> None:
        """Set what became of every occurrence of a key; a key that the option does not say is ignored."""
        for index, item in enumerate(self.properties):
            if item.key == key:
                self._claims[index] = Claim(outcome=outcome, note=note)
        if note is not None and key in self.properties:
            self.note(f"{key}: {note}")

    def claim_below(self, prefix: str, outcome: Outcome, note: str | None = None) -> None:
        """Set what became of a key and of all dotted keys under it."""
        for item in self.properties:
            if item.key == prefix or item.key.startswith(prefix + "."):
                self.claim(item.key, outcome, note)

    def claim_rest(self, outcome: Outcome, note: str | None = None) -> None:
        """Set what became of all keys that nobody has claimed yet."""
        for item in self.unclaimed():
            self.claim(item.key, outcome)
        if note is not None:
            self.note(note)

    def claim_all(self, outcome: Outcome, note: str | None = None) -> None:
        """Set what became of the whole option, whatever was said before."""
        self._claims.clear()
        self.claim_rest(outcome, note)

    def unclaimed(self) -> list[Property]:
        """Give the properties that nobody has claimed."""
        return [item for index, item in enumerate(self.properties) if index not in self._claims]

    @property
    def untouched(self) -> bool:
        """Whether nobody has claimed anything of this option."""
        return not self._claims

    def land(self, *elements: Element) -> None:
        """Say where in the domain this option stands."""
        for element in elements:
            if not any(element is known for known in self.elements):
                self.elements.append(element)

    def note(self, text: str) -> None:
        """Add a remark for the report, once."""
        if text not in self.notes:
            self.notes.append(text)

    def parts(self) -> Iterator[tuple[str, Claim | None]]:
        """Give each key that stands in argv, with what became of it (None: nobody claimed it)."""
        for index, item in enumerate(self.properties):
            if item.given:
                yield item.key, self._claims.get(index)

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the keys in argv; what nobody claimed counts as passed through."""
        found = [Outcome.PASSTHROUGH if claim is None else claim.outcome for _, claim in self.parts()]
        return max(found, default=Outcome.PASSTHROUGH if self.untouched else Outcome.IMPLIED)


def words_of(options: Iterable[Option]) -> list[Word]:
    """Open the account of a command line."""
    return [Word(option) for option in options]
