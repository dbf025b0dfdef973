"""The tables of the converter: a row for each key of QEMU. Those for each device are in `device_row`.

A row is the single source of what is supported: it converts, it is what
`--explain` prints, and a test asserts that a golden case hits it. To support
one more property of a device, add a Key here, a hole in the device's template,
and a golden case; the three share the hole's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.values import fits_one_line, same

Version = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One property of QEMU and where it stands in the domain.

    `key` is QEMU's name, `hole` the template's hole. `read` turns QEMU's value
    into libvirt's: None means that the domain has it anyway (outcome implied),
    NotSayable that libvirt has no word for it (passed through). `since` is the
    first libvirt that knows the hole. With hole None the key says nothing that
    the domain does not have: `outcome` and `note` stand in the report. With
    `when` the row is for those values only, another row of the same key for the others. `needs` is a hole
    of an earlier row without which libvirt has no place for this one.
    """

    key: str
    hole: str | None
    read: Callable[[str], str | None] = same
    since: Version = (0, 0)
    outcome: Outcome = Outcome.MAPPED
    note: str | None = None
    when: Callable[[str], bool] | None = None
    needs: str | None = None

    def read_line(self, value: str) -> str | None:
        """Read a value for the hole; NotSayable too for a text of several lines, for which no hole has room."""
        text = self.read(value)
        if text is not None and not fits_one_line(text):
            raise NotSayable("it has a line break")
        return text


def read_keys(word: Word, keys: Sequence[Key], target: Version) -> dict[str, str | None]:
    """Take every key of the table that a word says; give the holes' values.

    A key that the target libvirt does not know yet stays unclaimed. Of two
    keys for one hole, the later row wins where both are said.
    """
    holes: dict[str, str | None] = {}
    for row in keys:
        if not word.has(row.key) or target < row.since:
            continue
        if row.needs is not None and holes.get(row.needs) is None:
            continue
        if row.when is not None and not row.when(word.peek(row.key) or ""):
            continue
        if row.hole is None:
            if row.read is same:
                outcome = Outcome.IMPLIED if row.outcome is Outcome.MAPPED else row.outcome
                word.claim(row.key, outcome, row.note)
            else:
                word.take_read(row.key, row.read)
            continue
        value = word.take_read(row.key, row.read_line)
        if value is not None:
            holes[row.hole] = value
            if row.outcome is not Outcome.MAPPED or row.note:
                word.claim(row.key, row.outcome, row.note)
    return holes


VIRTIO_SUFFIXES = ("-pci", "-ccw", "-device", "-pci-transitional", "-pci-non-transitional")


def virtio(base: str, *more: str) -> tuple[str, ...]:
    """Give the names of a virtio device on every bus: `virtio-blk`, `virtio-blk-pci`, `virtio-blk-ccw` …"""
    return (base, *(base + suffix for suffix in VIRTIO_SUFFIXES), *more)


def virtio_model(driver: str) -> str:
    """Give libvirt's model word of a virtio driver: virtio, or its transitional kinds."""
    if driver.endswith("-pci-non-transitional"):
        return "virtio-non-transitional"
    if driver.endswith("-pci-transitional"):
        return "virtio-transitional"
    return "virtio"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The keys of one kind of option that is not a -device, under a name for `--explain` and for the tests.

    It holds for options of `group` whose key `selector[0]` has the value
    `selector[1]` (None: for all of the group).
    """

    group: str
    keys: tuple[Key, ...]
    selector: tuple[str, str] | None = None

    def holds_for(self, word: Word) -> bool:
        """Tell whether a word is of this kind."""
        if word.group != self.group:
            return False
        return self.selector is None or word.peek(self.selector[0]) == self.selector[1]
