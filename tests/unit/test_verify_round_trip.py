"""Two command lines in the same terms differ in hardware, not in notation."""

from __future__ import annotations

import re
import shlex

import pytest

from virtsnap.verify.round_trip import SYSTEMATIC, Change, compare_round_trip, read_terms


def changes(ours: str, theirs: str) -> list[Change]:
    return list(compare_round_trip(["qemu-system-x86_64", *shlex.split(ours)],
                                   ["/usr/bin/qemu-system-x86_64", *shlex.split(theirs)]))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("-nodefaults -M pc,accel=tcg", "-nodefaults -machine pc -accel tcg"),
        ("-nodefaults -m 1G", "-nodefaults -m size=1048576k"),
        ("-nodefaults -cpu qemu64,+avx,-sse4.2", "-nodefaults -cpu qemu64,avx=on,sse4-2=off"),
        ("-nodefaults -smp sockets=2,cores=2", "-nodefaults -smp cpus=4,sockets=2,cores=2"),
        ("-nodefaults -device virtio-net,netdev=a,mac=52:54:00:AA:00:01 -netdev user,id=a",
         """-nodefaults -device '{"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0",
            "mac":"52:54:00:aa:00:01","bus":"pci.0","addr":"0x2"}'"""),
        ("-nodefaults -vga std -nic user,model=e1000", "-nodefaults -device VGA,id=video0 -device e1000,id=net0"),
        ("-nodefaults -drive if=virtio,file=/a", "-nodefaults -device virtio-blk-pci,drive=x"),
        ("-nodefaults -cdrom /a", "-nodefaults -device ide-cd,bus=ide.1"),
        ("", "-nodefaults -device VGA -device e1000"),
    ],
)
def test_notation_is_no_change(ours: str, theirs: str) -> None:
    assert changes(ours, theirs) == []


def test_lost_device_and_changed_property_are_told() -> None:
    ours = "-nodefaults -device i6300esb -device e1000,mac=52:54:00:00:00:01"
    theirs = "-nodefaults -device e1000,mac=52:54:00:00:00:02"
    assert changes(ours, theirs) == [
        Change(subject="device", where="e1000: mac", argv="52:54:00:00:00:01", libvirt="52:54:00:00:00:02"),
        Change(subject="device", where="i6300esb", argv="present", libvirt=None),
    ]


def test_what_libvirt_always_does_carries_its_reason() -> None:
    (found,) = changes("-nodefaults -M pc", "-nodefaults -machine pc,usb=off")
    assert found.reason
    (version,) = changes("-nodefaults -M q35", "-nodefaults -machine pc-q35-7.2")
    assert version.reason
    (machine,) = changes("-nodefaults -M q35", "-nodefaults -machine pc-i440fx-7.2")
    assert machine.reason is None
    (lost,) = changes("-nodefaults -cpu qemu64,+avx", "-nodefaults -cpu qemu64")
    assert lost.reason is None


def test_every_systematic_row_can_be_matched_and_explains_itself() -> None:
    for row in SYSTEMATIC:
        re.compile(row.pattern)
        assert row.reason
        assert row.side in {"added", "lost", "changed"}
        assert row.subject in {"device", *read_terms(["qemu-system-x86_64"]).heads}
