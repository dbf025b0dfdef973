"""A plan and how far it got become an element in the domain's metadata, and a plan again.

    <virtsnap:journal xmlns:virtsnap="urn:virtsnap:journal" format="1" op="load" name="lastgood"
                      begun="3" direction="forward">…</virtsnap:journal>

The text is the plan: JSON, deflated, base64 (a load that forgets sixty
snapshots carries their sixty XML documents). `begun` counts the steps that
may have been begun, one more than there are once it comes to tidying up;
`direction` is `back` once they are being taken back. It lies where the claim
lies (`lock`), is written before the first step and before each that makes a
difference to a recovery (each time costs libvirt an fsync, 5 ms), and goes
before the claim does: who holds the domain and finds a journal has found what
somebody left unfinished.

Passwords of VNC and SPICE are left out, since metadata can be read over a
read-only connection; who recovers takes those of the definition in place.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from lxml import etree

from virtsnap.domain_xml.beside_disks import StatePlace
from virtsnap.domain_xml.live import has_metadata, parse_xml
from virtsnap.errors import UnsupportedError
from virtsnap.host import Domain
from virtsnap.host.files import Layer
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import Facts, SavedDisk, SavedMemory, SavedState, to_text

FORMAT = 1
JOURNAL_NS = "urn:virtsnap:journal"
_PREFIX = "virtsnap"
_SECRETS = ("passwd", "passwdValidTo")

Direction = Literal["forward", "back"]

_VALUES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (st.Plan, st.KeptObject, Facts, SavedDisk, SavedMemory, SavedState, StatePlace, Layer)
} | {
    kind.__name__: kind
    for kind in vars(st).values() if isinstance(kind, type) and issubclass(kind, st.Step)
}


@dataclass(frozen=True, kw_only=True)
class Journal:
    """A plan and how far it got."""

    plan: st.Plan
    begun: int = 0
    direction: Direction = "forward"

    @property
    def begun_steps(self) -> tuple[st.Step, ...]:
        """Give the steps that may have been begun."""
        return self.plan.steps[: self.begun]

    @property
    def is_tidying(self) -> bool:
        """Say whether all that makes up the operation is done, so that only tidying up is left."""
        return self.begun > len(self.plan.steps)


def journal_element(journal: Journal) -> etree._Element:
    """Write a journal as the element of this module's docstring."""
    element = etree.Element(f"{{{JOURNAL_NS}}}journal", {
        "format": str(FORMAT), "op": journal.plan.op, "name": _attribute(journal.plan.name),
        "begun": str(journal.begun), "direction": journal.direction,
    }, nsmap={_PREFIX: JOURNAL_NS})
    text = json.dumps(_plain(journal.plan), ensure_ascii=False, separators=(",", ":"))
    element.text = base64.b64encode(zlib.compress(text.encode())).decode()
    return element


def read_journal(definition: str) -> Journal | None:
    """Read the journal in a `<domain>`; None where there is none.

    On failure: UnsupportedError for a newer format, and for one that is damaged.
    """
    element = None
    if JOURNAL_NS in definition:
        element = parse_xml(definition).find(f"metadata/{{{JOURNAL_NS}}}journal")
    if element is None:
        return None
    number = element.get("format", "")
    if not number.isdigit() or int(number) > FORMAT:
        raise UnsupportedError(
            f"an operation was interrupted whose journal has format {number!r}, and this virtsnap knows {FORMAT}",
            hint="use the newer virtsnap that wrote it",
        )
    try:
        plan = _value(json.loads(zlib.decompress(base64.b64decode(element.text or "", validate=True))))
        assert isinstance(plan, st.Plan)
        direction: Direction = "back" if element.get("direction") == "back" else "forward"
        return Journal(plan=plan, begun=int(element.get("begun", "")), direction=direction)
    except (ValueError, KeyError, TypeError, AssertionError, zlib.error) as exc:
        raise UnsupportedError("an operation was interrupted whose journal is damaged") from exc


def journal_in(definitions: Iterable[str]) -> Journal | None:
    """Read what an operation before left in a domain's definitions. On failure: as `read_journal`."""
    return next((found for text in definitions if (found := read_journal(text)) is not None), None)


def with_passwords_of(plan: st.Plan, definition: str) -> st.Plan:
    """Give the plan with the passwords of `definition` in every document that lacks them."""
    kept: dict[str | None, dict[str, str]] = {
        graphics.get("type"): {name: value for name in _SECRETS if (value := graphics.get(name))}
        for graphics in parse_xml(definition).iterfind("devices/graphics")
    }
    if not any(kept.values()):
        return plan

    def fill(text: str) -> str:
        root = parse_xml(text)
        for graphics in root.iter("graphics"):
            for name, value in kept.get(graphics.get("type"), {}).items():
                graphics.set(name, value)
        return to_text(root)

    filled = _mapped(plan, fill)
    assert isinstance(filled, st.Plan)
    return filled


class Keeper:
    """Keeps the journal of one operation in its domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._journal: Journal | None = None
        self._may_be_in_the_live_one = True

    def open(self, journal: Journal) -> None:
        """Write the journal of an operation that begins, or goes on."""
        self._journal = journal
        self._write()

    def note(self, begun: int, *, direction: Direction = "forward") -> None:
        """Write down how far it got, unless that was expected."""
        known = self._journal
        self.expect(begun, direction=direction)
        if self._journal not in (known, None):
            self._write()

    def expect(self, begun: int, *, direction: Direction = "forward") -> None:
        """Have it in the definition that comes next how far it got; Needs: there comes one."""
        if self._journal is not None:
            self._journal = replace(self._journal, begun=begun, direction=direction)

    def close(self) -> None:
        """Take the journal out of whichever definitions there are: the operation is over."""
        self._journal = None
        self._domain.drop_metadata(prefix=_PREFIX, uri=JOURNAL_NS)

    def elements(self) -> Iterable[etree._Element]:
        """Give what a new persistent definition has to carry on."""
        return () if self._journal is None else (journal_element(self._journal),)

    def _write(self) -> None:
        assert self._journal is not None
        persistent = self._domain.is_persistent()
        element = journal_element(self._journal)
        bare = etree.Element("journal", {str(name): str(value) for name, value in element.attrib.items()})
        bare.text = element.text
        self._set(to_text(bare), live=not persistent)
        if not persistent:
            self._may_be_in_the_live_one = True
        elif self._may_be_in_the_live_one:  # asked once only: two round trips for each note
            if self._domain.is_active() and has_metadata(self._domain.live_xml(), JOURNAL_NS):
                # A transient domain was made persistent: what stays behind in the live one would be out of date.
                self._set(None, live=True)
            self._may_be_in_the_live_one = False

    def _set(self, xml: str | None, *, live: bool) -> None:
        self._domain.set_metadata(xml, prefix=_PREFIX, uri=JOURNAL_NS, live=live, persistent=not live)


def _attribute(text: str) -> str:
    """Make a runner's name fit for an attribute, where only people read it."""
    return "".join(char if char.isprintable() else "�" for char in text)


# Values to JSON and back. Sequences are tuples, sets are {"@": "set"}, dataclasses {"@": their name}.


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        assert type(value).__name__ in _VALUES, type(value)
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"@": type(value).__name__, **named}
    if isinstance(value, frozenset):
        return {"@": "set", "items": sorted(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return _without_passwords(value) if isinstance(value, str) else value


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_value(each) for each in plain)
    if not isinstance(plain, dict):
        return plain
    kind = plain.pop("@")
    if kind == "set":
        return frozenset(plain["items"])
    return _VALUES[kind](**{name: _value(each) for name, each in plain.items()})


def _mapped(value: Any, change: Any) -> Any:
    """Give the value with `change` done to every XML document in it."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{
            field.name: _mapped(getattr(value, field.name), change) for field in fields(value)
        })
    if isinstance(value, tuple):
        return tuple(_mapped(each, change) for each in value)
    return change(value) if isinstance(value, str) and _is_document(value) else value


def _is_document(text: str) -> bool:
    return text.startswith("<")


def _without_passwords(text: str) -> str:
    if not _is_document(text) or "passwd" not in text:
        return text
    root = parse_xml(text)
    for graphics in root.iter("graphics"):
        for name in _SECRETS:
            if name in graphics.attrib:
                del graphics.attrib[name]
    return to_text(root)
