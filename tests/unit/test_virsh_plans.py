"""What virsh's verbs ask of plans beyond save, load and rm; what an undefined domain leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.snapshot_samples import BASE, FOLDER, UUID, domain_xml, line_of_three, memory, overlay, view
from virtsnap.domain_xml.live import parse_xml, read_disks
from virtsnap.errors import ExistsError, UnsupportedError
from virtsnap.host.local_files import LocalFiles
from virtsnap.snapshots.leaving import Leaving, Merge, clear_up, plan_leaving
from virtsnap.snapshots.plan import SaveRequest, Scope, plan_remove, plan_save
from virtsnap.snapshots.steps import ForgetObjects, RecordFacts, RemoveFiles, TakeSnapshot

CHAIN = [overlay(3), overlay(2), overlay(1), BASE]


def request(name: str = "new", *, disk_only: bool = False, asked: frozenset[str] = frozenset()) -> SaveRequest:
    return SaveRequest(name=name, directory=None, description=None, token="00000009", now_ns=9, replace=False,
                       disk_only=disk_only, asked=asked)


@pytest.mark.parametrize(("scope", "gone", "paths"), [
    ("one", ["a"], {memory(1)}),
    ("tree", ["a", "b", "c"], {memory(1), memory(2), memory(3)}),
    ("below", ["b", "c"], {memory(2), memory(3)}),
])
def test_a_delete_takes_one_a_branch_or_what_is_below(scope: Scope, gone: list[str], paths: set[str]) -> None:
    plan = plan_remove("a", view(line_of_three(), chain=CHAIN), scope=scope)
    (forget,) = plan.steps
    assert isinstance(forget, ForgetObjects)
    assert sorted(kept.object_name for kept in forget.objects) == gone
    (remove,) = plan.afterwards
    assert isinstance(remove, RemoveFiles)
    assert set(remove.paths) == paths, "the line stands on every overlay"


def test_files_that_neither_the_line_nor_a_snapshot_needs_go_too() -> None:
    (remove,) = plan_remove("a", view(line_of_three(), chain=[overlay(1), BASE]), scope="below").afterwards
    assert isinstance(remove, RemoveFiles)
    assert set(remove.paths) == {memory(2), memory(3), overlay(2), overlay(3)}


def test_metadata_only_keeps_every_file() -> None:
    plan = plan_remove("a", view(line_of_three(), chain=CHAIN), scope="tree", keep_files=True)
    assert plan.afterwards == ()


def test_nothing_below_a_leaf_is_nothing_to_do() -> None:
    plan = plan_remove("c", view(line_of_three(), chain=CHAIN), scope="below")
    assert plan.steps == ()
    assert not any(isinstance(step, RemoveFiles) and step.paths for step in plan.afterwards)


def test_a_name_that_is_taken_is_refused_in_libvirts_words() -> None:
    with pytest.raises(ExistsError) as caught:
        plan_save(request("b"), view(line_of_three(), chain=CHAIN))
    assert caught.value.message == "operation failed: domain moment b already exists"


def test_disks_alone_of_a_running_guest_are_an_offline_snapshot() -> None:
    plan = plan_save(request(disk_only=True, asked=frozenset({"quiesce"})), view())
    take = next(step for step in plan.steps if isinstance(step, TakeSnapshot))
    assert (take.memory_path, take.is_active, take.asked) == (None, True, frozenset({"quiesce"}))
    facts = next(step for step in plan.steps if isinstance(step, RecordFacts)).facts
    assert (facts.memory, facts.state) == (None, "shutoff")


def test_disks_alone_are_refused_where_the_memory_holds_more() -> None:
    xml = domain_xml(os="<nvram>/vars.fd</nvram>")
    with pytest.raises(UnsupportedError, match="the disks alone are to be saved, and UEFI variables"):
        plan_save(request(disk_only=True), view(xml=xml))


# Leaving


def test_a_domain_leaves_what_the_guest_wrote_in_the_users_own_file() -> None:
    found = plan_leaving(view(line_of_three(), chain=CHAIN, active=False), formats={BASE: "raw"})
    assert found.merges == (
        Merge(target="vda", top=overlay(3), base=BASE, base_format="raw", base_was=(1000, 5)),
    )
    assert found.folders == (FOLDER,)
    (disk, _) = read_disks(parse_xml(found.xml_on_own_files))
    assert (disk.path, disk.format) == (BASE, "raw")


def test_a_domain_on_its_own_files_has_nothing_to_merge() -> None:
    found = plan_leaving(view(active=False), formats={})
    assert (found.merges, found.folders) == ((), ())


def test_a_snapshot_knows_the_users_file_where_the_chain_cannot_be_followed() -> None:
    seen = view(line_of_three(), chain=CHAIN, active=False)
    broken = type(seen)(**{**seen.__dict__, "chains": {}})
    assert plan_leaving(broken, formats={}).merges[0].base == BASE
    nothing_known = type(seen)(**{**view(chain=CHAIN, active=False).__dict__, "chains": {}})
    with pytest.raises(UnsupportedError, match="cannot be followed to the user's own file"):
        plan_leaving(nothing_known, formats={})


def some_files(folder: Path) -> tuple[Path, Path, Path]:
    own = folder / f"virtsnap-{UUID}"
    own.mkdir()
    base, layer, foreign = folder / "disk.qcow2", own / "00000001-vda.qcow2", own / "notes.txt"
    for path in (base, layer, foreign):
        path.write_text("x")
    (own / "00000001.mem").touch()
    return base, layer, foreign


def plan_for(base: Path, layer: Path, was: tuple[int, int] | None) -> Leaving:
    merge = Merge(target="vda", top=str(layer), base=str(base), base_format="qcow2", base_was=was)
    return Leaving(merges=(merge,), folders=(str(layer.parent),))


def test_only_files_of_ours_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, layer, foreign = some_files(tmp_path)
    merged: list[tuple[str, str]] = []
    files = LocalFiles()
    monkeypatch.setattr(files, "merge_layers", lambda top, *, into: merged.append((top, into)))
    assert clear_up(files, plan_for(base, layer, None), UUID, merge=True) == ()
    assert merged == [(str(layer), str(base))]
    assert list(layer.parent.iterdir()) == [foreign]


def test_a_disk_that_was_changed_is_not_merged_into_and_everything_is_kept(tmp_path: Path) -> None:
    base, layer, _ = some_files(tmp_path)
    problems = clear_up(LocalFiles(), plan_for(base, layer, (1, 1)), UUID, merge=True)
    assert "was changed after the save" in problems[0]
    assert str(layer.parent) in problems[1]
    assert layer.exists()


def test_a_disk_that_is_gone_needs_no_merge(tmp_path: Path) -> None:
    base, layer, foreign = some_files(tmp_path)
    base.unlink()
    foreign.unlink()
    assert clear_up(LocalFiles(), plan_for(base, layer, (1, 1)), UUID, merge=True) == ()
    assert not layer.parent.exists()
