"""A converted domain becomes a template of its own, and such a template becomes a domain again.

What two domains on one host may not share becomes a placeholder, a whole text
or attribute like the holes of our templates: `{name}`, `{uuid}`, `{mac1}` …,
`{port1}` …, `{disk1}` …; the same value twice is the same placeholder. In what is passed
through to QEMU, a port that it forwards is one too. Nothing else in braces is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from lxml import etree

from virtsnap.domain_xml.templates import Element, writable
from virtsnap.errors import TemplateError

_PLACEHOLDER = re.compile(r"\{(name|uuid|(?:mac|port|disk|nvram)\d+)\}")
_ARGUMENT = "{http://libvirt.org/schemas/domain/qemu/1.0}arg"
# hostfwd=tcp:ADDRESS:PORT-ADDRESS:PORT: the first port is the host's. Port 0 lets the host choose.
_FORWARD = re.compile(r"(?P<before>(?:^|,)hostfwd=\w*:(?:\[[^\]]*\]|[^:,]*):)(?P<port>[1-9]\d*)(?=-)")

# What libvirt makes up where the domain does not say it.
OPTIONAL = re.compile(r"uuid|mac\d+")

# Each kind with the places that hold it: XPath of the element, then the
# attribute, or None for the element's text.
_PLACES: tuple[tuple[str, str, str | None], ...] = (
    ("name", "/domain/name", None),
    ("uuid", "/domain/uuid", None),
    # libvirt refuses a domain whose SMBIOS has another UUID than it
    ("uuid", "/domain/sysinfo/system/entry[@name='uuid']", None),
    ("mac", "/domain/devices/interface/mac", "address"),
    ("port", "/domain/devices/graphics[@port > 0]", "port"),
    ("port", "/domain/devices/graphics[@tlsPort > 0]", "tlsPort"),
    ("port", "/domain/devices/*/source[@mode='bind'][@service]", "service"),
    ("disk", "/domain/devices/disk/source", "file"),
    ("disk", "/domain/devices/disk/source", "dev"),
    ("nvram", "/domain/os/nvram[text()]", None),
)
_NUMBERED = frozenset({"mac", "port", "disk", "nvram"})


@dataclass(frozen=True, kw_only=True)
class DomainTemplate:
    """A domain with placeholders. `values` are what stood at each placeholder before."""

    xml: str
    values: Mapping[str, str]


def make_domain_template(xml: str) -> DomainTemplate:
    """Put placeholders for name, UUID, MACs, ports and disk paths into a domain."""
    root = etree.fromstring(xml)
    values: dict[str, str] = {}
    for kind, path, attribute in _PLACES:
        # these paths select elements only; lxml's type allows for every XPath result
        for element in cast(list[Element], root.xpath(path)):
            value = (element.text if attribute is None else element.get(attribute)) or ""
            if not value and attribute is not None:
                continue
            _put(element, attribute, f"{{{_name_for(kind, value, values)}}}")
    for argument in root.iter(_ARGUMENT):
        argument.set("value", _FORWARD.sub(
            lambda found: f"{found['before']}{{{_name_for('port', found['port'], values)}}}",
            argument.get("value") or "",
        ))
    return DomainTemplate(xml=etree.tostring(root, encoding="unicode") + "\n", values=values)


def _name_for(kind: str, value: str, values: dict[str, str]) -> str:
    """Give the placeholder of a value, making one where the value is new."""
    if kind not in _NUMBERED:
        values[kind] = value
        return kind
    of_kind = {name: known for name, known in values.items() if name.rstrip("0123456789") == kind}
    for name, known in of_kind.items():
        if known == value:
            return name
    values[f"{kind}{len(of_kind) + 1}"] = value
    return f"{kind}{len(of_kind) + 1}"


def placeholders(xml: str) -> list[str]:
    """Name the placeholders of a template, in the order they stand."""
    return list(dict.fromkeys(name for _, _, name in _holes(_parse(xml))))


def fill_domain_template(xml: str, values: Mapping[str, str]) -> str:
    """Fill a template's placeholders.

    UUID and MACs may stay open: they are taken out and libvirt makes up its
    own. Raises TemplateError for another placeholder without a value, for a
    value without a placeholder, and for a value that XML cannot carry.
    """
    root = _parse(xml)
    holes = list(_holes(root))
    known = {name for _, _, name in holes}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TemplateError(
            f"the template has no placeholder {', '.join(unknown)}",
            hint=f"it has {', '.join(sorted(known)) or 'none'}",
        )
    missing = sorted(name for name in known if name not in values and not OPTIONAL.fullmatch(name))
    if missing:
        raise TemplateError(
            f"nothing is said for {', '.join(missing)}", hint=" ".join(f"--set {name}=…" for name in missing)
        )
    for element, attribute, name in holes:
        value = values.get(name)
        if value is None:
            parent = element.getparent()
            assert parent is not None
            parent.remove(element)
        elif not writable(value):
            raise TemplateError(f"{name}: {value!r} holds a character that XML cannot carry")
        elif element.tag == _ARGUMENT:
            if "," in value:
                raise TemplateError(f"{name}: {value!r} holds a comma, which would end an option of QEMU's")
            element.set("value", (element.get("value") or "").replace(f"{{{name}}}", value))
        else:
            _put(element, attribute, value)
    return etree.tostring(root, encoding="unicode") + "\n"


def _parse(xml: str) -> Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(xml, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise TemplateError(f"the template is not XML: {exc}") from exc
    if root.tag != "domain":
        raise TemplateError(f"the template is a <{root.tag}>, not a <domain>")
    return root


def _holes(root: Element) -> Iterator[tuple[Element, str | None, str]]:
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        if element.tag == _ARGUMENT:
            for inside in _PLACEHOLDER.finditer(element.get("value") or ""):
                if inside[1].startswith("port"):
                    yield element, "value", inside[1]
            continue
        found = _PLACEHOLDER.fullmatch(element.text or "")
        if found:
            yield element, None, found[1]
        for key, value in element.attrib.items():
            found = _PLACEHOLDER.fullmatch(str(value))
            if found:
                yield element, str(key), found[1]


def _put(element: Element, attribute: str | None, value: str) -> None:
    if attribute is None:
        element.text = value
    else:
        element.set(attribute, value)
