import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.datasets.fields import is_held_back
from leukokit.datasets.photographs import Photographs, likely_copies, read_own_index, validation_of
from leukokit.errors import DataError


@given(st.integers(0, 5), st.floats(0.05, 0.6))
@settings(max_examples=20)
def test_the_share_of_the_split_is_kept_and_differs_from_that_of_training(seed: Any, val: Any) -> None:
    photos = [f"photo {number}" for number in range(2000)]
    held = validation_of(photos, val, seed)
    assert len(held) == round(2000 * val)
    assert validation_of(reversed(photos), val, seed) == held != validation_of(photos, val, seed + 1)
    # One photograph more moves one other at most, whatever its name.
    assert len(held ^ validation_of([*photos, "new"], val, seed) - {"new"}) <= 1
    # Training holds back a share of what is left by a hash of its own; it must still find some.
    assert sum(is_held_back(photo, 0.06) for photo in photos if photo not in held) > 15


def test_names_that_begin_as_another_are_likely_copies() -> None:
    names = ["x", "x_rot", "x_rot-2", "y.rf.1", "y", "xy", "a_1", "a_2"]
    assert likely_copies(names) == {"x_rot": "x", "x_rot-2": "x", "y.rf.1": "y"}


def test_copies_found_by_name_and_by_content_are_chained_into_one_photograph() -> None:
    photos = Photographs()
    for photo, content in [
        ("b", None),
        ("a", "1"),
        ("c", "2"),
        ("a", "2"),
        ("d", "3"),
        ("b", "3"),
        ("e", "9"),
    ]:
        photos.add(photo, content)
    assert (
        {photos[name] for name in "ac"} == {"a"}
        and {photos[name] for name in "bd"} == {"b"}
        and photos["e"] == "e"
    )


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)


@given(st.lists(st.tuples(CELLS, CELLS | st.just(""), CELLS | st.just("")), max_size=5))
def test_an_index_of_a_set_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, written: Any
) -> None:
    path = tmp_path_factory.mktemp("set") / "own.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [("photo", "other", "file", "label"), *((p, "x", f, k) for f, p, k in written)]
        )
    rows = read_own_index(path, "mine", "here", "val")
    assert [(r["file"], r["label"]) for r in rows] == [(f, k) for f, _, k in written]
    assert all((r["dataset"], r["lab"], r["slide"], r["split"]) == ("mine", "here", "", "val") for r in rows)
    for r, (file, photo, label) in zip(rows, written, strict=True):
        assert r["photo"] == (photo or f"unknown {label or Path(file).parent.name} of mine")


@given(st.binary() | st.text(st.sampled_from('file,photo"split\n\r\0train'), max_size=60).map(str.encode))
def test_no_file_breaks_the_reader_of_an_index(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.mktemp("set") / "own.csv"
    path.write_bytes(b"file,split\n" + content)
    try:
        rows = read_own_index(path, "mine", "", "train")
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert all(r["file"] and r["photo"] for r in rows)
