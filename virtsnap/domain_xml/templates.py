"""Templates become elements: holes are whole attributes or whole texts, filled through lxml.

A template is XML in which an attribute's value or an element's text may be a
hole, `{name}`. Filling gives each hole a text or leaves it empty:

- an empty attribute hole takes its attribute away;
- an element whose holes, its descendants' included, are all empty goes with
  them, so `<rom bar="{rombar}"/>` stands only where rombar is said;
- an element without a hole, and without one below it, always stays;
- the text "" fills a hole and leaves an empty element: `<readonly>{readonly}</readonly>`.

Nothing is ever formatted into XML as text, so a value cannot become markup.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lxml import etree

from virtsnap.errors import TemplateError

_HOLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
Element = etree._Element

# What XML 1.0 cannot carry at all; QEMU words may hold it, libvirt's XML may not.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def template_folder() -> Path:
    """Find domain_templates/: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "domain_templates", package.parent / "domain_templates"):
        if folder.is_dir():
            return folder
    raise TemplateError("domain_templates/ is not there", hint="install virtsnap again")


class Templates:
    """The templates by name (`devices/interface`, `machines/q35`).

    Folders of the user's come first and replace ours by name.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = (*folders, template_folder())

    def fill(self, name: str, holes: Mapping[str, str | None]) -> Element:
        """Fill a template; holes that are not given stay empty.

        Raises TemplateError for a template that is not there or not XML, for a
        hole that the template does not have, and for a text that XML cannot carry.
        """
        original, known = _load(self._folders, name)
        unknown = set(holes) - known
        if unknown:
            raise TemplateError(f"template {name} has no hole {', '.join(sorted(unknown))}")
        root = copy.deepcopy(original)
        _fill_element(root, holes)
        return root

    def holes_of(self, name: str) -> frozenset[str]:
        """Give the names of a template's holes."""
        return _load(self._folders, name)[1]

    def places(self, name: str) -> dict[str, str]:
        """Give for each hole of a template where it stands, as `interface/driver/@queues`."""
        root, _ = _load(self._folders, name)
        found: dict[str, str] = {}
        for element in root.iter():
            path = "/".join(str(each.tag) for each in [*reversed([*element.iterancestors()]), element])
            whole = _HOLE.fullmatch((element.text or "").strip())
            if whole:
                found.setdefault(whole.group(1), path)
            for key, value in element.attrib.items():
                whole = _HOLE.fullmatch(str(value))
                if whole:
                    found.setdefault(whole.group(1), f"{path}/@{key!s}")
        return found

    def names(self) -> list[str]:
        """List every template's name."""
        found = {
            file.relative_to(folder).with_suffix("").as_posix()
            for folder in self._folders
            for file in folder.rglob("*.xml")
        }
        return sorted(found)


def writable(text: str) -> bool:
    """Tell whether XML can carry a text."""
    return _UNWRITABLE.search(text) is None


@functools.lru_cache(maxsize=512)
def _load(folders: tuple[Path, ...], name: str) -> tuple[Element, frozenset[str]]:
    for folder in folders:
        file = folder / f"{name}.xml"
        if file.is_file():
            break
    else:
        raise TemplateError(f"there is no template {name}", hint=f"looked in {', '.join(map(str, folders))}")
    parser = etree.XMLParser(remove_comments=True, remove_blank_text=True, resolve_entities=False, no_network=True)
    try:
        root = etree.parse(str(file), parser).getroot()
    except etree.XMLSyntaxError as exc:
        raise TemplateError(f"template {file} is not XML: {exc}") from exc
    found: set[str] = set()
    for element in root.iter():
        for text in (element.text or "", *element.attrib.values()):
            text = str(text)
            whole = _HOLE.fullmatch(text.strip())
            if whole:
                found.add(whole.group(1))
            elif _HOLE.search(text):
                raise TemplateError(f"template {file}: {text!r} is only partly a hole; holes are whole")
    return root, frozenset(found)


def _fill_element(element: Element, holes: Mapping[str, str | None]) -> tuple[bool, bool]:
    """Fill an element in place; return (it had holes at or below it, one of them was filled)."""
    had = filled = False
    for key, raw in list(element.attrib.items()):
        hole = _HOLE.fullmatch(str(raw))
        if hole is None:
            continue
        had = True
        value = holes.get(hole.group(1))
        if value is None:
            del element.attrib[key]
        else:
            filled = True
            element.set(key, _checked(value))
    hole = _HOLE.fullmatch((element.text or "").strip())
    if hole is not None:
        had = True
        value = holes.get(hole.group(1))
        element.text = None if value is None or value == "" else _checked(value)
        filled = filled or value is not None
    for child in list(element):
        child_had, child_filled = _fill_element(child, holes)
        if child_had and not child_filled:
            element.remove(child)
        had, filled = had or child_had, filled or child_filled
    return had, filled


def _checked(value: str) -> str:
    if not writable(value):
        raise TemplateError(f"{value!r} holds a character that XML cannot carry")
    return value
