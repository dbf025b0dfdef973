"""What virsh writes, blank for blank; the expectations were written by virsh 9.0 and 11.3."""

from __future__ import annotations

import pytest

from virtsnap.cli.virsh.syntax import VirshSyntaxError
from virtsnap.cli.virsh.text import (
    display_width,
    format_help,
    format_labels,
    format_request,
    format_table,
    format_tree,
    local_time,
    printable,
    select_nodes,
    with_shown_names,
)
from virtsnap.cli.virsh.verbs import VERBS

XML = """<domainsnapshot>
  <name>a%2Fb</name>
  <description>x</description>
  <parent>
    <name>p%2Fq</name>
  </parent>
  <domain type='qemu'>
    <name>a%2Fb</name>
    <target dev='vda'>
          <model name='m'/>
    </target>
  </domain>
</domainsnapshot>
"""


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    rows = [["b", "running", ""], ["sp ace", "shutoff", "b"]]
    assert format_table(["Name", "State", "Parent"], rows, with_header=True) == (
        " Name     State     Parent\n"
        "----------------------------\n"
        " b        running   \n"
        " sp ace   shutoff   b\n"
    )


def test_an_empty_table_is_its_header_and_nothing_under_q() -> None:
    header = ["Name", "Creation Time", "State"]
    assert format_table(header, [], with_header=True) == (
        " Name   Creation Time   State\n-------------------------------\n"
    )
    assert format_table(header, [], with_header=False) == ""


def test_under_q_the_header_does_not_widen_the_columns() -> None:
    assert format_table(["Name", "State"], [["b", "running"]], with_header=False) == " b   running\n"


def test_what_could_steer_a_terminal_is_written_as_numbers() -> None:
    assert printable("a\x1b[m\\x41ü") == "a\\x1b[m\\x5cx41ü"
    assert display_width("漢字a\u0301") == 5


def test_a_tree_with_branches_and_two_roots() -> None:
    parents = {"b": None, "a": "b", "C2": "b", "sp": "C2", "lone": None}
    assert format_tree(parents, {name: name for name in parents}) == (
        "b\n  |\n  +- a\n  +- C2\n      |\n      +- sp\n        \nlone\n\n"
    )
    deep = {"r": None, "x": "r", "y": "x", "z": "r"}
    assert format_tree(deep, {name: name for name in deep}) == (
        "r\n  |\n  +- x\n  |   |\n  |   +- y\n  |     \n  +- z\n    \n"
    )


def test_labels_are_aligned() -> None:
    assert format_labels([("Name", "b"), ("Descendants", "3")]) == "Name:           b\nDescendants:    3\n"


def test_times_have_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    assert local_time(0) == "1970-01-01 01:00:00 +0100"
    monkeypatch.undo()
    time.tzset()


def test_xml_shows_the_runners_names_and_nothing_else_changes() -> None:
    shown = with_shown_names(XML, name="a/b", parent="p/<q>")
    assert shown == XML.replace("  <name>a%2Fb</name>\n  <desc", "  <name>a/b</name>\n  <desc").replace(
        "p%2Fq", "p/&lt;q&gt;"
    )


def test_xpath_gives_a_line_for_each_node_or_all_in_one() -> None:
    assert select_nodes(XML, "//parent/name", wrap=False) == "<name>p%2Fq</name>\n"
    assert select_nodes(XML, "//target", wrap=False) == '<target dev="vda">\n  <model name="m"/>\n</target>\n'
    assert select_nodes(XML, "//target", wrap=True) == (
        '<nodes>\n  <target dev="vda">\n    <model name="m"/>\n  </target>\n</nodes>\n'
    )
    assert select_nodes(XML, "//target/@dev", wrap=False) == ' dev="vda"\n'
    assert select_nodes(XML, "//none", wrap=False) == ""
    with pytest.raises(VirshSyntaxError):
        select_nodes(XML, "[", wrap=False)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_node_does_not_repeat_the_namespaces_around_it(wrap: bool) -> None:
    xml = "<a><domain xmlns:qemu='urn:q'><name>n</name><target dev='vda'/></domain></a>"
    for path in ("//name", "//target"):
        assert "xmlns" not in select_nodes(xml, path, wrap=wrap)
    assert "<domain xmlns:qemu=" in select_nodes(xml, "//domain", wrap=wrap)


def test_the_request_is_what_print_xml_shows() -> None:
    assert format_request(name=None, description=None, memspec=None, diskspecs=[]) == (
        "<domainsnapshot>\n</domainsnapshot>\n"
    )
    assert format_request(
        name="a<b", description="de's", memspec="file=/a,,b,snapshot=external",
        diskspecs=["vda,snapshot=no", "vdb,driver=qcow2,stype=file,file=/x", "vdc,stype=block,file=/dev/x", "vdd"],
    ) == """<domainsnapshot>
  <name>a&lt;b</name>
  <description>de&apos;s</description>
  <memory snapshot='external' file='/a,b'/>
  <disks>
    <disk name='vda' snapshot='no'/>
    <disk name='vdb' type='file'>
      <driver type='qcow2'/>
      <source file='/x'/>
    </disk>
    <disk name='vdc' type='block'>
      <source dev='/dev/x'/>
    </disk>
    <disk name='vdd'/>
  </disks>
</domainsnapshot>
"""


@pytest.mark.parametrize("spec", ["bogus", "file=/a,file=/b", "snapshot=a,snapshot=b", "driver=x"])
def test_memspecs_that_virsh_refuses(spec: str) -> None:
    with pytest.raises(VirshSyntaxError, match=f"unable to parse memspec: {spec}"):
        format_request(name=None, description=None, memspec=spec, diskspecs=[])


@pytest.mark.parametrize("spec", ["vda,bogus=1", "vda,/x", "vda,stype=net", "vda,file=a,file=b"])
def test_diskspecs_that_virsh_refuses(spec: str) -> None:
    with pytest.raises(VirshSyntaxError, match=f"unable to parse diskspec: {spec}"):
        format_request(name=None, description=None, memspec=None, diskspecs=[spec])


def test_help_shows_the_verb_as_virsh_does() -> None:
    assert "    snapshot-delete <domain> [--snapshotname <string>] [--current] [--children]" in format_help(
        VERBS["snapshot-delete"]
    )
