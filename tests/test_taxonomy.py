"""Names of other tools and data sets end as kinds."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukokit.taxonomy import (
    COLOURS,
    ERYTHROCYTE,
    KINDS,
    LEUKOCYTE,
    LEUKOCYTE_CLASSES,
    PLATELET,
    kind_of,
)

KNOWN = {
    "leukocyte": ["leukocyte", "leucocyte", "wbc", "white blood cell", *LEUKOCYTE_CLASSES],
    "erythrocyte": ["erythrocyte", "rbc", "red blood cell"],
    "platelet": ["platelet", "thrombocyte", "plt"],
}
NAMES = [(name, kind) for kind, names in KNOWN.items() for name in names]


def test_numbers_are_positions() -> None:
    assert (KINDS[LEUKOCYTE], KINDS[ERYTHROCYTE], KINDS[PLATELET]) == KINDS


def test_every_kind_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(KINDS)
    assert len(set(COLOURS.values())) == len(KINDS)
    assert all(re.fullmatch(r"#[0-9A-F]{6}", colour) for colour in COLOURS.values())


@given(
    st.sampled_from(NAMES),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from([" ", "_", "-"]),
    st.sampled_from(["", "s"]),
    st.sampled_from(["", " ", "\t"]),
)
def test_case_plural_and_separators_do_not_matter(
    known: tuple[str, str], case: Callable[[str], str], separator: str, plural: str, margin: str
) -> None:
    name, kind = known
    assert kind_of(margin + case(name.replace(" ", separator) + plural) + margin) == kind


@pytest.mark.parametrize(
    "name", ["", "s", "cell", "artefact", "blood cell", "pseudo-platelet", "wbc rbc", "0"]
)
def test_other_names_are_no_kind(name: str) -> None:
    assert kind_of(name) is None


@given(st.text())
def test_any_text_is_a_kind_or_none(name: str) -> None:
    assert kind_of(name) in {*KINDS, None}
