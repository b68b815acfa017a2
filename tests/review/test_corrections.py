"""Corrections as files: read with one line per fault, applied, written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from leukokit.batch.decisions import NOT_A_LEUKOCYTE
from leukokit.errors import DataError
from leukokit.review.corrections import apply_corrections, label_of, read_corrections
from leukokit.review.session import ReviewSession


def table(path: Path, *rows: str, header: str = "image,cell,label,by") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_corrections_are_applied_once_and_written_back(results: Path, tmp_path: Path) -> None:
    session = ReviewSession(results)
    first, second = (cell.key for cell in session.batch.cells[:2])
    path = table(
        tmp_path / "c.csv",
        f"{first.image},{first.cell},Mono,Ann",
        f"{second.image},{second.cell},NOT A LEUKOCYTE,Ann",
    )
    assert apply_corrections(session.batch, session.log, read_corrections(path)) == 2
    assert apply_corrections(session.batch, session.log, read_corrections(path)) == 0
    session.finish()
    session.close()
    with (results / "corrections.csv").open(newline="", encoding="utf-8") as stream:
        rows = {(row["image"], int(row["cell"])): row for row in csv.DictReader(stream)}
    assert {key: (row["label"], row["by"]) for key, row in rows.items()} == {
        first: ("monocyte", "Ann"),
        second: (NOT_A_LEUKOCYTE, "Ann"),
    }
    lines = (results / "corrections.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["monocyte", NOT_A_LEUKOCYTE]
    assert "leukocyte-hybrid:" in json.loads(lines[0])["weights"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (",1,monocyte,Ann", "line 2: needs an image, a cell number and who"),
        ("a.png,one,monocyte,Ann", "line 2: needs an image, a cell number and who"),
        ("a.png,1,monocyte,", "line 2: needs an image, a cell number and who"),
        ("a.png,1,,Ann", "line 2: a label has 1 to 60 printable characters"),
        (f"a.png,1,{'x' * 61},Ann", "line 2: a label has 1 to 60 printable characters"),
        ("a.png,1,mono\x1b[31m,Ann", "line 2: a label has 1 to 60 printable characters"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_corrections(table(tmp_path / "c.csv", row))


def test_a_missing_column_and_a_file_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'by'"):
        read_corrections(table(tmp_path / "c.csv", header="image,cell,label"))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        read_corrections(tmp_path / "b.csv")


def test_a_cell_the_batch_does_not_have_is_refused_before_anything_is_stored(
    results: Path, tmp_path: Path
) -> None:
    session = ReviewSession(results)
    key = session.batch.cells[0].key
    path = table(
        tmp_path / "c.csv", f"{key.image},{key.cell},monocyte,Ann", f"{key.image},99999,monocyte,Ann"
    )
    with pytest.raises(DataError, match="cell 99999: no such leukocyte"):
        apply_corrections(session.batch, session.log, read_corrections(path))
    assert session.log.current() == {}
    session.close()


def test_labels_of_other_tools_become_leukokits() -> None:
    assert [label_of(name, "here") for name in ("NRBC", "Segmented neutrophil", "Plasma  cell")] == [
        "erythroblast",
        "neutrophil",
        "Plasma cell",
    ]
