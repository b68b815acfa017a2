"""Predictions: checked when made, and the same after a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.errors import DataError, OutputError
from leukokit.evaluation.classification import confusion_of
from leukokit.evaluation.predictions import Predictions

GOOD: dict[str, Any] = {
    "labels": np.array([0, 1, -1]),
    "probabilities": np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]),
    "classes": ("a", "b"),
    "photos": np.array(["p", "p", "q"]),
}

names = st.text(
    st.one_of(
        st.sampled_from("'=+-@\t\r\n,\";$"), st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    ),
    min_size=1,
    max_size=6,
).filter(lambda name: name not in ("unclassified", "none of these"))


def test_answers_limit_and_photographs() -> None:
    answers = Predictions(**GOOD, review_threshold=0.8, groups=np.array(["x", "y", "x"]))
    assert answers.predicted.tolist() == [0, 0, 1]
    assert answers.correct.tolist() == [True, False, False]
    # float32 0.8 lies above 0.8: at the review threshold is classified.
    assert answers.classified.tolist() == [True, False, True]
    assert len(np.unique(answers.photo_codes)) == 3
    assert Predictions(**GOOD).classified.all()
    # Nor is a review threshold just above a probability rounded down onto it.
    above = float(np.float32(0.9)) + 1e-9
    assert not Predictions(**GOOD, review_threshold=above).classified.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("a", "a")}, "different names"),
        ({"classes": ("a", "")}, "different names"),
        ({"classes": ("a", "unclassified")}, "different names"),
        ({"classes": ("a", "b", "c")}, "must be"),
        ({"labels": np.array([0, 1])}, "must be"),
        ({"labels": np.array([0, 1, 2])}, "from -1 to 1"),
        ({"labels": np.array([0, 1, -2])}, "from -1 to 1"),
        ({"labels": np.array([0.0, 1, 1])}, "whole numbers"),
        ({"probabilities": np.array([[0.9, 0.2]] * 3)}, "sum to one"),
        ({"probabilities": np.array([[1.5, -0.5]] * 3)}, "between 0 and 1"),
        ({"probabilities": np.array([[np.nan, 1]] * 3)}, "between 0 and 1"),
        ({"review_threshold": 1.5}, "review_threshold"),
        ({"review_threshold": float("nan")}, "review_threshold"),
        ({"photos": np.array(["p", "q"])}, "photos"),
        ({"photos": np.array(["p", "q", ""])}, "photos must not be empty"),
        ({"groups": np.array(["p"])}, "groups"),
        ({"cells": np.array([["1", "2", "3"]])}, "cells"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Predictions(**(GOOD | change))


def columns(count: int) -> st.SearchStrategy[list[str]]:
    return st.lists(names, min_size=count, max_size=count)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_table_gives_back_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, 5))
    classes = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    saved = Predictions(
        labels=rng.integers(-1, len(classes), size=count),
        probabilities=rng.dirichlet(np.full(len(classes), 0.2), count).astype(np.float32),
        classes=tuple(classes),
        photos=np.array(data.draw(columns(count)), dtype=str),
        groups=data.draw(st.none() | columns(count).map(lambda column: np.array(column, dtype=str))),
        review_threshold=data.draw(st.floats(0, 1)) if count else 0.0,
        cells=np.array(data.draw(columns(count)), dtype=str),
    )
    path = tmp_path_factory.getbasetemp() / "predictions.csv"
    saved.save(path)
    loaded = Predictions.load(path)
    assert loaded.classes == saved.classes and loaded.review_threshold == saved.review_threshold
    assert (loaded.groups is None) == (saved.groups is None)
    for name in ("labels", "probabilities", "photos", "groups", "cells"):
        before, after = getattr(saved, name), getattr(loaded, name)
        assert before is None or (before.tolist() == after.tolist() and before.dtype.kind == after.dtype.kind)
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for text in row)


def test_table_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    Predictions(**(GOOD | {"classes": ("a", "=b")}), review_threshold=0.6).save(path)
    assert path.read_text(encoding="utf-8").splitlines() == [
        "cell,photo,group,label,review_threshold,a,'=b",
        "0,p,,a,0.6,0.9,0.1",
        "1,p,,'=b,0.6,0.5,0.5",
        "2,q,,,0.6,0.2,0.8",
    ]
    path.write_text("\ufeff" + path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert len(Predictions.load(path)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a table of predictions"),
        ("image,kind\n", "not a table of predictions"),
        ("cell,photo,group,label,review_threshold\n", "different names"),
        ("cell,photo,group,label,review_threshold,a,b\n0,p,,a,0,0.9\n", "row 2 is not"),
        ("cell,photo,group,label,review_threshold,a,b\n0,p\n", "row 2 is not"),
        ("cell,photo,group,label,review_threshold,a,b\n0,p,,a,0,0.9,0.1\n0,p,,c,0,0.9,0.1\n", "row 3 is not"),
        ("cell,photo,group,label,review_threshold,a,b\n0,p,,a,0,much,0.1\n", "row 2 is not"),
        ("cell,photo,group,label,review_threshold,a,b\n0,p,,a,0,0.9,0.9\n", "sum to one"),
        (
            "cell,photo,group,label,review_threshold,a,b\n0,p,,a,0,1,0\n1,p,,a,0.5,1,0\n",
            "review threshold differs",
        ),
        (
            "cell,photo,group,label,review_threshold,a,b\n0,p,x,a,0,1,0\n1,p,,a,0,1,0\n",
            "groups must not be empty",
        ),
    ],
)
def test_table_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        Predictions.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV file"):
        Predictions.load(tmp_path / "p.csv")
    with pytest.raises(DataError, match="cannot be read"):
        Predictions.load(tmp_path / "missing.csv")
    with pytest.raises(OutputError, match="cannot be written"):
        Predictions(**GOOD).save(tmp_path / "missing" / "p.csv")


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_an_unknown_cell_is_not_classified_at_any_threshold(threshold: float) -> None:
    predictions = Predictions(
        labels=np.array([0, 0, 0]),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]),
        classes=("neutrophil", "unknown"),
        photos=np.array(["a", "b", "c"]),
        review_threshold=threshold,
    )
    assert predictions.classified.tolist() == [True, False, True]
    counts = confusion_of(predictions)
    assert np.array(counts.counts)[0, :2].tolist() == [2, 1]
