from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit._patterns import compile_pattern, search_all
from leukokit.errors import ConfigError


def test_a_pattern_that_backtracks_is_ended_and_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"--photo-pattern .*: takes too long over the names") as caught:
        search_all(r"^(\w+\s?)+$", ["a" * 20, "aaaa " * 12 + "!"], "--photo-pattern", max_seconds=1)
    assert "\n" not in str(caught.value)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6))
def test_matches_are_those_of_python(texts: list[str]) -> None:
    pattern = r"(a)?([^b]*)b?"
    found = search_all(pattern, texts, "--x")
    expected = [re.search(pattern, text) for text in texts]
    assert found == [None if match is None else (match[0], *match.groups()) for match in expected]


def test_names_that_are_no_unicode_are_searched() -> None:
    assert search_all(".(.)", ["a\udcff"], "--x") == [("a\udcff", "\udcff")]


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 5000])
def test_what_is_no_expression_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        compile_pattern(pattern, "--group-by")
