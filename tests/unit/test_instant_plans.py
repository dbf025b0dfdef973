"""What a save and a load by `instant` do, in which order, and what a recovery makes of one that was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from lxml import etree
from pytest_mock import MockerFixture

from tests.unit.snapshot_samples import BASE, FOLDER, domain_xml, facts, overlay, snapshot_xml, view
from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.ram_file import RamFile, move_ram, read_ram_file, with_ram_in_file
from virtsnap.errors import UnsupportedError
from virtsnap.host import Domain
from virtsnap.host.local_files import LocalFiles
from virtsnap.snapshots import recover
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import Facts, SavedMemory, Snapshot, read_catalog, to_text, with_facts
from virtsnap.snapshots.engines import choose_engine
from virtsnap.snapshots.engines.instant import InstantSave, moves_changes, obstacle
from virtsnap.snapshots.journal import Journal, journal_element, read_journal
from virtsnap.snapshots.origin import Origin, origin_in_snapshot, read_origin, set_origin
from virtsnap.snapshots.plan import LoadRequest, SaveRequest, plan_load, plan_remove, plan_save
from virtsnap.snapshots.view import View

RAM = f"{FOLDER}/00000001.ram"
SHARED = InstantSave(ram_path="/dev/shm", size_bytes=4096, is_read_only=True)
COOKIE = "<cookie><cpu/></cookie>"
ORIGIN = Origin(ram=SavedMemory(path=RAM, size_bytes=4096, mtime_ns=9, digest="0a"), cookie=COOKIE)
CHANGED = replace(SHARED, ram_path=RAM, is_private=True, origin=ORIGIN)


def in_file(xml: str, path: str = "/dev/shm", *, shared: bool = True) -> str:
    sized = xml.replace("<uuid>", "<memory unit='KiB'>4</memory><uuid>", 1)
    root = parse_xml(with_ram_in_file(sized))
    move_ram(root, path, is_shared=shared)
    return to_text(root)


def seen(path: str = "/dev/shm", *, shared: bool = True, state: str = "running") -> View:
    return replace(view(state=state), live_xml=in_file(domain_xml(), path, shared=shared),
                   persistent_xml=in_file(domain_xml()))


def save(of: View, instant: InstantSave | None) -> tuple[st.Step, ...]:
    request = SaveRequest(name="s", directory=None, description=None, token="000000aa", now_ns=1, instant=instant)
    return plan_save(request, of).steps


def kinds(steps: tuple[st.Step, ...]) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_a_shared_file_is_copied_before_the_pause_and_what_changed_since_in_it() -> None:
    steps = save(seen(), SHARED)
    assert kinds(steps)[2:] == ["BeginCopy", "LeaveRamOut", "PauseGuest", "TakeSnapshot", "CopyRam", "TakeRamIn",
                                "ResumeGuest", "PlaceRam", "RecordFacts"]
    begun, copied = steps[2], steps[6]
    assert isinstance(begun, st.BeginCopy)
    assert isinstance(copied, st.CopyRam)
    assert copied.path == begun.path
    placed, recorded = steps[-2:]
    assert isinstance(placed, st.PlaceRam)
    assert isinstance(recorded, st.RecordFacts)
    assert (placed.ram_path, placed.is_shared, placed.is_read_only) == (f"{FOLDER}/000000aa.ram", False, True)
    assert recorded.facts.engine == "instant"
    assert f"{FOLDER}/000000aa.ram" in recorded.facts.files


def test_a_paused_guest_stays_paused() -> None:
    steps = save(seen(state="paused"), SHARED)
    assert not {"PauseGuest", "ResumeGuest", "BeginCopy"} & set(kinds(steps))


def test_what_shares_blocks_is_written_out_before_the_pause() -> None:
    steps = save(seen(), replace(SHARED, shares_blocks=True))
    assert kinds(steps)[2:5] == ["FlushRam", "LeaveRamOut", "PauseGuest"]


def test_of_private_pages_the_changed_ones_are_saved_where_the_load_said_of_what() -> None:
    steps = save(seen(RAM, shared=False), CHANGED)
    assert kinds(steps)[2:] == ["PauseGuest", "SaveChanges", "TakeSnapshot", "ResumeGuest", "RecordSnapshot",
                                "PlaceRam", "RecordFacts"]
    absent, changes, take, recorded, placed, facts_of_it = (steps[n] for n in (1, 3, 4, 6, 7, 8))
    assert isinstance(absent, st.RequireAbsent)
    assert isinstance(changes, st.SaveChanges)
    assert isinstance(take, st.TakeSnapshot)
    assert isinstance(recorded, st.RecordSnapshot)
    assert isinstance(placed, st.PlaceRam)
    assert isinstance(facts_of_it, st.RecordFacts)
    memory = f"{FOLDER}/000000aa.mem"
    assert (changes.memory_path, changes.ram_path, changes.cookie) == (memory, RAM, ORIGIN.cookie)
    assert memory in absent.paths
    assert RAM not in absent.paths
    # libvirt puts the overlays on and remembers nothing; what it would have remembered is recorded by us
    assert (take.memory_path, take.asked) == (None, frozenset({"no-metadata"}))
    assert parse_xml(take.xml).find("memory[@snapshot='no']") is not None
    assert parse_xml(recorded.request).find("memory[@snapshot='external']") is not None
    assert (recorded.memory_path, recorded.cookie, placed.ram_path) == (memory, ORIGIN.cookie, RAM)
    assert facts_of_it.facts.ram == ORIGIN.ram
    assert facts_of_it.facts.engine == "instant"
    assert facts_of_it.facts.own_files == (memory,)
    assert RAM in facts_of_it.facts.files


def test_too_many_changes_are_moved_into_a_file_of_the_snapshots_own() -> None:
    steps = save(seen(RAM, shared=False), replace(CHANGED, moves_changes=True))
    assert kinds(steps)[5:7] == ["ResumeGuest", "SplitRam"]
    split, placed, recorded = steps[6], steps[8], steps[9]
    assert isinstance(split, st.SplitRam)
    assert isinstance(placed, st.PlaceRam)
    assert isinstance(recorded, st.RecordFacts)
    own = f"{FOLDER}/000000aa.ram"
    assert (split.base_path, split.path, placed.ram_path) == (RAM, own, own)
    assert own in recorded.facts.own_files
    assert RAM not in recorded.facts.files


def test_what_is_too_many() -> None:
    mib = 1 << 20
    assert not moves_changes(64 * mib, held_bytes=100 * mib)
    assert moves_changes(65 * mib, held_bytes=100 * mib)
    assert not moves_changes(500 * mib, held_bytes=4096 * mib)
    assert moves_changes(513 * mib, held_bytes=4096 * mib)


def test_a_paused_guest_with_private_pages_stays_paused() -> None:
    steps = save(seen(RAM, shared=False, state="paused"), CHANGED)
    assert kinds(steps)[2:] == ["SaveChanges", "TakeSnapshot", "RecordSnapshot", "PlaceRam", "RecordFacts"]
    assert steps[4].state == "paused"  # type: ignore[attr-defined]


def test_without_a_word_of_the_load_private_pages_are_moved_out_of_the_image() -> None:
    steps = save(seen(RAM, shared=False), replace(SHARED, ram_path=RAM, is_private=True))
    assert kinds(steps)[2:] == ["PopulateRam", "TakeSnapshot", "SplitRam", "PlaceRam", "RecordFacts"]
    paused = save(seen(RAM, shared=False, state="paused"), replace(SHARED, ram_path=RAM, is_private=True))
    assert kinds(paused)[2:] == ["TakeSnapshot", "SplitRam", "PlaceRam", "RecordFacts"]


def test_an_image_with_all_ram_in_it_does_not_lean_on_another_snapshots_file() -> None:
    assert kinds(save(seen(), None))[2:] == ["TakeSnapshot", "RecordFacts"]
    steps = save(seen(RAM, shared=False), None)
    placed = steps[-2]
    assert isinstance(placed, st.PlaceRam)
    assert (placed.ram_path, placed.is_shared) == ("/dev/shm", True)
    assert steps[-1].facts.engine == "libvirt"  # type: ignore[attr-defined]


@pytest.mark.parametrize("instant", [SHARED, replace(CHANGED, moves_changes=True)])
def test_every_step_goes_through_the_journal(instant: InstantSave) -> None:
    request = SaveRequest(name="s", directory=None, description=None, token="000000aa", now_ns=1, instant=instant)
    plan = plan_save(request, seen())
    root = parse_xml("<domain><metadata/></domain>")
    root[0].append(journal_element(Journal(plan=plan, begun=4)))
    assert read_journal(to_text(root)) == Journal(plan=plan, begun=4)


def journals(plan: st.Plan) -> Iterator[tuple[int, Journal]]:
    """Give the journal that a process leaves which is killed at a step, for each of them."""
    begun = plan.reach(0)
    for number, step in enumerate(plan.steps):
        if step.is_noted:
            begun = plan.reach(number + 1)
        yield number, Journal(plan=plan, begun=begun)


@pytest.mark.parametrize("instant", [SHARED, replace(SHARED, ram_path=RAM, is_private=True)])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_save_is_finished_where_the_ram_was_copied_and_then_no_step_is_left_out(
    instant: InstantSave, is_there: bool, mocker: MockerFixture
) -> None:
    request = SaveRequest(name="s", directory=None, description=None, token="000000aa", now_ns=1, instant=instant)
    plan = plan_save(request, seen(RAM, shared=False) if instant.is_private else seen())
    mocker.patch.object(recover, "_is_complete", return_value=True)
    files = mocker.MagicMock(spec=LocalFiles, **{"exists.return_value": is_there})
    decisive = kinds(plan.steps).index("TakeSnapshot" if instant.is_private else "TakeRamIn")
    for number, journal in journals(plan):
        rest = recover.steps_to_finish(journal, mocker.MagicMock(spec=Domain), files)
        if number < decisive or not (is_there or instant.is_private):
            assert rest is None, number
        else:
            assert rest is not None, number
            ahead = plan.steps[max(number, kinds(plan.steps).index("TakeSnapshot") + 1):]
            assert rest[-len(ahead):] == ahead, number
            assert "CopyRam" not in kinds(rest)


@pytest.mark.parametrize("moves", [True, False])
def test_a_save_of_changes_is_finished_once_libvirt_knows_the_snapshot(moves: bool, mocker: MockerFixture) -> None:
    instant = replace(CHANGED, moves_changes=moves)
    request = SaveRequest(name="s", directory=None, description=None, token="000000aa", now_ns=1, instant=instant)
    plan = plan_save(request, seen(RAM, shared=False))
    files = mocker.MagicMock(spec=LocalFiles)
    recorded = kinds(plan.steps).index("RecordSnapshot")
    for number, journal in journals(plan):
        for is_known in (False, True):
            mocker.patch.object(recover, "_is_complete", return_value=is_known)
            rest = recover.steps_to_finish(journal, mocker.MagicMock(spec=Domain), files)
            if not is_known or number < kinds(plan.steps).index("TakeSnapshot"):
                assert rest is None, number
            elif number > recorded:
                assert rest is not None, number
                assert rest[-len(plan.steps[number:]):] == plan.steps[number:]
                assert not {"SaveChanges", "TakeSnapshot"} & set(kinds(rest))


def test_the_origin_is_told_where_the_ram_is_mapped_privately_and_survives_libvirt() -> None:
    record = snapshot_xml(1, "a", parent=None, chain=[BASE])
    record = record.replace("</domainsnapshot>", f"{COOKIE}</domainsnapshot>")
    origin = origin_in_snapshot(ORIGIN.ram, record)
    assert origin == ORIGIN
    for told in (origin, replace(origin, cookie=None, ram=replace(origin.ram, digest=None))):
        domain = parse_xml(domain_xml())
        set_origin(domain, told)
        assert read_origin(parse_xml(etree.tostring(domain, pretty_print=True).decode())) == told
    assert read_origin(parse_xml(domain_xml())) is None
    damaged = etree.tostring(domain).decode().replace('bytes="4096"', 'bytes="-"')
    assert read_origin(parse_xml(damaged)) is None
    for shares_blocks in (False, True):
        steps = load(with_an_instant_one(), shares_blocks=shares_blocks)
        (restore,) = (step for step in steps if isinstance(step, st.RestoreMemory))
        found = read_origin(parse_xml(restore.xml))
        assert (None if found is None else found.ram) == (None if shares_blocks else instant_facts().ram)
        (define,) = (step for step in steps if isinstance(step, st.DefineDomain))
        assert "urn:virtsnap:origin" not in define.xml


def instant_facts() -> Facts:
    return replace(facts(1, "a", [BASE]), ram=SavedMemory(path=RAM, size_bytes=4096, mtime_ns=9))


def with_an_instant_one() -> View:
    xml = with_facts(snapshot_xml(1, "a", parent=None, chain=[BASE]), instant_facts())
    return replace(view(read_catalog([(xml, True)]), chain=[overlay(1), BASE]),
                   live_xml=in_file(domain_xml(overlay(1))))


def load(of: View, *, shares_blocks: bool) -> tuple[st.Step, ...]:
    request = LoadRequest(name="a", final="running", keep_newer=False, token="000000bb", now_s=1,
                          shares_blocks=shares_blocks)
    saved = in_file(domain_xml(), RAM, shared=False)
    engine = choose_engine((9, 0), facts=instant_facts())
    return plan_load(request, of, facts=instant_facts(), saved_xml=saved, engine=engine).steps


@pytest.mark.parametrize(("shares_blocks", "expected"), [
    (False, RamFile(path=RAM, is_shared=False, size_bytes=4096)),
    (True, RamFile(path=f"{FOLDER}/000000bb.ram", is_shared=True, size_bytes=4096)),
])
def test_a_load_maps_the_copy_or_a_file_of_its_own_with_the_copys_blocks(
    shares_blocks: bool, expected: RamFile
) -> None:
    steps = load(with_an_instant_one(), shares_blocks=shares_blocks)
    (restore,) = (step for step in steps if isinstance(step, st.RestoreMemory))
    assert read_ram_file(parse_xml(restore.xml)) == expected
    assert ("CloneRam" in kinds(steps)) == shares_blocks


def test_the_facts_survive_the_snapshot_object() -> None:
    (found,) = with_an_instant_one().catalog.snapshots
    assert isinstance(found, Snapshot)
    assert found.facts == instant_facts()


def test_rm_removes_the_ram_too_unless_the_guest_runs_on_it() -> None:
    of = with_an_instant_one()
    (removed,) = plan_remove("a", of).afterwards
    assert isinstance(removed, st.RemoveFiles)
    assert RAM in removed.paths
    running_on_it = replace(of, live_xml=in_file(domain_xml(overlay(1)), RAM, shared=False))
    (removed,) = plan_remove("a", running_on_it).afterwards
    assert isinstance(removed, st.RemoveFiles)
    assert RAM not in removed.paths


def test_a_ram_file_stays_until_the_last_snapshot_that_stands_on_it_goes() -> None:
    first = with_an_instant_one().catalog.snapshots[0]
    second = replace(facts(2, "b", [overlay(1), BASE]), ram=instant_facts().ram)
    assert (instant_facts().has_own_ram, second.has_own_ram) == (True, False)
    younger = with_facts(snapshot_xml(2, "b", parent="a", chain=[overlay(1), BASE]), second)
    of = replace(view(read_catalog([(first.xml, False), (younger, True)]), chain=[overlay(2), overlay(1), BASE]),
                 live_xml=in_file(domain_xml(overlay(2))))
    for name in ("a", "b"):
        (removed,) = plan_remove(name, of).afterwards
        assert isinstance(removed, st.RemoveFiles)
        assert RAM not in removed.paths
        assert f"{FOLDER}/{'00000001' if name == 'a' else '00000002'}.mem" in removed.paths
    alone = replace(of, catalog=read_catalog([(younger, True)]))
    (removed,) = plan_remove("b", alone).afterwards
    assert isinstance(removed, st.RemoveFiles)
    assert RAM in removed.paths


def test_the_engine_follows_the_snapshot() -> None:
    assert choose_engine((9, 0), facts=facts(1, "a", [BASE])).name == "restore"
    assert choose_engine((9, 0), facts=instant_facts()).name == "instant"
    assert choose_engine((9, 0), "restore", facts=instant_facts()).name == "restore"
    with pytest.raises(UnsupportedError, match="not saved by `instant`"):
        choose_engine((9, 0), "instant", facts=facts(1, "a", [BASE]))


def test_reasons_against_instant() -> None:
    assert obstacle(seen(), qemu_version=(7, 2)) is None
    ordinary = obstacle(view(), qemu_version=(10, 0)) or ""
    assert "--ram-file" in ordinary
    ballooned = in_file(domain_xml()).replace("<uuid>", "<currentMemory unit='KiB'>2</currentMemory><uuid>")
    of = replace(seen(), live_xml=ballooned)
    assert "give memory back" in (obstacle(of, qemu_version=(7, 2)) or "")
    assert obstacle(of, qemu_version=(8, 2)) is None


