"""Hostile input: no exception but ours, no XML that lxml or libvirt's schema refuses.

VIRTSNAP_FUZZ_INPUTS says how many inputs in all. Without it they are 5,000, the same
ones each time, so that a failure belongs to a change; `make fuzz` draws 200,000 new ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.command_lines import command_line, config_file, value
from tests.schema import SCHEMA_VERSION, schema_problem
from virtsnap.command_line.option_table import OPTIONS
from virtsnap.command_line.options import parse_options
from virtsnap.command_line.shell_words import parse_shell_text
from virtsnap.convert import convert_command_line
from virtsnap.errors import UsageError

INPUTS = int(os.environ.get("VIRTSNAP_FUZZ_INPUTS", "5000"))


def share(part: float) -> settings:
    # no deadline: the machines are noisy, and a hang is caught by the suite's own limit
    return settings(
        max_examples=max(1, int(INPUTS * part)), deadline=None, database=None,
        derandomize="VIRTSNAP_FUZZ_INPUTS" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@share(0.2)
@given(st.text() | st.text(alphabet="'\"\\ \n#;&|<>$`ab=-"))
def test_any_text_is_words_or_one_error(text: str) -> None:
    try:
        words = parse_shell_text(text)
    except UsageError:
        return
    assert words.argv


@share(0.3)
@given(st.lists(value | st.sampled_from([f"-{name}" for name in OPTIONS]) | st.text(max_size=8), min_size=1))
def test_any_words_are_options_or_one_error(words: list[str]) -> None:
    try:
        line = parse_options(words)
    except UsageError:
        return
    covered = [index for option in line.options for index in range(option.first, option.last + 1)]
    assert covered == list(range(1, len(words)))


@share(0.1)
@given(command_line(), config_file() | st.text())
def test_any_configuration_file_is_a_valid_domain_or_one_error(argv: list[str], text: str) -> None:
    try:
        conversion = convert_command_line(
            [*argv, "-readconfig", "x"], for_libvirt=SCHEMA_VERSION, read_file=lambda path: text
        )
    except UsageError:
        return
    assert schema_problem(conversion.xml) is None


@share(0.4)
@given(command_line())
def test_any_command_line_is_a_valid_domain_or_one_error(argv: list[str]) -> None:
    try:
        conversion = convert_command_line(argv, for_libvirt=SCHEMA_VERSION)
    except UsageError:
        return
    assert schema_problem(conversion.xml) is None
    covered = [
        index
        for entry in conversion.report["arguments"]
        for index in range(entry["argv"][0], entry["argv"][1] + 1)
    ]
    assert covered == list(range(len(argv)))
    parsed = [option.properties.keys() for option in parse_options(argv).options]
    assert [[part["key"] for part in entry["parts"]] for entry in conversion.report["arguments"][1:]] == parsed
