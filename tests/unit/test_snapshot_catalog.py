"""What libvirt's snapshot objects say becomes a catalog, and facts go in and out of them."""

from __future__ import annotations

import pytest

from tests.unit.snapshot_samples import BASE, UUID, facts, line_of_three, memory, ours, overlay, snapshot_xml
from virtsnap.domain_xml.live import parse_xml
from virtsnap.errors import NoSuchSnapshotError, UnsupportedError
from virtsnap.host.local_files import LocalFiles
from virtsnap.snapshots.catalog import (
    FORMAT,
    SNAPSHOT_NS,
    facts_from_element,
    facts_to_element,
    read_catalog,
    read_snapshot,
    renamed,
    with_facts,
)
from virtsnap.snapshots.observe import facts_of


@pytest.mark.parametrize("state", ["running", "shutoff"])
def test_facts_come_back_as_they_were(state: str) -> None:
    for has_beside in (False, True):
        written = facts(7, "odd / name", [overlay(1), BASE], state=state, has_beside=has_beside)
        assert facts_from_element(facts_to_element(written)) == written


def test_a_snapshot_of_plain_virsh_has_no_facts() -> None:
    found = read_snapshot(snapshot_xml(1, "theirs", parent=None, chain=[BASE]))
    assert (found.name, found.facts, found.problem) == ("theirs", None, None)
    assert found.frozen_paths == (BASE,)


def test_a_newer_record_is_refused_and_still_listed() -> None:
    xml = ours(1, "a", parent=None, chain=[BASE]).replace('format="1"', f'format="{FORMAT + 1}"')
    found = read_snapshot(xml)
    assert found.facts is None
    assert f"format {FORMAT + 1}" in str(found.problem)
    with pytest.raises(UnsupportedError, match=f"format {FORMAT + 1}"):
        facts_of(LocalFiles(), found, uuid=UUID)


def test_only_a_record_that_an_older_virtsnap_would_load_wrongly_has_a_newer_format() -> None:
    # One that knows nothing of UEFI variables would leave them as they are.
    old = facts_to_element(facts(1, "a", [BASE], state="shutoff"))
    new = facts_to_element(facts(1, "a", [BASE], state="shutoff", has_beside=True))
    assert (old.get("format"), new.get("format")) == ("1", "2")


@pytest.mark.parametrize("damage", [('created_ns="1', 'created_ns="x'), ("virtsnap:layer", "virtsnap:other")])
def test_a_damaged_record_is_a_problem_not_a_crash(damage: tuple[str, str]) -> None:
    found = read_snapshot(ours(1, "a", parent=None, chain=[BASE]).replace(*damage))
    assert found.problem == "its record is damaged"


def test_facts_that_were_copied_from_another_snapshot_do_not_count() -> None:
    # A revert by plain virsh puts a snapshot's metadata into the domain, whence the next snapshot has it.
    xml = with_facts(snapshot_xml(2, "b", parent=None, chain=[BASE]), facts(1, "a", [BASE]))
    assert read_snapshot(xml).facts is None


def test_other_peoples_metadata_stays() -> None:
    xml = snapshot_xml(1, "a", parent=None, chain=[BASE]).replace(
        "<uuid>", "<metadata><x:app xmlns:x='urn:x'/></metadata><uuid>"
    )
    root = parse_xml(with_facts(xml, facts(1, "a", [BASE])))
    assert root.find("domain/metadata/{urn:x}app") is not None
    assert root.find("inactiveDomain/metadata/{urn:x}app") is not None
    assert root.find(f"domain/metadata/{{{SNAPSHOT_NS}}}snapshot") is not None


def test_descendants_are_children_and_theirs() -> None:
    catalog = line_of_three()
    assert [each.name for each in catalog.descendants(catalog.find("a"))] == ["b", "c"]
    assert catalog.descendants(catalog.find("c")) == ()


def test_a_missing_name_is_told_with_what_there_is() -> None:
    with pytest.raises(NoSuchSnapshotError) as caught:
        line_of_three().find("x")
    assert caught.value.hint is not None
    assert "'a', 'b', 'c'" in caught.value.hint


def test_a_replacement_that_was_cut_off_counts_only_where_the_old_one_is_gone() -> None:
    old = ours(1, "s", parent=None, chain=[BASE])
    temporary = renamed(ours(2, "s", parent=None, chain=[overlay(1), BASE]), object_name="%new-00000002")
    assert read_catalog([(old, False), (temporary, True)]).find("s").memory_path == memory(1)
    assert read_catalog([(temporary, True)]).find("s").memory_path == memory(2)
