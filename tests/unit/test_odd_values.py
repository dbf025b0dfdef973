"""Every value of every golden case, made odd: a domain that libvirt's schema takes, or one error of ours.

Together the cases hit every key of the tables, each in a command line that converts. What is odd: a line
break or a control character, for which the schema's paths and names have no room, and texts that are no number,
no path, no word. Each value gets one break and one such text, in turn; with --whole it gets all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from tests.case_files import Case, all_cases
from tests.schema import SCHEMA_VERSION, schema_problem
from virtsnap.command_line.options import parse_options
from virtsnap.convert import convert_command_line
from virtsnap.convert.ledger import Word
from virtsnap.convert.rows import Key, read_keys
from virtsnap.errors import TemplateError, UsageError

# In JSON, the last two are written as escapes: argv itself cannot hold them.
BREAKS = ("\n", "\r", "\x01", "\ud800")
ODD = ("", "-1", "99999999999999999999", "/", "é b", "zz", "0x5", "1.5", "on", "<", "\t", "¹", "٣", "+1", "1_0")

FLAT_VALUE = re.compile(r"(?:(?!,).|,,)+", re.DOTALL)
JSON_TEXT = re.compile(r'(?<=[:\[ ])"((?:[^"\\]|\\.)*)"(?=[,}\] ]|$)')
JSON_ESCAPES = {"\n": "\\n", "\r": "\\r", "\x01": "\\u0001", "\ud800": "\\ud800", "\t": "\\t"}


def _places(word: str) -> list[tuple[int, int]]:
    """Give where the values of an argument stand: the words behind an equals sign, the strings of JSON."""
    if word.startswith("{"):
        return [found.span(1) for found in JSON_TEXT.finditer(word)]
    return [(found.start() + found[0].find("=") + 1, found.end()) for found in FLAT_VALUE.finditer(word)]


def _made_odd(word: str, start: int, end: int, whole: bool, turn: int) -> Iterator[str]:
    json = word.startswith("{")
    breaks: Sequence[str] = BREAKS if json else BREAKS[:2]
    odd: Sequence[str] = ODD
    if not whole:
        breaks, odd = (breaks[turn % len(breaks)],), (odd[turn % len(odd)],)
    for text in breaks:
        for at in {end, start + 1} if whole and end > start else {end if turn % 2 else (start + end) // 2}:
            yield word[:at] + (JSON_ESCAPES[text] if json else text) + word[at:]
    for text in odd:
        yield word[:start] + (JSON_ESCAPES.get(text, text) if json else text) + word[end:]


def _odd_command_lines(argv: Sequence[str], whole: bool) -> Iterator[list[str]]:
    turn = 0
    for option in parse_options(argv).options:
        if option.argument is None and option.spelling.startswith("-"):
            continue
        word = argv[option.last]
        for start, end in _places(word):
            turn += 1
            for odd in _made_odd(word, start, end, whole, turn):
                yield [*argv[: option.last], odd, *argv[option.last + 1 :]]


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_odd_value_is_a_valid_domain_or_one_error(case: Case, pytestconfig: pytest.Config) -> None:
    command = case.command
    seen: set[str] = set()
    for argv in _odd_command_lines(command.argv, pytestconfig.getoption("--whole")):
        try:
            found = convert_command_line(argv, for_libvirt=SCHEMA_VERSION, environment=command.environment)
        except TemplateError:
            raise  # a text came as far as a template's hole
        except UsageError:
            continue
        entries = found.report["arguments"]
        assert [at for entry in entries for at in range(entry["argv"][0], entry["argv"][1] + 1)] == list(
            range(len(argv))
        )
        options = parse_options(argv).options
        assert [[part["key"] for part in entry["parts"]] for entry in entries[1:]] == [
            option.properties.keys() for option in options
        ]
        # what is passed on differs with each value, and the schema takes any text there
        domain = re.split(r"<qemu:(?:commandline|override)", found.xml)[0]
        if domain not in seen:
            seen.add(domain)
            assert schema_problem(found.xml) is None, argv


PASSED_ON = [
    ["-hda", "\n"], ["-cdrom", "\r"], ["-fda", "a\nb"], ["-drive", "file=a\nb,if=virtio"],
    ["-drive", "file=x\ry,if=none,id=a", "-device", "virtio-blk,drive=a"],
    ["-drive", 'file=json:{"driver":"file"\\,"filename":"/a\\nb"},if=virtio'.replace("\\,", ",,")],
    ["-drive", "file=nbd+unix:///a?socket=%0A,if=virtio,format=raw"],
    ["-virtfs", "local,path=a\n,mount_tag=x,security_model=none"],
    ["-object", "rng-random,filename=a\n,id=r", "-device", "virtio-rng-pci,rng=r"],
    ["-device", "virtio-input-host,evdev=\r"],
    ["-chardev", "socket,id=c,path=/a\nb", "-device", "isa-serial,chardev=c"],
    ["-chardev", "socket,id=c,path=/a\nb", "-serial", "chardev:c", "-mon", "c"],
    ["-serial", "unix:/a\nb"],
    ["-device", "virtio-scsi,id=s,x=\n", "-drive", "if=none,file=/a,id=d", "-device", "scsi-hd,drive=d,bus=s.0"],
]


@pytest.mark.parametrize("words", PASSED_ON)
def test_what_has_a_line_break_goes_to_qemu_with_all_that_uses_it(words: list[str]) -> None:
    conversion = convert_command_line(["qemu-system-x86_64", *words], for_libvirt=SCHEMA_VERSION)
    assert schema_problem(conversion.xml) is None
    assert {entry["outcome"] for entry in conversion.report["arguments"][1:]} == {"passthrough"}
    assert "line break" in conversion.report["arguments"][1]["note"]


def test_what_uses_what_has_a_line_break_says_why() -> None:
    words = ["-object", "rng-random,filename=a\n,id=r", "-device", "virtio-rng-pci,rng=r"]
    report = convert_command_line(["qemu-system-x86_64", *words]).report
    assert report["arguments"][2]["note"] == "it uses what goes to QEMU as it stands"


def test_device_with_a_line_break_keeps_its_slot() -> None:
    words = ["-nodefaults", "-device", "virtio-rng-pci,x=\n", "-device", "virtio-balloon-pci"]
    xml = convert_command_line(["qemu-system-x86_64", *words], for_libvirt=SCHEMA_VERSION).xml
    assert 'slot="0x03"' in xml
    assert "virtio-rng-pci,x=&#10;,bus=pci.0,addr=0x2" in xml


def test_control_character_in_an_option_of_the_machine_is_an_error() -> None:
    with pytest.raises(UsageError, match="no XML can carry"):
        convert_command_line(["qemu-system-x86_64", "-machine", '{"type": "pc", "firmware": "\\u0001"}'])


def test_row_refuses_a_text_of_several_lines() -> None:
    word = Word(parse_options(["qemu", "-cpu", "host,vendor=a\nb"]).options[0])
    assert read_keys(word, (Key(key="vendor", hole="vendor_id"),), SCHEMA_VERSION) == {}
    assert [item.key for item in word.unclaimed()] == ["model", "vendor"]
