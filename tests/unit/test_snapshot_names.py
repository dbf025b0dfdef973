"""Runners' names go to libvirt and come back as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtsnap.errors import UsageError
from virtsnap.snapshots.names import (
    MAX_ENCODED_BYTES,
    decode_name,
    encode_name,
    is_temporary,
    temporary_name,
)


@pytest.mark.parametrize(("name", "encoded"), [
    ("lastgood", "lastgood"),
    ("category-module#2", "category-module#2"),
    ("category/module", "category%2Fmodule"),
    (".hidden", "%2Ehidden"),
    ("a.b", "a.b"),
    ("100%", "100%25"),
    ("two words\n", "two%20words%0A"),
    ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
    ("naïve-日本", "naïve-日本"),
    ("no\u00a0break", "no%C2%A0break"),
    ("\x1b[31m", "%1B[31m"),
    ("\ufffe", "%EF%BF%BE"),
])
def test_a_name_is_encoded_where_it_must_be(name: str, encoded: str) -> None:
    assert encode_name(name) == encoded
    assert decode_name(encoded) == name


@given(st.text(min_size=1, max_size=60))
def test_every_name_comes_back(name: str) -> None:
    try:
        encoded = encode_name(name)
    except UsageError:
        return
    assert decode_name(encoded) == name
    assert len(encoded.encode()) <= MAX_ENCODED_BYTES
    assert "/" not in encoded
    assert not encoded.startswith(".")
    assert encoded.isprintable()
    assert not is_temporary(encoded)


@given(st.text(min_size=1, max_size=60))
def test_a_name_of_plain_virsh_stands_for_itself_or_for_what_encodes_to_it(object_name: str) -> None:
    name = decode_name(object_name)
    assert name == object_name or encode_name(name) == object_name


@pytest.mark.parametrize("object_name", ["50%", "a%2fb", "%zz", "%new-0123abcd", "a b", "%FF"])
def test_what_no_name_encodes_to_stands_for_itself(object_name: str) -> None:
    assert decode_name(object_name) == object_name


@pytest.mark.parametrize("name", ["", "x" * 201, "/" * 67, "\ud800"])
def test_a_name_that_is_empty_too_long_or_no_text_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        encode_name(name)


def test_200_bytes_are_not_too_long() -> None:
    assert encode_name("x" * 200) == "x" * 200


def test_temporary_names_are_known() -> None:
    assert is_temporary(temporary_name("0123abcd"))
    assert not is_temporary("new-0123abcd")
