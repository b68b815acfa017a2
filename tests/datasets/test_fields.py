"""Annotated fields as lines of JSON: written, read again, and faults named by their line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.datasets.fields import AnnotatedField, is_held_back, read_fields, write_fields
from leukokit.errors import DataError
from leukokit.taxonomy import KINDS


def field(image: Path, *cells: tuple[str, float], photo: str = "p") -> AnnotatedField:
    return AnnotatedField(
        image,
        "set",
        "lab",
        photo,
        "",
        "train",
        KINDS,
        [[0.0, 0.0, side, side] for _, side in cells],
        [kind for kind, _ in cells],
        ["" for _ in cells],
    )


def test_fields_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    path = tmp_path / "index" / "fields.jsonl"
    written = [
        field(tmp_path / "images" / "zürich 1.png", ("leukocyte", 80.5), photo="é"),
        field(tmp_path / "b.png"),
    ]
    write_fields(path, written)
    assert [file.name for file in path.parent.iterdir()] == ["fields.jsonl"]
    assert json.loads(path.read_text("utf-8").splitlines()[0])["image"] == "../images/zürich 1.png"
    again = list(read_fields(path))
    assert [entry.image.resolve() for entry in again] == [entry.image for entry in written]
    assert [(e.photo, e.boxes, e.kinds, e.annotated_kinds) for e in again] == [
        (e.photo, e.boxes, e.kinds, e.annotated_kinds) for e in written
    ]
    assert again[1].box_array().shape == (0, 4)
    assert again[1].box_array().dtype == np.float32
    assert again[0].kind_array().tolist() == [0]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "fields.jsonl"
    write_fields(path, [field(tmp_path / "a.png")])
    before = path.read_bytes()

    def broken() -> Iterator[AnnotatedField]:
        yield field(tmp_path / "b.png")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_fields(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["fields.jsonl"]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", '{"image": "a.png"}', '{"image": 3, "annotated_kinds": []}'],
)
def test_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "fields.jsonl"
    write_fields(path, [field(tmp_path / "a.png")])
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"fields\.jsonl, line 3") as error:
        list(read_fields(path))
    assert "\n" not in str(error.value)


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fields.jsonl"
    write_fields(path, [field(tmp_path / "a.png", ("leukocyte", 5), ("cat", 5))])
    with pytest.raises(DataError, match="line 1"):
        list(read_fields(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leukokit data prepare"):
        list(read_fields(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("cells", "diameter"),
    [
        ([("erythrocyte", 40), ("erythrocyte", 44), ("erythrocyte", 60), ("leukocyte", 90)], 44),
        ([("erythrocyte", 40), ("erythrocyte", 44), ("leukocyte", 78)], 40),
        ([("leukocyte", 78)], 40),
        ([("platelet", 10)], None),
        ([], None),
    ],
)
def test_ruler_of_a_field(cells: list[tuple[str, float]], diameter: float | None) -> None:
    answer = field(Path("a.png"), *cells).cell_diameter_px()
    assert answer == (None if diameter is None else pytest.approx(diameter))


@settings(deadline=None)
@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_held_back_is_fixed_and_grows_with_the_share(photo: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert is_held_back(photo, low) <= is_held_back(photo, high)
    assert is_held_back(photo, 1.0) and not is_held_back(photo, 0.0)


def test_held_back_share_is_the_share_asked_for() -> None:
    share = np.mean([is_held_back(f"photo{number}", 0.2) for number in range(2000)])
    assert share == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labelled": ["leukocyte"], "annotated_kinds": None}, "of an earlier version; prepare it again"),
        ({"kinds": []}, "1 boxes, 0 kinds"),
        ({"labels": ["a", "b"]}, "2 labels"),
        ({"boxes": [[1, 2, 3]]}, "reshape"),
        ({"boxes": [[1, 2, float("nan"), 4]]}, "a box without extent"),
        ({"boxes": [[9, 2, 3, 4]]}, "a box without extent"),
        ({"kinds": ["cell"]}, "not in"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    row = {
        "image": "a.png", "dataset": "d", "lab": "l", "photo": "p", "slide": "", "split": "train",
        "annotated_kinds": ["leukocyte"], "boxes": [[1, 2, 3, 4]], "kinds": ["leukocyte"], "labels": [""],
    }  # fmt: skip
    good = json.dumps(row)
    row = {key: value for key, value in (row | change).items() if value is not None}
    (tmp_path / "f.jsonl").write_text(f"{good}\n{json.dumps(row)}\n")
    with pytest.raises(DataError, match=rf"f\.jsonl, line 2: not an annotated field \(.*{told}") as caught:
        list(read_fields(tmp_path / "f.jsonl"))
    assert "\n" not in str(caught.value)


def test_fields_are_not_waited_for_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        list(read_fields(tmp_path / "f.jsonl"))
