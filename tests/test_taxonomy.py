"""Names of other tools and data sets end as kinds."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukokit import taxonomy
from leukokit.taxonomy import (
    CLASS_COLOURS,
    COLOURS,
    ERYTHROBLAST,
    ERYTHROCYTE,
    IMMATURE_GRANULOCYTE,
    KINDS,
    LEUKOCYTE,
    LEUKOCYTE_CLASSES,
    PLATELET,
    UNCLASSIFIED,
    UNKNOWN,
    canonical_name,
    class_of,
    colour_of,
    kind_of,
)

KNOWN = {
    "leukocyte": [
        "leukocyte",
        "leucocyte",
        "wbc",
        "white blood cell",
        *LEUKOCYTE_CLASSES,
        "immature granulocyte",
        "ig",
        "erythroblast",
        "normoblast",
        "nrbc",
        "nucleated red blood cell",
    ],
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


SIGHTS = {
    # Matrices on linear sRGB of complete protanopia, deuteranopia and tritanopia (Machado et al.).
    "usual": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}
PINKS = ("#F0D8E0", "#E8A8B8", "#D89AA8")
"""A smear's background and red cells."""


def lab(colours: list[str], sight: str) -> npt.NDArray[np.float64]:
    """(N, 3) CIELAB (D65) of colours as they are seen."""
    values = np.array([list(bytes.fromhex(colour[1:])) for colour in colours]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SIGHTS[sight]).T, 0, 1)
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    ratio = seen @ xyz.T / xyz.sum(axis=1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_of_classes_are_told_apart_on_a_pink_smear(sight: str) -> None:
    named = {**CLASS_COLOURS, **{kind: COLOURS[kind] for kind in ("erythrocyte", "platelet")}}
    places = dict(zip(named, lab(list(named.values()), sight), strict=True))
    for one, other in combinations(places, 2):
        assert np.linalg.norm(places[one] - places[other]) > 20, (one, other)
    pinks = lab(list(PINKS), sight)
    for name in CLASS_COLOURS:
        assert np.linalg.norm(pinks - places[name], axis=1).min() > 20, name


def test_every_class_has_a_colour() -> None:
    assert set(CLASS_COLOURS) == {
        *LEUKOCYTE_CLASSES,
        IMMATURE_GRANULOCYTE,
        ERYTHROBLAST,
        UNCLASSIFIED,
        UNKNOWN,
    }
    assert colour_of("basophil") == CLASS_COLOURS["basophil"]
    assert colour_of("platelet") == COLOURS["platelet"]
    assert colour_of("blast") == colour_of("leukocyte") == COLOURS["leukocyte"]


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


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Neutrophils", "neutrophil"),
        ("segmented neutrophil", "neutrophil"),
        ("BNE", "neutrophil"),
        ("band", "neutrophil"),
        ("lym", "lymphocyte"),
        ("IG", "immature granulocyte"),
        ("Metamyelocyte", "immature granulocyte"),
        ("nRBC", "erythroblast"),
        ("WBC", None),
        ("red", None),
        ("artefact", None),
    ],
)
def test_names_of_other_tools_are_classes(name: str, label: str | None) -> None:
    assert class_of(name) == label


def test_every_class_is_a_leukocyte_by_kind() -> None:
    assert {kind_of(name) for name in CLASS_COLOURS if name not in (UNCLASSIFIED, UNKNOWN)} == {"leukocyte"}
    assert canonical_name("red") == "erythrocyte" and canonical_name("white") == "leukocyte"


def test_no_name_stands_for_two_things() -> None:
    tables = (taxonomy._KIND_ALIASES, taxonomy._CLASS_ALIASES)
    names = [name for table in tables for main, others in table.items() for name in (main, *others)]
    assert len(names) == len(set(names))
