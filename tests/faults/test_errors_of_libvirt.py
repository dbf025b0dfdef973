"""libvirt answers an error at any single call: each index once, for each plan that changes something."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.guest_with_two import GuestWithTwo
from tests.host.test_save_and_load import tokens
from virtsnap.errors import HypervisorError, VirtsnapError
from virtsnap.host import Domain, Host
from virtsnap.host.monitor import Monitor
from virtsnap.snapshots.tree import SnapshotTree, connect_tree

# Verb and its words: the calls that it makes at most, on any host, and what it makes of the snapshots.
OPERATIONS: dict[str, tuple[int, Callable[[SnapshotTree], object], dict[str, str]]] = {
    "save c": (45, lambda vm: vm.save_snapshot("c"), {"a": "a", "b": "b", "c": "now"}),
    "save b": (63, lambda vm: vm.save_snapshot("b"), {"a": "a", "b": "now"}),
    "load a": (60, lambda vm: vm.load_snapshot("a"), {"a": "a"}),
    "rm a": (48, lambda vm: vm.remove_snapshot("a"), {"b": "b"}),
    "flatten": (41, lambda vm: vm.flatten(), {"a": "a", "b": "b"}),
    "snapshot-delete a --children": (
        50, lambda vm: vm.delete(vm.find("a", vm.catalog()), scope="tree"), {},
    ),
}
_TWO = {"a": "a", "b": "b"}
SAMPLE = {("save b", 20), ("load a", 22), ("load a", 30), ("flatten", 14)}
CALLS = [
    pytest.param(words, index, id=f"{words.replace(' ', '-')}-{index}",
                 marks=() if (words, index) in SAMPLE else pytest.mark.whole)
    for words, (most, _, _) in OPERATIONS.items() for index in range(most)
]


class Refusing:
    """Makes the call of one index to libvirt fail, before it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
        self.index, self.seen, self.refused = index, 0, ""
        for kind in (Domain, Host):
            for name, member in vars(kind).items():
                if callable(member) and not name.startswith("_") and name != "close":
                    monkeypatch.setattr(kind, name, self._wrapped(f"{kind.__name__}.{name}", member))
        monkeypatch.setattr(Monitor, "_ask", self._wrapped("Monitor", Monitor._ask))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **named: Any) -> Any:
            self.seen += 1
            if self.seen - 1 == self.index:
                self.refused = f"{name}{args[1:]}"
                raise HypervisorError(f"injected at call {self.index}, {name}")
            return real(*args, **named)

        return call


@pytest.mark.parametrize(("words", "index"), CALLS)
def test_an_error_at_any_call(two: GuestWithTwo, words: str, index: int) -> None:
    _, operate, left = OPERATIONS[words]
    failed: VirtsnapError | None = None
    with pytest.MonkeyPatch.context() as monkeypatch, connect_tree(two.guest.uri) as host:
        vm = host.tree(two.guest.name)
        refusing = Refusing(monkeypatch, index)
        try:
            operate(vm)
        except VirtsnapError as exc:
            failed = exc
    code, said = two.command("recover", two.guest.name)
    assert code == 0, f"{failed}: {said}"
    done = failed is None or "was finished" in said
    if not done and not two.guest.domain.isActive():
        assert words == "load a", refusing.refused
        assert two.on_disk() == "now", refusing.refused
    expected = left if done else _TWO
    assert two.disagreements() == [], refusing.refused
    if two.is_untouched():
        assert not done
        assert tokens(two.guest) == ("now", "now")
        return
    two.assert_all_load(expected)


@pytest.mark.parametrize("words", OPERATIONS)
def test_every_call_is_in_the_matrix(two: GuestWithTwo, words: str) -> None:
    most, operate, left = OPERATIONS[words]
    with pytest.MonkeyPatch.context() as monkeypatch, connect_tree(two.guest.uri) as host:
        vm = host.tree(two.guest.name)
        refusing = Refusing(monkeypatch, -1)
        operate(vm)
    assert refusing.seen <= most, f"{words} makes {refusing.seen} calls"
    assert two.names() == left.keys()
