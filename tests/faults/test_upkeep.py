"""check, check --deep, load --verify, gc, flatten and doctor, on a guest with two snapshots."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

import virtsnap
from tests.faults.guest_with_two import GuestWithTwo
from tests.host.test_save_and_load import digest, disk_files, own_files, put, tokens
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.chains import read_chain
from virtsnap.host.local_files import LocalFiles
from virtsnap.snapshots.catalog import Facts


def facts_of(two: GuestWithTwo, name: str) -> Facts:
    facts, = (snapshot.facts for snapshot in two.domain.snapshots() if snapshot.name == name)
    assert facts is not None
    return facts


def chain_of(two: GuestWithTwo) -> list[str]:
    top, = disk_files(two.guest, live=False)[:1]
    return [layer.path for layer in read_chain(LocalFiles(), top, "qcow2")]


def flip_a_bit(path: str) -> None:
    """Change one bit in the midst of a file, and leave size and times as they were."""
    before = Path(path).stat()
    with Path(path).open("r+b") as stream:
        stream.seek(before.st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 4]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_flipped_bit_is_found_by_check_deep_and_by_load_verify(two: GuestWithTwo, where: str) -> None:
    code, said = two.command("check", two.guest.name, "--deep")
    assert code == 0, said
    assert "3 recorded" in said or "0 recorded" in said
    facts = facts_of(two, "b")
    assert facts.memory is not None
    victim = facts.memory.path if where == "memory" else facts.disks[0].frozen.path
    number = two.guest.domain.ID()
    flip_a_bit(victim)
    try:
        assert two.command("check", two.guest.name)[0] == 0
        code, said = two.command("check", two.guest.name, "--deep")
        assert (code, f"b: {victim} does not hold what it held" in said) == (1, True), said
        code, said = two.command("load", two.guest.name, "b", "--verify")
        assert (code, "does not hold what it held" in said) == (8, True), said
        assert two.guest.domain.ID() == number
    finally:
        flip_a_bit(victim)
    two.domain.load_snapshot("b", verify=True)
    assert tokens(two.guest) == ("b", "b")


def test_digests_can_be_recorded_by_the_save(two: GuestWithTwo) -> None:
    with pytest.raises(UnsupportedError, match="no digests are recorded"):
        two.domain.load_snapshot("b", verify=True)
    code, said = two.command("save", two.guest.name, "b", "--digests", "--durable")
    assert code == 0, said
    two.domain.load_snapshot("b", verify=True)
    assert tokens(two.guest) == ("now", "now")


def test_check_names_what_is_in_the_way_and_which_snapshot_is_not_whole(two: GuestWithTwo) -> None:
    memory = facts_of(two, "b").memory
    assert memory is not None
    Path(memory.path).rename(f"{memory.path}.away")
    code, said = two.command("--json", "check", two.guest.name)
    Path(f"{memory.path}.away").rename(memory.path)
    answer = json.loads(said)
    assert (code, answer["good"], answer["obstacles"]) == (1, False, [])
    problems = {each["name"]: each["problems"] for each in answer["snapshots"]}
    assert problems["a"] == []
    assert "is missing" in problems["b"][0]
    code, said = two.command("check", two.guest.name)
    assert (code, "can be saved" in said) == (0, True)


def test_gc_removes_what_nothing_refers_to_and_nothing_else(two: GuestWithTwo) -> None:
    folder = next(two.guest.folder.glob("virtsnap-*"))
    mine = folder / "0000000a.mem"
    mine.write_bytes(b"x" * 10_000)
    foreign = folder / "notes.txt"
    foreign.write_text("keep me")
    vanished = two.guest.folder / f"virtsnap-{uuid.uuid4()}"
    vanished.mkdir()
    (vanished / "0000000b-vda.qcow2").write_bytes(b"x" * 10_000)
    before = own_files(two.guest)
    code, said = two.command("gc", "--dry-run")
    assert (code, "2 files would be removed" in said) == (0, True), said
    assert own_files(two.guest) == before
    code, said = two.command("gc", two.guest.name)
    assert (code, "1 files were removed" in said) == (0, True), said
    code, said = two.command("gc")
    assert (code, "1 files were removed" in said) == (0, True), said
    assert not mine.exists()
    assert not vanished.exists()
    assert foreign.read_text() == "keep me"
    foreign.unlink()
    two.assert_all_load({"a": "a", "b": "b"})


@pytest.mark.parametrize("power", ["running", "off"])
def test_flatten_shortens_the_chain_and_leaves_the_snapshots_byte_by_byte(two: GuestWithTwo, power: str) -> None:
    for number in range(4):
        put(two.guest, f"s{number}")
        two.domain.save_snapshot(f"s{number}")
    put(two.guest, "now")
    files = {path for name in two.names() for path in facts_of(two, name).files}
    before = {path: digest(Path(path)) for path in files}
    if power == "off":
        two.guest.domain.destroy()
    code, said = two.command("flatten", two.guest.name)
    assert code == 0, said
    assert two.domain.plan_flatten().steps == ()
    assert {path: digest(Path(path)) for path in files} == before
    assert str(two.guest.disks[0]) in chain_of(two)
    if power == "off":
        two.guest.domain.create()
        two.guest.console.wait_disk()
        assert two.guest.console.check("cat /mnt/token") == "now"
    else:
        assert tokens(two.guest) == ("now", "now")
    assert disk_files(two.guest, live=True) == disk_files(two.guest, live=False)
    two.assert_all_load({"a": "a", "b": "b", **{f"s{number}": f"s{number}" for number in range(4)}})


def test_flatten_removes_layers_that_no_snapshot_needs(two: GuestWithTwo) -> None:
    two.domain.remove_snapshot("a")
    two.domain.remove_snapshot("b")
    put(two.guest, "on")
    two.domain.flatten()
    assert tokens(two.guest) == ("on", "on")
    assert len(own_files(two.guest)) == 1
    two.domain.save_snapshot("c")
    put(two.guest, "wrong")
    two.domain.load_snapshot("c")
    assert tokens(two.guest) == ("on", "on")


def test_a_killed_flatten_is_finished(two: GuestWithTwo) -> None:
    code, _ = two.command("flatten", two.guest.name, kill=("after", 1))
    assert code == -9
    code, said = two.command("recover", two.guest.name)
    assert (code, "the interrupted flatten" in said, "finished" in said) == (0, True, True), said
    assert tokens(two.guest) == ("now", "now")
    two.assert_all_load({"a": "a", "b": "b"})


def test_doctor_finds_this_host_fit(two: GuestWithTwo) -> None:
    code, said = two.command("--json", "doctor", "--dir", str(two.guest.folder))
    answer = json.loads(said)
    assert (code, answer["fit"]) == (0, True), said
    assert {"libvirt", "QEMU", "qemu-img", "KVM", "folder", "reflinks", "instant"} <= {
        finding["about"] for finding in answer["findings"]
    }
    code, said = two.command("-c", "qemu+unix:///system?socket=/nonexistent", "doctor")
    assert (code, "cannot connect" in said) == (1, True)


def test_a_missing_base_is_what_check_says(two: GuestWithTwo) -> None:
    base = two.guest.disks[0]
    away = base.with_name("away")
    base.rename(away)
    with pytest.raises(HypervisorError, match="no such file"), virtsnap.connect(two.guest.uri) as host:
        host.domain(two.guest.name).load_snapshot("b")
    code, said = two.command("check", two.guest.name)
    away.rename(base)
    assert code == 1
    assert "chain that is not whole" in said
