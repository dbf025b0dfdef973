"""A plan goes into metadata and comes back as it was, but for passwords."""

from __future__ import annotations

import dataclasses
import re
from unittest.mock import MagicMock

import pytest

from tests.unit.snapshot_samples import (
    BASE,
    domain_xml,
    facts,
    layer,
    line_of_three,
    overlay,
    snapshot_xml,
    view,
)
from virtsnap.errors import UnsupportedError
from virtsnap.host import Domain
from virtsnap.host.domain import SnapshotObject
from virtsnap.host.local_files import LocalFiles
from virtsnap.snapshots import steps as st
from virtsnap.snapshots.catalog import to_text
from virtsnap.snapshots.definition import with_our_metadata
from virtsnap.snapshots.journal import Journal, Keeper, journal_element, read_journal, with_passwords_of
from virtsnap.snapshots.plan import SaveRequest, plan_remove, plan_save
from virtsnap.snapshots.recover import steps_to_finish


def save(name: str) -> st.Plan:
    request = SaveRequest(name=name, directory=None, description="ä <b>", token="0000000d", now_ns=1)
    return plan_save(request, view(line_of_three(), chain=[overlay(3), overlay(2), overlay(1), BASE]))


def there_and_back(journal: Journal) -> Journal | None:
    return read_journal(with_our_metadata(domain_xml(), [journal_element(journal)]))


@pytest.mark.parametrize("plan", [save("new"), save("b"), plan_remove("a", view(line_of_three()))])
def test_a_plan_comes_back_as_it_was(plan: st.Plan) -> None:
    journal = Journal(plan=plan, begun=2, direction="back")
    assert there_and_back(journal) == journal


def test_every_kind_of_step_and_value_can_be_written() -> None:
    made = st.RecordFacts(object_name="s", facts=facts(1, "s", [BASE]))
    plan = st.Plan(op="load", domain="sut", name="a/\n%", steps=(made, st.StopGuest(), st.RemoveFiles(
        paths=("/a",), needed=frozenset({"/b", "/c"}), folders=())))
    assert there_and_back(Journal(plan=plan)) == Journal(plan=plan)
    assert layer(BASE) in made.facts.disks[0].layers


def test_a_definition_without_one_has_none() -> None:
    assert read_journal(domain_xml()) is None


@pytest.mark.parametrize(("change", "words"), [
    (("format=\"1\"", "format=\"2\""), "has format '2'"),
    (("begun=\"0\"", "begun=\"x\""), "is damaged"),
    ((">eJ", ">!!"), "is damaged"),
])
def test_a_newer_or_damaged_one_is_refused(change: tuple[str, str], words: str) -> None:
    xml = with_our_metadata(domain_xml(), [journal_element(Journal(plan=save("new")))])
    assert change[0] in xml
    with pytest.raises(UnsupportedError, match=re.escape(words)):
        read_journal(xml.replace(*change))


def test_an_unknown_step_is_a_damaged_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    element = journal_element(Journal(plan=save("new")))
    monkeypatch.delitem(vars(__import__("virtsnap.snapshots.journal", fromlist=["x"]))["_VALUES"], "TakeSnapshot")
    with pytest.raises(UnsupportedError, match="damaged"):
        read_journal(with_our_metadata(domain_xml(), [element]))


def test_passwords_stay_out_and_come_from_the_definition_in_place() -> None:
    secret = domain_xml().replace("</devices>", "<graphics type='vnc' passwd='s3cret'/></devices>")
    plan = st.Plan(op="load", domain="sut", name="s", steps=(st.DefineDomain(xml=secret, previous_xml=secret),))
    journal = there_and_back(Journal(plan=plan))
    assert journal is not None
    written = journal.plan.steps[0]
    assert isinstance(written, st.DefineDomain)
    assert "s3cret" not in written.previous_xml
    filled = with_passwords_of(journal.plan, secret.replace("s3cret", "current")).steps[0]
    assert isinstance(filled, st.DefineDomain)
    assert filled.previous_xml.count('passwd="current"') == 1


def test_what_was_not_begun_is_taken_back_and_tidying_is_gone_on_with() -> None:
    domain = MagicMock(spec=Domain)
    plan = plan_remove("a", view(line_of_three()))
    assert steps_to_finish(Journal(plan=plan, begun=0), domain, LocalFiles()) is None
    assert steps_to_finish(Journal(plan=plan, begun=1), domain, LocalFiles()) == plan.steps
    assert steps_to_finish(Journal(plan=plan, begun=1, direction="back"), domain, LocalFiles()) is None
    assert steps_to_finish(Journal(plan=plan, begun=2), domain, LocalFiles()) == ()
    assert "journal" in to_text(journal_element(Journal(plan=plan)))


def test_what_a_definition_says_already_is_not_written_again() -> None:
    domain = MagicMock(spec=Domain, **{"is_persistent.return_value": True, "is_active.return_value": False})
    keeper = Keeper(domain)
    keeper.open(Journal(plan=save("new")))
    keeper.expect(2)
    (element,) = keeper.elements()
    assert element.get("begun") == "2"
    assert domain.set_metadata.call_count == 1
    keeper.note(2)
    assert domain.set_metadata.call_count == 1
    keeper.note(2, direction="back")
    keeper.note(3)
    assert domain.set_metadata.call_count == 3


def load_of(definition: str) -> st.Plan:
    """Make a load of a snapshot with memory, from its stop on."""
    return st.Plan(op="load", domain="sut", name="a", steps=(
        st.StopGuest(), st.RestoreMemory(memory_path="/a.mem", xml=definition),
        st.DefineDomain(xml=definition, previous_xml=domain_xml(), notes_ahead=True),
        st.MakeCurrent(object_name="a", previous="b"), st.ResumeGuest(),
    ))


@pytest.mark.parametrize(("begun", "ahead"), [(3, 5), (4, 5), (5, 5)])
def test_a_definition_of_a_load_has_the_resume_in_it(begun: int, ahead: int) -> None:
    plan = load_of(domain_xml(overlay(1)))
    assert plan.reach_ahead(begun) == ahead
    assert not any(isinstance(step, st.ResumeGuest) for step in plan.steps[: plan.reach(3)])


def rest_of(
    begun: int, *, power: str, on: str = overlay(1), defined: bool = True, objects: tuple[str, ...] = ("a",)
) -> str | None:
    """Name the steps that are left of a load whose overlay is there; the guest's disk is `on`."""
    plan = load_of(domain_xml(overlay(1)))
    known = [SnapshotObject(xml=snapshot_xml(1, name, parent=None, chain=[BASE]), is_current=True)
             for name in objects]
    domain = MagicMock(spec=Domain, **{
        "is_active.return_value": power != "shutoff", "power.return_value": power,
        "live_xml.return_value": domain_xml(on), "snapshot_objects.return_value": known,
        "persistent_xml.return_value": domain_xml(on if defined else BASE),
    })
    made = st.MakeOverlay(path=overlay(1), backing_path=BASE, backing_format="qcow2", virtual_bytes=1,
                          owner_like=None)
    journal = Journal(plan=dataclasses.replace(plan, steps=(made, *plan.steps)), begun=begun)
    rest = steps_to_finish(journal, domain, MagicMock(spec=LocalFiles))
    return None if rest is None else " ".join(type(step).__name__ for step in rest)


@pytest.mark.parametrize(("power", "objects", "left"), [
    ("paused", ("a",), "MakeCurrent ResumeGuest"), ("running", ("a",), "MakeCurrent"),
    ("shutoff", ("a",), "MakeCurrent"), ("running", (), ""), ("paused", (), "ResumeGuest"),
])
@pytest.mark.parametrize("on", [overlay(1), overlay(2)])
def test_a_load_that_may_have_let_its_guest_run_starts_and_defines_none_again(
    power: str, objects: tuple[str, ...], left: str, on: str
) -> None:
    assert rest_of(6, power=power, on=on, objects=objects) == left


@pytest.mark.parametrize(("power", "defined", "left"), [
    ("running", False, "DefineDomain MakeCurrent"), ("running", True, "MakeCurrent"),
    ("paused", True, "StopGuest RestoreMemory DefineDomain MakeCurrent ResumeGuest"),
    ("shutoff", False, "StopGuest RestoreMemory DefineDomain MakeCurrent ResumeGuest"),
])
def test_a_load_whose_guest_somebody_else_let_run_starts_none_again(power: str, defined: bool, left: str) -> None:
    assert rest_of(5, power=power, defined=defined) == left


def test_a_load_is_taken_back_where_another_guest_runs() -> None:
    assert rest_of(5, power="running", on=BASE) is None
