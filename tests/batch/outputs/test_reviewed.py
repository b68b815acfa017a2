"""People's labels in the tables of a batch, beside the classifier's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from leukokit.batch import recount, run_batch
from leukokit.batch.decisions import ARTEFACT, NOT_A_LEUKOCYTE, CellKey, DecisionLog
from leukokit.config import PipelineConfig

SMEAR = Path(__file__).parents[3] / "examples" / "smear.png"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return run_batch(SMEAR, tmp_path / "results", group_by="folder").out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def leukocytes(results: Path) -> list[dict[str, str]]:
    return [row for row in rows(results / "cells.csv") if row["kind"] == "leukocyte"]


def test_tables_have_both_labels_and_counts_follow_people(results: Path) -> None:
    before = leukocytes(results)
    kinds = int(rows(results / "counts.csv")[0]["leukocyte"])
    keys = [CellKey(row["image"], int(row["id"])) for row in before]
    with DecisionLog(results) as log:
        for key, label in zip(keys, ("blast", NOT_A_LEUKOCYTE, ARTEFACT, before[3]["label"]), strict=False):
            log.decide([(key, "")], label, "Ann")
    summary = recount(results)
    after = leukocytes(results)
    assert [row["label"] for row in after] == [row["label"] for row in before]
    assert [row["reviewed"] for row in after[:5]] == [
        "blast",
        NOT_A_LEUKOCYTE,
        ARTEFACT,
        before[3]["label"],
        "",
    ]
    assert {row["reviewed_by"] for row in after[:4]} == {"Ann"}
    (counts,) = rows(results / "counts.csv")
    assert (int(counts["leukocyte"]), counts["blast"], counts["reviewed"]) == (kinds - 2, "1", "4")
    assert summary.whole.classes.total() == kinds - 2
    assert summary.whole.machine.total() == kinds
    shares = {row["class"]: row for row in rows(results / "differential.csv") if row["scope"] == "all"}
    assert (shares["blast"]["count"], shares["blast"]["machine_count"]) == ("1", "0")
    run = json.loads((results / "run.json").read_text(encoding="utf-8"))
    assert "4 leukocytes have the label that a person gave them (Ann 4)" in run["attention"]


def test_a_threshold_of_one_leaves_only_what_people_named(results: Path) -> None:
    first = leukocytes(results)[0]
    with DecisionLog(results) as log:
        log.decide([(CellKey(first["image"], int(first["id"])), "")], "monocyte", "Ann")
    count = recount(results, review_threshold=1).whole.differential
    assert {name: share.count for name, share in count.shares.items() if share.count} == {"monocyte": 1}


def test_without_a_review_the_tables_are_as_ever(results: Path) -> None:
    assert "reviewed" not in rows(results / "cells.csv")[0]
    assert "reviewed" not in rows(results / "counts.csv")[0]
    assert "machine_count" not in rows(results / "differential.csv")[0]


def test_a_batch_without_classifier_counts_what_people_name(tmp_path: Path) -> None:
    out = run_batch(SMEAR, tmp_path / "plain", PipelineConfig(classifier=None)).out
    first = leukocytes(out)[0]
    with DecisionLog(out) as log:
        log.decide([(CellKey(first["image"], int(first["id"])), "")], "monocyte", "Ann")
    count = recount(out).whole.differential
    assert (count.shares["monocyte"].count, count.n) == (1, 1)
    assert count.unclassified == len(leukocytes(out)) - 1
