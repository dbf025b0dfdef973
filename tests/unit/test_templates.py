"""Templates are filled hole by hole, and nothing from outside becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from virtsnap.domain_xml.templates import Templates, writable
from virtsnap.errors import TemplateError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one.xml").write_text(
        """<a fixed="1" said="{said}"><!-- remark --><b x="{x}"/><c/><d>{text}</d><e k="1"><f y="{y}"/></e></a>"""
    )
    return tmp_path


def fill(folder: Path, **holes: str | None) -> str:
    return etree.tostring(Templates([folder]).fill("one", holes), encoding="unicode")


def test_empty_holes_take_their_attributes_and_elements_away(folder: Path) -> None:
    assert fill(folder) == '<a fixed="1"><c/></a>'


def test_a_filled_hole_keeps_its_element_and_those_above(folder: Path) -> None:
    assert fill(folder, y="2") == '<a fixed="1"><c/><e k="1"><f y="2"/></e></a>'


def test_the_empty_text_leaves_an_empty_element(folder: Path) -> None:
    assert fill(folder, text="") == '<a fixed="1"><c/><d/></a>'


def test_a_hole_that_the_template_does_not_have_is_an_error(folder: Path) -> None:
    with pytest.raises(TemplateError, match="has no hole z"):
        fill(folder, z="1")


def test_a_hole_must_be_a_whole_attribute(folder: Path) -> None:
    (folder / "part.xml").write_text('<a b="x{y}"/>')
    with pytest.raises(TemplateError, match="only partly a hole"):
        Templates([folder]).fill("part", {})


def test_a_folder_of_the_users_replaces_ours_by_name(folder: Path) -> None:
    (folder / "devices").mkdir()
    (folder / "devices" / "rng.xml").write_text("<mine/>")
    assert Templates([folder]).fill("devices/rng", {}).tag == "mine"
    assert Templates().fill("devices/rng", {"backend_model": "random"}).tag == "rng"


def test_a_missing_template_says_where_it_looked(folder: Path) -> None:
    with pytest.raises(TemplateError, match="no template nothing"):
        Templates([folder]).fill("nothing", {})


@given(st.text())
def test_no_text_becomes_markup(value: str) -> None:
    if not writable(value):
        with pytest.raises(TemplateError):
            Templates().fill("devices/rng", {"backend_model": value})
        return
    root = Templates().fill("devices/rng", {"backend_model": "random", "backend_path": value})
    again = etree.fromstring(etree.tostring(root))
    backend = again.find("backend")
    assert backend is not None
    # XML parsers turn line ends into \n; nothing else may change
    assert (backend.text or "") == value
