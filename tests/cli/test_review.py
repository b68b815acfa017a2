"""``leukokit review --apply``: what hands do on the page, from a file."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from batches import run

from leukokit.batch import run_batch

SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_batch(SMEAR, tmp_path_factory.mktemp("batch") / "results").out


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))


def test_corrections_of_a_file_reach_the_tables(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (results / "cells.csv").open(newline="", encoding="utf-8") as stream:
        cell = next(row for row in csv.DictReader(stream) if row["kind"] == "leukocyte")
    table, labels = tmp_path / "corrections.csv", tmp_path / "labels.yaml"
    table.write_text(f"image,cell,label,by\n{cell['image']},{cell['id']},Plasma cell,Ann\n", encoding="utf-8")
    labels.write_text("[Plasma cell]\n", encoding="utf-8")
    arguments = ["review", str(results), "--apply", str(table), "--labels", str(labels)]
    assert run(monkeypatch, arguments) == 0
    assert "1 decision" in capsys.readouterr().out
    assert ",Plasma cell,Ann" in (results / "cells.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("image,cell,label\n", "no column 'by'"),
        ("image,cell,label,by\nx.png,1,monocyte,Ann\n", "no such leukocyte"),
    ],
)
def test_a_wrong_file_is_one_line_and_changes_nothing(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: str,
    fault: str,
) -> None:
    before = (results / "cells.csv").read_bytes()
    (tmp_path / "c.csv").write_text(table, encoding="utf-8")
    assert run(monkeypatch, ["review", str(results), "--apply", str(tmp_path / "c.csv")]) == 1
    message = capsys.readouterr().err
    assert fault in message
    assert message.count("\n") == 1
    assert (results / "cells.csv").read_bytes() == before


def test_a_folder_without_a_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, ["review", str(tmp_path), "--no-browser"]) == 2
    assert "holds no batch" in capsys.readouterr().err
