"""Two machines' hardware becomes the list of their differences.

Devices are matched by their place; what is left over on both sides, of one
kind, has moved. A difference that libvirt makes in every domain, and that no
XML can take away, is a row of EXPECTED with its reason; it is listed apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from virtsnap.verify.hardware import KINDS, LETTERS, Device, Hardware


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that differs. `argv` and `domain` are the values on the two sides, None where there is none.

    `reason` is set where the difference is expected.
    """

    subject: str
    where: str
    argv: str | None
    domain: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs, and what was expected to."""

    differences: tuple[Difference, ...]
    expected: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether a guest sees the same hardware."""
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class ExpectedRow:
    """A difference that libvirt always makes: how to know it, and why it is so."""

    applies: Callable[[Difference], bool]
    reason: str


def _only_halt(difference: Difference) -> bool:
    return difference.subject == "boot order" and difference.argv is None and difference.domain == "HALT"


_NO_UUID = "0" * 32


def _uuid_of_nobody(difference: Difference) -> bool:
    """Tell whether SMBIOS type 1 differs in the UUID alone, and argv named none. (UUID: bytes 4 to 20 of it.)"""
    if difference.subject != "SMBIOS" or difference.where != "type 1 #1" or not difference.argv:
        return False
    if difference.domain is None or len(difference.argv) < 40 or difference.argv[8:40] != _NO_UUID:
        return False
    return difference.argv[:8] + difference.argv[40:] == difference.domain[:8] + difference.domain[40:]


def _screens_of_qxl(difference: Difference) -> bool:
    """Tell whether a QXL card has libvirt's one screen where argv sets no limit."""
    at_qxl = difference.subject == "device" and difference.where.startswith("qxl")
    return at_qxl and difference.where.endswith(": max_outputs") and difference.argv == "0"


EXPECTED: tuple[ExpectedRow, ...] = (
    ExpectedRow(
        applies=_only_halt, reason="libvirt always adds -boot strict=on: firmware stops after the listed devices"
    ),
    ExpectedRow(applies=_uuid_of_nobody, reason="argv names no UUID, and a domain always has one"),
    ExpectedRow(
        applies=_screens_of_qxl, reason="libvirt always says how many screens a QXL card has, one at least"
    ),
)


def compare_hardware(argv: Hardware, domain: Hardware) -> Comparison:
    """Compare what argv gave with what the domain gave."""
    has_cd = any(device.driver.endswith("-cd") for device in argv.devices)
    found = [*_facts(argv.facts, domain.facts, has_cd), *_devices(argv.devices, domain.devices)]
    differences, expected = [], []
    for difference in found:
        if difference.reason is not None:
            expected.append(difference)
            continue
        row = next((row for row in EXPECTED if row.applies(difference)), None)
        if row is None:
            differences.append(difference)
        else:
            expected.append(replace(difference, reason=row.reason))
    return Comparison(differences=tuple(differences), expected=tuple(expected))


_LETTERS_BECOME_DEVICES = (
    "argv has no bootindex: firmware follows -boot's letters; libvirt lists the devices of these letters instead"
)
_AFTER_THE_KERNEL = "firmware starts the kernel that it was given, and tries nothing after it"
_LETTERS_UNUSED = "firmware follows the list of devices; libvirt leaves -boot's letters at their default"


def _boot_order(ours: Mapping[str, str], theirs: Mapping[str, str], has_cd: bool) -> Iterator[Difference]:
    """Compare lists of devices; -boot's letters are compared with the kinds of the devices listed for them."""
    named = (LETTERS, KINDS)
    ours_listed = {name: path for name, path in ours.items() if name not in named}
    theirs_listed = {name: path for name, path in theirs.items() if name not in named}
    letters, kinds = ours.get(LETTERS, ""), theirs.get(KINDS, "")
    if ours_listed:
        for difference in _values("boot order", "", ours_listed, theirs_listed):
            # The ROM of a direct kernel boot never gives control back.
            after_kernel = difference.argv is None and ours_listed.get("1", "").startswith("/rom@genroms/")
            yield replace(difference, reason=_AFTER_THE_KERNEL if after_kernel else None)
        if letters != theirs.get(LETTERS, ""):
            yield Difference(
                subject="boot order", where=LETTERS, argv=letters, domain=theirs.get(LETTERS),
                reason=_LETTERS_UNUSED,
            )
    elif theirs_listed:
        # What the letters do not name comes last, in any order: SeaBIOS tries it all the same.
        wanted = [letter for letter in letters if letter in kinds or (letter == "d" and has_cd)]
        follows = list(kinds)[: len(wanted)] == wanted
        yield Difference(
            subject="boot order", where=LETTERS, argv=letters, domain=" ".join(theirs_listed.values()),
            reason=_LETTERS_BECOME_DEVICES if follows else None,
        )
    elif letters != theirs.get(LETTERS, ""):
        yield Difference(subject="boot order", where=LETTERS, argv=letters, domain=theirs.get(LETTERS))


def _facts(
    argv: Mapping[str, Mapping[str, str]], domain: Mapping[str, Mapping[str, str]], has_cd: bool
) -> Iterator[Difference]:
    for subject in [*argv, *(name for name in domain if name not in argv)]:
        if subject == "PCI":
            continue  # comes last: it says once more what the devices say
        if subject == "boot order":
            yield from _boot_order(argv.get(subject, {}), domain.get(subject, {}), has_cd)
            continue
        yield from _values(subject, "", argv.get(subject, {}), domain.get(subject, {}))
    ours, theirs = argv.get("PCI", {}), domain.get("PCI", {})
    yield from _values("PCI", "", ours, theirs)


def _values(subject: str, where: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Difference]:
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if ours.get(name) != theirs.get(name):
            yield Difference(
                subject=subject, where=f"{where}{name}", argv=ours.get(name), domain=theirs.get(name)
            )


def _devices(ours: tuple[Device, ...], theirs: tuple[Device, ...]) -> Iterator[Difference]:
    at_ours, at_theirs = _by_place(ours), _by_place(theirs)
    left = [d for place, d in at_ours.items() if place not in at_theirs or at_theirs[place].driver != d.driver]
    right = [d for place, d in at_theirs.items() if place not in at_ours or at_ours[place].driver != d.driver]
    surplus = list(right)
    for place, device in at_ours.items():
        other = at_theirs.get(place)
        if other is not None and other.driver == device.driver:
            yield from _values("device", f"{device.driver} at {place}: ", device.properties, other.properties)
    for device in left:
        if _below_one_of(device, left):
            continue
        match = _best_match(device, [d for d in right if not _below_one_of(d, surplus)])
        if match is None:
            yield Difference(subject="device", where=device.driver, argv=f"at {device.place}", domain=None)
            continue
        right.remove(match)
        yield Difference(
            subject="device", where=f"{device.driver}: place", argv=f"at {device.place}",
            domain=f"at {match.place}",
        )
        moved = {"addr", "port", "nr", "unit", "lun", "scsi-id", "channel"}
        yield from (
            difference
            for difference in _values("device", f"{device.driver} at {device.place}: ", device.properties,
                                      match.properties)
            if difference.where.rsplit(": ", 1)[-1] not in moved
        )
    for device in right:
        if not _below_one_of(device, surplus):
            yield Difference(subject="device", where=device.driver, argv=None, domain=f"at {device.place}")


def _by_place(devices: tuple[Device, ...]) -> dict[str, Device]:
    found: dict[str, Device] = {}
    for device in devices:
        place, number = device.place, 1
        while place in found:
            number += 1
            place = f"{device.place}#{number}"
        found[place] = device
    return found


def _below_one_of(device: Device, others: list[Device]) -> bool:
    """Tell whether a device sits on another one of the list: that one tells of both."""
    return any(
        device.place.startswith((f"{other.place}/", f"{other.place}:")) for other in others if other is not device
    )


def _best_match(device: Device, candidates: list[Device]) -> Device | None:
    """Find the device of the same kind that has most properties in common."""
    same = [other for other in candidates if other.driver == device.driver]
    return max(
        same, default=None,
        key=lambda other: sum(other.properties.get(k) == v for k, v in device.properties.items()),
    )
