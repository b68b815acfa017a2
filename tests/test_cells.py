"""Cells are checked when made, and go through filters, joins and supervision unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, Cells, Labelling
from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE, PLATELET, UNCLASSIFIED

SCORES = st.floats(0, 1, width=32)
CORNERS = st.floats(-100, 5000, width=32)
SIDES = st.floats(0, 500, width=32)


@st.composite
def some_cells(draw: st.DrawFn) -> Cells:
    rows = draw(
        st.lists(st.tuples(CORNERS, CORNERS, SIDES, SIDES, st.sampled_from(range(3)), SCORES), max_size=8)
    )
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _, _ in rows], np.float32).reshape(-1, 4)
    notes = draw(st.lists(st.sampled_from(["out of focus", "large field"]), unique=True))
    return Cells(boxes, np.array([r[4] for r in rows], int), np.array([r[5] for r in rows]), tuple(notes))


def assert_same(found: Cells, wanted: Cells) -> None:
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.kinds, wanted.kinds)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def of_kind(kind: int, diameters: list[float]) -> Cells:
    boxes = np.array([[5, 7, 5 + d, 7 + d] for d in diameters], np.float32).reshape(-1, 4)
    return Cells(boxes, np.full(len(boxes), kind), np.ones(len(boxes), np.float32))


BOX = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("boxes", "kinds", "scores", "complaint"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0], [0.5], "shape"),
        ([[1.0, 2.0, 3.0]], [0], [0.5], "shape"),
        (np.zeros((3, 0)), [0, 0, 0], [0.5, 0.5, 0.5], "shape"),
        (np.zeros((0, 5)), [], [], "shape"),
        (np.float32(3), [], [], "shape"),
        (np.zeros((1, 1, 4)), [0], [0.5], "shape"),
        ([BOX], [], [0.5], "1 boxes"),
        ([BOX], [0], [0.5, 0.5], "1 boxes"),
        ([BOX], [[0]], [0.5], "1 boxes"),
        ([], [0], [0.5], "0 boxes"),
        ([[3.0, 2.0, 1.0, 4.0]], [0], [0.5], "x1 <= x2"),
        ([[1.0, 4.0, 3.0, 2.0]], [0], [0.5], "y1 <= y2"),
        ([[1.0, 2.0, np.nan, 4.0]], [0], [0.5], "finite"),
        ([[1.0, 2.0, np.inf, 4.0]], [0], [0.5], "finite"),
        ([BOX], [-1], [0.5], "kinds"),
        ([BOX], [len(KINDS)], [0.5], "kinds"),
        ([BOX], [0.0], [0.5], "kinds"),
        ([BOX], [np.nan], [0.5], "kinds"),
        ([BOX], [True], [0.5], "kinds"),
        ([BOX], ["leukocyte"], [0.5], "kinds"),
        ([BOX], [0], [-0.01], "scores"),
        ([BOX], [0], [1.01], "scores"),
        ([BOX], [0], [np.nan], "scores"),
        ([BOX], [0], [np.inf], "scores"),
    ],
)
def test_what_is_wrong_is_refused(boxes: Any, kinds: Any, scores: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Cells(np.array(boxes), np.array(kinds), np.array(scores))


def test_kept_as_the_promised_types() -> None:
    cells = Cells(np.array([[1, 2, 1, 2]]), np.array([2], np.uint8), np.array([1.0]))
    found = [str(array.dtype) for array in (cells.boxes, cells.kinds, cells.scores)]
    assert found == ["float32", "int64", "float32"]
    assert cells.diameters.tolist() == [0.0]


def test_no_cell_is_a_normal_answer() -> None:
    nothing = Cells.empty(("blank field",))
    plain: Any = []
    assert_same(nothing, Cells(plain, plain, plain))
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    assert nothing.erythrocyte_diameter_px is None
    assert nothing.counts == dict.fromkeys(KINDS, 0)
    assert nothing.diameters.shape == (0,)
    assert len(nothing[nothing.kinds == LEUKOCYTE]) == len(nothing[:3]) == 0
    assert_same(Cells.from_supervision(nothing.to_supervision()), nothing)
    assert len(Cells.concatenate([])) == 0
    assert Cells.concatenate([nothing, nothing]).notes == ("blank field",)


def test_an_empty_table_has_the_columns_and_types_of_a_full_one() -> None:
    nothing, some = Cells.empty().to_dataframe(), of_kind(PLATELET, [4.0]).to_dataframe()
    assert list(nothing.columns) == list(some.columns) == ["id", "kind", "score", "x1", "y1", "x2", "y2"]
    assert nothing.dtypes.tolist() == some.dtypes.tolist()
    assert some.iloc[0].tolist() == [0, "platelet", 1.0, 5.0, 7.0, 9.0, 11.0]


@settings(deadline=None, max_examples=60)
@given(some_cells(), some_cells(), st.data())
def test_filters_and_joins_lose_nothing(first: Cells, second: Cells, data: st.DataObject) -> None:
    joined = Cells.concatenate([first, second])
    assert_same(joined[: len(first)], first)
    assert_same(joined[len(first) :], second)
    assert set(joined.notes) == {*first.notes, *second.notes}
    assert len(joined.notes) == len(set(joined.notes))
    assert sum(joined.counts.values()) == len(joined)

    size = len(joined)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    kept, others = joined[mask], joined[~mask]
    assert len(kept) + len(others) == size
    assert kept.notes == joined.notes
    assert_same(kept, joined[np.flatnonzero(mask)])


@settings(deadline=None, max_examples=40)
@given(some_cells())
def test_supervision_and_back(cells: Cells) -> None:
    detections = cells.to_supervision()
    assert list(detections.data["class_name"]) == [KINDS[kind] for kind in cells.kinds]
    detections.xyxy[:] = -1  # its arrays are its own
    assert not len(cells) or cells.boxes[0, 2] >= cells.boxes[0, 0]
    assert_same(Cells.from_supervision(cells.to_supervision()), cells)


def test_supervision_without_confidence_or_kind() -> None:
    import supervision as sv

    boxes = np.array([BOX], np.float32)
    assert Cells.from_supervision(sv.Detections(xyxy=boxes, class_id=np.array([1]))).scores.tolist() == [1.0]
    assert len(Cells.from_supervision(sv.Detections.empty())) == 0
    with pytest.raises(ValueError, match="class_id"):
        Cells.from_supervision(sv.Detections(xyxy=boxes))


def test_the_ruler_is_the_median_red_cell_and_wants_three() -> None:
    others = [of_kind(LEUKOCYTE, [90.0] * 9), of_kind(PLATELET, [9.0] * 9)]
    assert Cells.concatenate([*others, of_kind(ERYTHROCYTE, [40.0, 50.0])]).erythrocyte_diameter_px is None
    three = Cells.concatenate([*others, of_kind(ERYTHROCYTE, [40.0, 43.0, 300.0])])
    assert three.erythrocyte_diameter_px == pytest.approx(43.0)
    oblong = Cells(np.array([[0, 0, 20, 80]] * 3), np.full(3, ERYTHROCYTE), np.ones(3, np.float32))
    assert oblong.erythrocyte_diameter_px == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("erythrocytes", "leukocytes", "platelets", "ruler"),
    [
        ([40, 43, 300], [90], [9], 43),
        ([40, 50], [78, 78, 90], [9] * 9, 78 / LEUKOCYTE_TO_ERYTHROCYTE),
        ([40, 50], [], [12], 40),
        ([], [], [12], 12),
        ([], [0, 0, 78], [], 78 / LEUKOCYTE_TO_ERYTHROCYTE),
        ([0, 0, 0], [], [0, 12], 12),
        ([0, 0, 0], [0], [0], None),
        ([], [], [], None),
    ],
)
def test_the_ruler_is_implied_where_it_cannot_be_measured(
    erythrocytes: list[float], leukocytes: list[float], platelets: list[float], ruler: float | None
) -> None:
    kinds = ((ERYTHROCYTE, erythrocytes), (LEUKOCYTE, leukocytes), (PLATELET, platelets))
    found = Cells.concatenate([of_kind(kind, diameters) for kind, diameters in kinds]).ruler_px
    assert found == (None if ruler is None else pytest.approx(ruler))


CLASSES = ("neutrophil", "lymphocyte", "blast")
MIXED = Cells.concatenate([of_kind(LEUKOCYTE, [9.0, 8.0, 7.0]), of_kind(ERYTHROCYTE, [4.0])])
LABELLING = Labelling(
    np.array([[0.1, 0.875, 0.025], [0.25, 0.35, 0.4], [0.5, 0.3, 0.2], [0, 0, 0]]),
    CLASSES,
    review_threshold=0.5,
)


@pytest.mark.parametrize(
    ("probabilities", "classes", "complaint"),
    [
        ([0.5, 0.5], ("a", "b"), "must be"),
        ([[0.5, 0.5]], ("a",), "must be"),
        ([[]], (), "must be"),
        ([[np.nan, 1]], ("a", "b"), "finite"),
        ([[-0.5, 1.5]], ("a", "b"), "negative"),
        ([[0.5, 0.4]], ("a", "b"), "sum to one"),
        ([[1, 1]], ("a", "b"), "sum to one"),
    ],
)
def test_probabilities_that_are_none_are_refused(
    probabilities: Any, classes: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Labelling(np.array(probabilities), classes)


def test_a_class_is_named_where_it_is_certain_enough() -> None:
    assert LABELLING.labels == ["lymphocyte", UNCLASSIFIED, "neutrophil", ""]
    assert LABELLING.review.tolist() == [False, True, False, False]
    assert str(LABELLING.probabilities.dtype) == "float32"
    without_limit = Labelling(LABELLING.probabilities, CLASSES)
    assert without_limit.labels == ["lymphocyte", "blast", "neutrophil", ""]
    assert not without_limit.review.any()


def test_classes_stay_with_their_cells() -> None:
    cells = MIXED.with_labelling(LABELLING)
    assert MIXED.labelling is None
    assert MIXED.class_counts == {}
    assert_same(cells, MIXED)
    assert cells.class_counts == {"neutrophil": 1, "lymphocyte": 1, "blast": 0, UNCLASSIFIED: 1}
    some = cells[np.array([3, 0])]
    assert some.labelling is not None
    assert (some.labelling.labels, some.labelling.review_threshold) == (["", "lymphocyte"], 0.5)
    assert cells[cells.kinds == LEUKOCYTE].class_counts == cells.class_counts
    assert Cells.concatenate([cells, MIXED]).labelling is None
    with pytest.raises(ValueError, match="4 cells, but probabilities of 3"):
        MIXED.with_labelling(LABELLING[:3])


def test_a_labelled_field_without_a_cell() -> None:
    nothing = Cells.empty().with_labelling(Labelling(np.zeros((0, 3), np.float32), CLASSES, 0.5))
    assert nothing.class_counts == {**dict.fromkeys(CLASSES, 0), UNCLASSIFIED: 0}
    some = MIXED.with_labelling(LABELLING).to_dataframe()
    assert list(nothing.to_dataframe().columns) == list(some.columns)


def test_a_table_of_labelled_cells() -> None:
    table = MIXED.with_labelling(LABELLING).to_dataframe()
    classes = [f"p_{name}" for name in CLASSES]
    assert list(table.columns)[7:] == ["label", "probability", "review", *classes]
    leukocytes = table[table["kind"] == "leukocyte"]
    assert leukocytes["id"].tolist() == [0, 1, 2]
    assert leukocytes["label"].tolist() == LABELLING.labels[:3]
    assert leukocytes["probability"].tolist() == pytest.approx([0.875, 0.4, 0.5])
    assert leukocytes["review"].tolist() == [False, True, False]
    np.testing.assert_array_equal(leukocytes[classes].to_numpy(), LABELLING.probabilities[:3])


def test_a_table_leaves_the_classes_of_an_erythrocyte_blank() -> None:
    table = MIXED.with_labelling(LABELLING).to_dataframe()
    (erythrocyte,) = (row for _, row in table.iterrows() if row["kind"] == "erythrocyte")
    assert erythrocyte[7:].isna().all()
    assert table.to_csv(index=False).splitlines()[4].endswith(",,,,,,")


def test_at_a_limit_of_one_every_leukocyte_wants_review() -> None:
    certain = Labelling(np.array([[1.0, 0.0], [0.0, 0.0]]), ("a", "b"), 1.0)
    assert certain.review.tolist() == [True, False]
    assert certain.labels == [UNCLASSIFIED, ""]


def test_unknown_is_a_label_at_any_threshold_and_wants_review() -> None:
    rows = np.array([[0.9, 0.1], [0.3, 0.7], [0.45, 0.55], [0.0, 0.0]], np.float32)
    for threshold, first in ((0.0, "neutrophil"), (0.8, "neutrophil"), (1.0, "unclassified")):
        labelling = Labelling(rows, ("neutrophil", "unknown"), threshold)
        assert labelling.labels == [first, "unknown", "unknown", ""]
        assert labelling.review.tolist() == [first == "unclassified", True, True, False]
