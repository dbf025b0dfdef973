"""The golden cases: each converts to what its file says, validly, and every row of the tables is hit."""

from __future__ import annotations

import pytest

from tests.case_files import Case, all_cases
from tests.schema import SCHEMA_VERSION, schema_problem
from virtsnap.command_line.options import parse_options
from virtsnap.convert import convert_command_line
from virtsnap.convert.devices import device_rows, tables
from virtsnap.convert.ledger import Word, words_of

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_converts_to_what_its_file_says(case: Case, pytestconfig: pytest.Config) -> None:
    found = case.sections(case.convert())
    if pytestconfig.getoption("--regen"):
        case.write(found)
        return
    assert case.expected, f"{case.name} has no expectation yet: run pytest --regen and read it"
    for name in found.keys() | case.expected.keys():
        assert found.get(name) == case.expected.get(name), f"section {name} of {case.name}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_is_valid_for_libvirt_9_0(case: Case) -> None:
    command = case.command
    xml = convert_command_line(command.argv, for_libvirt=SCHEMA_VERSION, environment=command.environment).xml
    assert schema_problem(xml) is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_report_covers_every_argument_and_every_key_once(case: Case) -> None:
    command = case.command
    report = case.convert().report
    covered = [index for entry in report["arguments"] for index in range(entry["argv"][0], entry["argv"][1] + 1)]
    assert covered == list(range(len(command.argv)))
    options = parse_options(command.argv).options
    assert [[part["key"] for part in entry["parts"]] for entry in report["arguments"][1:]] == [
        option.properties.keys() for option in options
    ]


def _words() -> list[Word]:
    return [word for case in CASES for word in words_of(parse_options(case.command.argv).options)]


def _said(word: Word) -> list[str]:
    return [item.key for item in word.properties]


def test_every_row_is_hit_by_a_case() -> None:
    words = _words()
    missing: list[str] = []
    for row in {id(row): row for row in device_rows().values()}.values():
        mine = [word for word in words if word.group == "device" and word.peek("driver") in row.drivers]
        if not mine:
            missing.append(f"-device {row.drivers[0]}")
        said = {key for word in mine for key in _said(word)}
        missing += [f"-device {row.drivers[0]},{key.key}" for key in row.keys if key.key not in said]
    for table in tables():
        mine = [word for word in words if table.holds_for(word)]
        said = {key for word in mine for key in _said(word)}
        name = f"-{table.group} {table.selector or ''}"
        missing += [f"{name} {key.key}" for key in table.keys if key.key not in said]
    assert not missing, "no golden case has: " + "; ".join(missing)
