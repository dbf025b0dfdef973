"""Values become the text that virsh writes of them, blank for blank (virsh 9.0 and 11.3 write the same)."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from lxml import etree

from virtsnap.cli.virsh.syntax import Verb, VirshSyntaxError, split_list
from virtsnap.domain_xml.live import parse_xml

# Tables


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, with_header: bool) -> str:
    """Write a table as virsh does; without its header under -q, which then does not widen the columns."""
    shown = [[printable(cell) for cell in row] for row in rows]
    counted = [list(header), *shown] if with_header else shown
    widths = [max((display_width(row[at]) for row in counted), default=0) for at in range(len(header))]
    lines = [_row(row, widths) for row in shown]
    if with_header:
        lines[:0] = [_row(header, widths), "-" * sum(width + 3 for width in widths)]
    return "".join(f"{line}\n" for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    *first, last = cells
    padded = (
        f" {cell}" + " " * (width - display_width(cell) + 2) for cell, width in zip(first, widths, strict=False)
    )
    return "".join(padded) + f" {last}"


def printable(text: str) -> str:
    r"""Write what could steer a terminal as `\xNN`, byte by byte; `\x` itself too."""
    return "".join(
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode(errors="replace"))
        for char in text.replace("\\x", "\\x5cx")
    )


def display_width(text: str) -> int:
    """Count the columns that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def local_time(seconds: int) -> str:
    """Write a time as snapshot-list does."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def format_labels(pairs: Sequence[tuple[str, str]]) -> str:
    """Write snapshot-info's lines."""
    return "".join(f"{label + ':':<15} {value}\n" for label, value in pairs)


# Trees


def format_tree(parents: Mapping[str, str | None], shown: Mapping[str, str]) -> str:
    """Write the trees of snapshots as virsh does: id → parent's id in the order of the lines, id → name.

    Only who has no parent is a root; who names a parent that is not there is not shown.
    """
    lines: list[str] = []
    for id_, parent in parents.items():
        if parent is None:
            _branch(lines, id_, "", parents, shown, is_root=True, is_last=True)
    return "".join(f"{line}\n" for line in lines)


def _branch(
    lines: list[str], id_: str, indent: str, parents: Mapping[str, str | None], shown: Mapping[str, str], *,
    is_root: bool, is_last: bool,
) -> None:
    lines.append(indent + ("" if is_root else "+- ") + shown[id_])
    below = indent if is_root else indent + ("  " if is_last else "| ")
    children = [other for other, parent in parents.items() if parent == id_]
    if children:
        lines.append(f"{below}  |")
    for child in children:
        _branch(lines, child, f"{below}  ", parents, shown, is_root=False, is_last=child == children[-1])
    if not children and is_last:
        lines.append(below)


# XML


def with_shown_names(xml: str, *, name: str, parent: str | None) -> str:
    """Give a snapshot's XML with the runner's names in it; every other byte stays as libvirt wrote it."""
    xml = re.sub(r"^  <name>[^<]*</name>$", lambda _: f"  <name>{_escape(name)}</name>", xml, count=1, flags=re.M)
    if parent is None:
        return xml
    return re.sub(
        r"^  <parent>\n    <name>[^<]*</name>$", lambda _: f"  <parent>\n    <name>{_escape(parent)}</name>", xml,
        count=1, flags=re.M,
    )


def select_nodes(xml: str, xpath: str, *, wrap: bool) -> str:
    """Give what an XPath expression finds, as --xpath does: a line for each node, or all in `<nodes>`.

    On failure: VirshSyntaxError for an expression that cannot be read.
    """
    root = etree.fromstring(xml.encode(), etree.XMLParser(remove_blank_text=True, resolve_entities=False))
    try:
        found = root.xpath(xpath)
    except etree.XPathError as exc:
        raise VirshSyntaxError(f"Invalid XPath expression '{xpath}': {exc}") from exc
    nodes = found if isinstance(found, list) else []
    if not wrap:
        return "".join(f"{_node(node)}\n" for node in nodes)
    wrapper = etree.Element("nodes")
    for node in nodes:
        if isinstance(node, etree._Element):
            wrapper.append(_copy(node))
        elif (attribute := getattr(node, "attrname", None)) is not None:
            wrapper.set(attribute, str(node))
    return etree.tostring(wrapper, encoding="unicode", pretty_print=True) if nodes else ""


def _node(node: object) -> str:
    if isinstance(node, etree._Element):
        return etree.tostring(_copy(node), encoding="unicode", pretty_print=True).rstrip("\n")
    attribute = getattr(node, "attrname", None)
    return str(node) if attribute is None else f' {attribute}="{_escape(str(node))}"'


def _copy(node: etree._Element) -> etree._Element:
    """Give the element alone: without the text behind it, and what namespaces those around it declare."""
    copy = parse_xml(etree.tostring(node, encoding="unicode", with_tail=False))
    around = node.getparent()
    inherited = {} if around is None else around.nsmap
    own = [prefix for prefix, uri in node.nsmap.items() if prefix is not None and inherited.get(prefix) != uri]
    etree.cleanup_namespaces(copy, keep_ns_prefixes=own)
    return copy


def _escape(text: str) -> str:
    return escape(text, {"'": "&apos;", '"': "&quot;"})


def format_request(
    *, name: str | None, description: str | None, memspec: str | None, diskspecs: Sequence[str]
) -> str:
    """Write the document that snapshot-create-as gives to libvirt, and prints under --print-xml.

    On failure: VirshSyntaxError for a memspec or diskspec that cannot be read.
    """
    lines = ["<domainsnapshot>"]
    lines += [f"  <name>{_escape(name)}</name>"] if name is not None else []
    lines += [f"  <description>{_escape(description)}</description>"] if description is not None else []
    if memspec is not None:
        memory = read_memspec(memspec)
        lines.append("  <memory" + "".join(f" {key}='{_escape(value)}'" for key, value in memory.items()) + "/>")
    if diskspecs:
        lines.append("  <disks>")
        for spec in diskspecs:
            lines += _disk(read_diskspec(spec))
        lines.append("  </disks>")
    return "\n".join([*lines, "</domainsnapshot>"]) + "\n"


def _disk(keys: Mapping[str, str]) -> list[str]:
    start = f"    <disk name='{_escape(keys['name'])}'"
    if "snapshot" in keys:
        start += f" snapshot='{_escape(keys['snapshot'])}'"
    inner = [f"      <driver type='{_escape(keys['driver'])}'/>"] if "driver" in keys else []
    if "stype" in keys:
        start += f" type='{keys['stype']}'"
    source = "dev" if keys.get("stype") == "block" else "file"
    inner += [f"      <source {source}='{_escape(keys['file'])}'/>"] if "file" in keys else []
    return [f"{start}>", *inner, "    </disk>"] if inner else [f"{start}/>"]


def read_memspec(spec: str) -> dict[str, str]:
    """Read `[file=]name[,snapshot=type]`; on failure: VirshSyntaxError."""
    found: dict[str, str] = {}
    for part in split_list(spec):
        key, equals, value = part.partition("=")
        if equals and key in ("snapshot", "file") and key not in found:
            found[key] = value
        elif part.startswith("/") and "file" not in found:
            found["file"] = part
        else:
            raise VirshSyntaxError(f"unable to parse memspec: {spec}")
    return {key: found[key] for key in ("snapshot", "file") if key in found}


def read_diskspec(spec: str) -> dict[str, str]:
    """Read `disk[,snapshot=type][,driver=type][,stype=type][,file=name]`; on failure: VirshSyntaxError."""
    name, *parts = split_list(spec)
    found = {"name": name}
    for part in parts:
        key, equals, value = part.partition("=")
        known = key in ("snapshot", "driver", "stype", "file") and key not in found
        if not (equals and known) or (key == "stype" and value not in ("file", "block")):
            raise VirshSyntaxError(f"unable to parse diskspec: {spec}")
        found[key] = value
    return found


# Help


def format_help(verb: Verb) -> str:
    """Say what a verb takes; the wording of the options is in virsh's own help."""
    words = []
    for option in verb.options:
        if option.flag:
            words.append(f"[--{option.name}]")
        elif option.is_required:
            words.append(f"<{option.name}>")
        else:
            words.append(f"[[--{option.name}] <string>]..." if option.is_list else f"[--{option.name} <string>]")
    return f"  NAME\n    {verb.name} - {verb.summary}\n\n  SYNOPSIS\n    {verb.name} {' '.join(words)}\n\n"
