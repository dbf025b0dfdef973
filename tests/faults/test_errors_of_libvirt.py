"""libvirt answers an error at any single call: each index once, for save, replacing save, load and rm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.guest_with_two import GuestWithTwo
from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host import Domain, Host

# More than an operation has: the rest finds that out and ends.
MOST_CALLS = {"save c": 36, "save b": 48, "load a": 56, "rm a": 24}
SAMPLE = {("save b", 20), ("load a", 22), ("load a", 30)}
CALLS = [
    pytest.param(words, index, id=f"{words.replace(' ', '-')}-{index}",
                 marks=() if (words, index) in SAMPLE else pytest.mark.whole)
    for words, most in MOST_CALLS.items() for index in range(most)
]


class Refusing:
    """Makes the call of one index to libvirt fail, before it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
        self.index, self.seen, self.refused = index, 0, ""
        for kind in (Domain, Host):
            for name, member in vars(kind).items():
                if callable(member) and not name.startswith("_") and name != "close":
                    monkeypatch.setattr(kind, name, self._wrapped(f"{kind.__name__}.{name}", member))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **named: Any) -> Any:
            self.seen += 1
            if self.seen - 1 == self.index:
                self.refused = name
                raise HypervisorError(f"injected at call {self.index}, {name}")
            return real(*args, **named)

        return call


@pytest.mark.parametrize(("words", "index"), CALLS)
def test_an_error_at_any_call(two: GuestWithTwo, words: str, index: int) -> None:
    verb, name = words.split()
    do: dict[str, Callable[[str], object]] = {
        "save": two.domain.save_snapshot, "load": two.domain.load_snapshot, "rm": two.domain.remove_snapshot,
    }
    failed: VirtsnapError | None = None
    with pytest.MonkeyPatch.context() as monkeypatch:
        refusing = Refusing(monkeypatch, index)
        try:
            do[verb](name)
        except VirtsnapError as exc:
            failed = exc
    code, said = two.command("recover", two.guest.name)
    assert code == 0, f"{failed}: {said}"
    expected = {"a": "a", "b": "b"}
    if failed is None or "was finished" in said:
        if verb == "save":
            expected[name] = "now"
        elif verb == "rm":
            del expected[name]
        else:
            del expected["b"]
    elif verb == "load" and not two.guest.domain.isActive():
        assert two.on_disk() == "now", refusing.refused
    assert two.disagreements() == [], refusing.refused
    if not two.guest.domain.isActive():
        two.guest.domain.create()
        two.guest.console.wait_disk(timeout_s=60)
    two.assert_all_load(expected)
