"""The argument of one option becomes properties: key=value with `,,`, bare words, dotted keys, JSON.

QEMU has three notations for the same thing, and this module makes them one
flat list: `cache.direct=on` and `{"cache": {"direct": true}}` both become the
key `cache.direct` with the value `on`; list elements get their index as a key
part (`server.0.host`). Rules: QEMU's util/qemu-option.c and util/keyval.c.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Property:
    """One key with its value, as text.

    `given` is False for what the spelling of the option implies (`-hda F` is
    `-drive` with media=disk) and so does not stand in argv.
    """

    key: str
    value: str
    given: bool = True


@dataclass(frozen=True, kw_only=True)
class Properties:
    """The properties of one option in their order; a key may come more than once, and the last one counts."""

    items: tuple[Property, ...] = ()
    json: bool = field(default=False)

    def get(self, key: str) -> str | None:
        """Give the value that QEMU would use for a key, or None."""
        for item in reversed(self.items):
            if item.key == key:
                return item.value
        return None

    def all(self, key: str) -> list[str]:
        """Give every value of a key, in order (hostfwd, guestfwd and the like repeat)."""
        return [item.value for item in self.items if item.key == key]

    def keys(self) -> list[str]:
        """Give the keys that stand in argv, in order."""
        return [item.key for item in self.items if item.given]

    def below(self, prefix: str) -> Properties:
        """Give the properties under `prefix.`, with that prefix taken off."""
        start = prefix + "."
        inner = tuple(
            Property(key=item.key.removeprefix(start), value=item.value, given=item.given)
            for item in self.items
            if item.key.startswith(start)
        )
        return Properties(items=inner, json=self.json)

    def __contains__(self, key: object) -> bool:
        return any(item.key == key for item in self.items)

    def __iter__(self) -> Iterator[Property]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class SyntaxFault(ValueError):
    """A text that QEMU's own parser would refuse; the caller names option and argument."""


def parse_json(text: str) -> Properties:
    """Read an argument in JSON; raises SyntaxFault unless it is one object."""
    try:
        document = json.loads(text, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as exc:
        raise SyntaxFault(f"not valid JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise SyntaxFault("the JSON is not an object")
    return Properties(items=tuple(_flatten(document, "")), json=True)


def parse_keyval(text: str, implied_key: str | None = None) -> Properties:
    """Read `key=value,flag,noflag,…`.

    The first word without `=` belongs to `implied_key` where the option has
    one. Other words without `=` are switches: `server` is server=on, `nowait`
    is wait=off. A doubled comma is a comma of the value.
    """
    items: list[Property] = []
    if text == "" and implied_key is None:
        return Properties()
    for number, word in enumerate(split_commas(text)):
        key, equals, value = word.partition("=")
        if not equals:
            if number == 0 and implied_key is not None:
                items.append(Property(key=implied_key, value=word))
                continue
            if not word:
                continue  # QEMU tolerates a comma at the end
            if word.startswith("no") and len(word) > 2:
                items.append(Property(key=word[2:], value="off"))
            else:
                items.append(Property(key=word, value="on"))
            continue
        if not key:
            raise SyntaxFault(f"a value without a key: {word!r}")
        items.append(Property(key=key, value=value))
    return Properties(items=tuple(items))


def split_commas(text: str) -> list[str]:
    """Split at commas; a doubled comma stands for one comma inside a word."""
    return [word.replace("\0", ",") for word in text.replace("\0", "").replace(",,", "\0").split(",")]


def join_commas(items: Properties | list[tuple[str, str]]) -> str:
    """Write properties back as `key=value,…` with commas doubled."""
    pairs = [(item.key, item.value) for item in items] if isinstance(items, Properties) else items
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in pairs)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} comes twice")
        found[key] = value
    return found


def _flatten(value: Any, path: str) -> Iterator[Property]:
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{path}.{index}")
    else:
        yield Property(key=path, value=_as_text(value))


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value in ({}, []):
        return ""
    return str(value)
