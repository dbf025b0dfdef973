"""Words become options, with their arguments read in every notation that QEMU has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtsnap.command_line.chardev_text import parse_chardev_text
from virtsnap.command_line.keyval import SyntaxFault, join_commas, parse_json, parse_keyval
from virtsnap.command_line.options import parse_options
from virtsnap.errors import CommandLineError


def pairs(text: str, implied: str | None = None) -> list[tuple[str, str]]:
    return [(item.key, item.value) for item in parse_keyval(text, implied)]


@pytest.mark.parametrize(
    ("text", "implied", "expected"),
    [
        ("virtio-blk,drive=d0", "driver", [("driver", "virtio-blk"), ("drive", "d0")]),
        ("driver=virtio-blk", "driver", [("driver", "virtio-blk")]),
        ("file=a,,b,if=none", None, [("file", "a,b"), ("if", "none")]),
        ("socket,path=/s,server,nowait", "backend",
         [("backend", "socket"), ("path", "/s"), ("server", "on"), ("wait", "off")]),
        ("user,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4", "type",
         [("type", "user"), ("hostfwd", "tcp::1-:2"), ("hostfwd", "tcp::3-:4")]),
        ("512", "size", [("size", "512")]),
        ("a=b=c", None, [("a", "b=c")]),
        ("x=1,", None, [("x", "1")]),
        ("menu=on,splash=", None, [("menu", "on"), ("splash", "")]),
    ],
)
def test_keyval_is_read(text: str, implied: str | None, expected: list[tuple[str, str]]) -> None:
    assert pairs(text, implied) == expected


def test_json_becomes_the_same_flat_keys_as_dotted_ones() -> None:
    dotted = parse_keyval("driver=qcow2,cache.direct=on,server.0.host=h,n=5")
    json = parse_json('{"driver":"qcow2","cache":{"direct":true},"server":[{"host":"h"}],"n":5}')
    assert [(i.key, i.value) for i in json] == [(i.key, i.value) for i in dotted]


@pytest.mark.parametrize("text", ["{", '{"a":1,"a":2}', "[1]", '{"a":' + "[" * 100_000])
def test_broken_json_is_a_syntax_fault(text: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_json(text)


@given(st.lists(st.tuples(st.text("abc.-", min_size=1), st.text()), min_size=1))
def test_written_keyval_reads_back(items: list[tuple[str, str]]) -> None:
    cleaned = [(key, value.replace("\0", "")) for key, value in items]
    assert pairs(join_commas(cleaned)) == cleaned


def test_options_know_their_place_in_argv() -> None:
    line = parse_options(["qemu", "-S", "--name", "x", "disk.img", "-hda", "a", "-id", "7", "-weird"])
    assert [(o.group, o.first, o.last) for o in line.options] == [
        ("S", 1, 1), ("name", 2, 3), ("drive", 4, 4), ("drive", 5, 6), ("unknown", 7, 8), ("unknown", 9, 9),
    ]


def test_old_forms_say_what_they_imply_without_claiming_that_it_was_written() -> None:
    (option,) = parse_options(["qemu", "-cdrom", "a.iso"]).options
    assert option.properties.get("media") == "cdrom"
    assert option.properties.get("index") == "2"
    assert option.properties.keys() == ["file"]


def test_cpu_features_are_read_in_all_spellings() -> None:
    (option,) = parse_options(["qemu", "-cpu", "host,+vmx,-svm,hv_relaxed,kvm=off"]).options
    assert [(i.key, i.value) for i in option.properties] == [
        ("model", "host"), ("vmx", "on"), ("svm", "off"), ("hv_relaxed", "on"), ("kvm", "off"),
    ]


@pytest.mark.parametrize("text", ["isa-fdc.driveA=d0", "driver=isa-fdc,property=driveA,value=d0"])
def test_global_is_read_in_both_forms(text: str) -> None:
    (option,) = parse_options(["qemu", "-global", text]).options
    read = option.properties
    assert (read.get("driver"), read.get("property"), read.get("value")) == ("isa-fdc", "driveA", "d0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stdio", {"backend": "stdio"}),
        ("none", {"backend": "none"}),
        ("mon:stdio", {"backend": "stdio", "mux": "on"}),
        ("chardev:s0", {"backend": "chardev", "id": "s0"}),
        ("file:/a,,b", {"backend": "file", "path": "/a,b"}),
        ("unix:/s,server,nowait", {"backend": "socket", "path": "/s", "server": "on", "wait": "off"}),
        ("tcp:h:1,server=on", {"backend": "socket", "host": "h", "port": "1", "server": "on"}),
        ("tcp:[::1]:1", {"backend": "socket", "host": "::1", "port": "1"}),
        ("telnet::4,server", {"backend": "socket", "host": "", "port": "4", "telnet": "on", "server": "on"}),
        ("udp:h:1@l:2", {"backend": "udp", "host": "h", "port": "1", "localaddr": "l", "localport": "2"}),
        ("/dev/ttyS0", {"backend": "serial", "path": "/dev/ttyS0"}),
        ("/dev/parport0", {"backend": "parallel", "path": "/dev/parport0"}),
        ("vc:80Cx24C", {"backend": "vc", "cols": "80", "rows": "24"}),
    ],
)
def test_short_chardev_becomes_properties(text: str, expected: dict[str, str]) -> None:
    assert {item.key: item.value for item in parse_chardev_text(text)} == expected


@pytest.mark.parametrize(
    ("words", "complaint", "argument"),
    [
        (["-m"], "-m: its value is missing", 1),
        (["-S", "-device", "{"], "not valid JSON", 3),
        (["-global", "nothing"], "neither DRIVER.PROPERTY=VALUE", 2),
        (["-set", "a.b=c"], "not GROUP.ID.ARG=VALUE", 2),
        (["-cpu", ",+vmx"], "model is missing", 2),
        (["-serial", "bogus:1"], "no character device is called", 2),
        (["-drive", "=x"], "a value without a key", 2),
        (["-name", "a\0b"], "NUL", None),
    ],
)
def test_what_qemu_could_not_read_names_its_argument(
    words: list[str], complaint: str, argument: int | None
) -> None:
    with pytest.raises(CommandLineError, match=complaint) as caught:
        parse_options(["qemu", *words])
    assert caught.value.argument == argument
