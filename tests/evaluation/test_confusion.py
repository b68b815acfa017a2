"""Confusion matrices: counts, table, picture."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from leukokit.cli.tables import confusion_table
from leukokit.errors import OutputError
from leukokit.evaluation.confusion import draw_confusion, save_confusion
from leukokit.metrics.confusion import ConfusionMatrix

MATRIX = ConfusionMatrix(
    rows=("neutrophil", "[bold]lymphocyte", "basophil"),
    columns=("neutrophil", "[bold]lymphocyte", "basophil", "unclassified"),
    counts=((7, 2, 0, 1), (0, 5, 0, 0), (0, 0, 0, 0)),
)


def test_shares_are_of_the_row() -> None:
    assert MATRIX.array().dtype == np.int64
    assert MATRIX.shares() == pytest.approx(np.array([[0.7, 0.2, 0, 0.1], [0, 1, 0, 0], [0, 0, 0, 0]]))


@pytest.mark.parametrize("counts", [((1,),), ((1, 2), (3,)), ((1, 2), (3, -4))])
def test_counts_that_do_not_fit_are_refused(counts: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="counts must"):
        ConfusionMatrix(rows=("a", "b"), columns=("a", "b"), counts=counts)


def test_table_shows_counts_percent_and_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(confusion_table(MATRIX))
    header, first, second, third = (line.split() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]  # StringIO
    assert header[-5:] == ["neutrophil", "[bold]lymphocyte", "basophil", "unclassified", "cells"]
    assert first == ["neutrophil", "7", "70.0%", "2", "20.0%", "0", "1", "10.0%", "10"]
    assert second == ["[bold]lymphocyte", "0", "5", "100.0%", "0", "0", "5"]
    assert third == ["basophil", "0", "0", "0", "0", "0"]


def picture(matrix: ConfusionMatrix, title: str = "") -> np.ndarray:
    with Image.open(io.BytesIO(draw_confusion(matrix, title))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_picture_is_darkest_where_the_share_is_largest() -> None:
    blues = ConfusionMatrix(rows=("a", "b"), columns=("a", "b"), counts=((10, 0), (7, 3)))
    pixels = picture(blues)
    # Matplotlib's darkest blue, (8, 48, 107), fills the one square of 100%.
    dark = np.argwhere(np.abs(pixels - [8, 48, 107]).max(axis=2) < 3)
    assert len(dark) > 5000
    rows, columns = dark.mean(axis=0) / pixels.shape[:2]
    assert rows < 0.5 and columns < 0.7
    assert (np.ptp(dark, axis=0) < 0.5 * np.array(pixels.shape[:2])).all()


def test_names_are_no_formulas_and_may_be_of_any_script(recwarn: pytest.WarningsRecorder) -> None:
    # Taken for a formula, the first would be a wrong one and stop the drawing.
    names = ("$\\frac{$", "a" * 300, "中性粒细胞", "two\nlines", "100%")
    matrix = ConfusionMatrix(
        rows=names, columns=names, counts=tuple(map(tuple, np.eye(5, dtype=int).tolist()))
    )
    height, width, _ = picture(matrix, "$\\frac{$").shape
    assert 300 < height < 1500 and 300 < width < 1500
    assert not recwarn.list


def test_picture_is_the_same_twice_and_needs_no_display(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    save_confusion(path, MATRIX)
    assert path.read_bytes() == draw_confusion(MATRIX)
    with pytest.raises(OutputError, match="cannot be written"):
        save_confusion(tmp_path / "missing" / "c.png", MATRIX)
    with pytest.raises(ValueError, match="without a class"):
        draw_confusion(ConfusionMatrix(rows=(), columns=(), counts=()))


def test_users_settings_of_matplotlib_do_not_matter() -> None:
    import matplotlib

    plain = draw_confusion(MATRIX)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        assert draw_confusion(MATRIX) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_module_loads_without_matplotlib() -> None:
    code = "import sys, leukokit.evaluation.confusion; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
