"""Methods compared: the same fields for all, stopped and gone on with, figures that a hand count gives."""

from __future__ import annotations

import csv
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from batches import run, save, with_scripted_plugins

from leukokit.cells import Cells
from leukokit.config import PipelineConfig, load_settings
from leukokit.datasets.fields import read_fields
from leukokit.errors import ConfigError, DataError
from leukokit.evaluation.comparison.figures import stored_values
from leukokit.evaluation.comparison.methods import Comparison, field_key, fields_of, methods_of
from leukokit.evaluation.comparison.results import ResultStore
from leukokit.metrics.intervals import clopper_pearson
from leukokit.registry import detectors
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE_CLASSES
from leukokit.weights import find


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


def prepared(root: Path, photos: int, wrong: int = 0) -> Path:
    """Fields of two leukocytes each, named as the classifier 'turns' names them but for ``wrong`` of them."""
    lines = []
    for number in range(photos):
        image = save(root / f"{number}.png", 2, 0)
        second = LEUKOCYTE_CLASSES[2 if number < wrong else 1]
        lines.append(
            {
                **{"image": str(image), "dataset": "drawn", "lab": "one", "photo": str(number), "slide": ""},
                **{"split": "val", "annotated_kinds": ["leukocyte"], "kinds": ["leukocyte"] * 2},
                "boxes": [[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 10.0, 10.0]],
                "labels": [LEUKOCYTE_CLASSES[0], second],
            }
        )
    path = root / "fields.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def config_of(root: Path, fields: Path, more: str = "") -> Path:
    path = root / "compare.yaml"
    path.write_text(
        f"""
fields: {fields}
tests: {{held: [{{dataset: drawn, splits: [val]}}]}}
baseline: scripted + knn + turns
compare:
  - {{detector: [scripted], classifier: [turns, none]}}
  - {{detector: [scripted], graph: [delaunay, {{name: knn, k: 3}}], classifier: [turns]}}
{more}"""
    )
    return path


def test_every_combination_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, prepared(tmp_path, 2), "  - {detector: [scripted], classifier: [turns]}\n")
    assert [method.name for method in methods_of(load_settings(Comparison, config))] == [
        "scripted + knn + turns",
        "scripted + knn + none",
        "scripted + delaunay + turns",
        "scripted + knn (k=3) + turns",
    ]


def test_figures_are_those_of_a_hand_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = config_of(tmp_path, prepared(tmp_path, 12, wrong=3)), tmp_path / "out"
    command = ["compare", "--config", str(config), "--out", str(out), "--device", "cpu"]
    assert run(monkeypatch, command) == 0
    printed = capsys.readouterr().out
    assert "test held: 12 fields, 12 of val" in printed
    rare_classes = [LEUKOCYTE_CLASSES[1], LEUKOCYTE_CLASSES[2]]
    assert f"fewer than ten cells of {', '.join(sorted(rare_classes))}: intervals are too narrow" in printed
    document = json.loads((out / "compare.json").read_text())
    scripted = {row["name"]: row for row in document["methods"]}
    held = scripted["scripted + knn + turns"]["tests"]["held"]
    assert (held["fields"], held["photos"], held["cells"], held["failed"]) == (12, 12, 24, 0)
    assert held["found"]["value"] == held["precise"]["value"] == 1
    # Nothing varies from draw to draw, which is no certainty.
    assert held["found"]["low"] == held["precise"]["low"] == round(clopper_pearson(12, 12)[0], 4)
    assert held["balanced"]["low"] < 0.6 and held["balanced"]["high"] > 0.75
    assert held["rare_classes"] == sorted(rare_classes)
    # Class 0 is right 12 times of 12, class 1 9 of 9, class 2 never of 3.
    assert held["balanced"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert held["p"] is None
    other = scripted["scripted + delaunay + turns"]["tests"]["held"]
    assert other["difference"]["value"] == 0 and other["p"] == 1
    assert scripted["scripted + knn + none"]["tests"]["held"]["balanced"]["value"] is None
    assert scripted["scripted + knn + none"]["label_ms_a_cell"] is None
    with (out / "compare.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 4
    assert (out / "compare.md").read_text().count("scripted + knn + turns") == 2
    page = (out / "compare.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page


def test_a_stopped_comparison_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = config_of(tmp_path, prepared(tmp_path, 6)), tmp_path / "out"
    command = ["compare", "--config", str(config), "--out", str(out), "--device", "cpu"]
    looked: list[int] = []
    scripted = detectors.get("scripted")
    original = scripted.detect

    def counted(self: object, smears: Sequence[Smear]) -> list[Cells]:
        looked.append(len(smears))
        if len(looked) == 4:
            signal.raise_signal(signal.SIGINT)
            threading.Event().wait(2)
        return original(self, smears)  # type: ignore[arg-type]

    monkeypatch.setattr(scripted, "detect", counted)
    assert run(monkeypatch, command) == 130
    for path in (out / "results").iterdir():
        # As after a power cut.
        with path.open("a") as stream:
            stream.write('{"field": "ha')
    assert run(monkeypatch, command) == 0
    assert len(looked) == 4 + 3
    first = (out / "compare.csv").read_bytes()
    assert run(monkeypatch, command) == 0
    assert len(looked) == 7 and (out / "compare.csv").read_bytes() == first


def test_corrected_annotations_are_answered_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = prepared(tmp_path, 3)
    config, out = config_of(tmp_path, fields), tmp_path / "out"
    command = ["compare", "--config", str(config), "--out", str(out), "--device", "cpu"]
    assert run(monkeypatch, command) == 0
    before = [field_key(one) for one in read_fields(fields)]
    rows = [json.loads(line) for line in fields.read_text().splitlines()]
    # A leukocyte more in one field, another class in the next, the third as it was.
    rows[0]["boxes"].append([20.0, 20.0, 29.0, 29.0])
    rows[0]["kinds"].append("leukocyte")
    rows[0]["labels"].append(LEUKOCYTE_CLASSES[0])
    rows[1]["labels"][0] = LEUKOCYTE_CLASSES[3]
    fields.write_text("".join(json.dumps(row) + "\n" for row in rows))
    after = [field_key(one) for one in read_fields(fields)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]
    assert run(monkeypatch, command) == 0
    held = json.loads((out / "compare.json").read_text())["methods"][0]["tests"]["held"]
    assert (held["fields"], held["cells"], held["failed"]) == (3, 7, 0)
    assert held["found"]["value"] == pytest.approx(6 / 7, abs=1e-4)


def test_a_test_without_splits_has_all_of_them(tmp_path: Path) -> None:
    config = config_of(tmp_path, prepared(tmp_path, 2))
    every = load_settings(Comparison, config, ["tests={all: [{dataset: drawn}]}"])
    assert [one.split for one in fields_of(every)["all"]] == ["val"] * 2
    none = load_settings(Comparison, config, ["tests={held: [{dataset: drawn, splits: [train]}]}"])
    with pytest.raises(DataError, match=r"there are: drawn \(lab one; split val\)"):
        fields_of(none)


def test_what_is_left_out_is_a_pipelines_own_default(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{fields: f, tests: {a: [{dataset: d}]}, compare: [{}]}")
    plain = load_settings(Comparison, tmp_path / "c.yaml")
    (method,) = methods_of(plain)
    assert method.config == PipelineConfig() and plain.baseline == method.name == "yolo + knn + hybrid"
    alone = load_settings(Comparison, tmp_path / "c.yaml", ["compare=[{classifier: [cnn, hybrid]}]"])
    assert alone.baseline == "yolo + knn + cnn"


def test_other_weights_or_parameters_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ResultStore(tmp_path / "a.jsonl", {"k": 1})
    ResultStore(tmp_path / "a.jsonl", {"k": 1})
    with pytest.raises(ConfigError, match="--restart"):
        ResultStore(tmp_path / "a.jsonl", {"k": 2})
    ResultStore(tmp_path / "a.jsonl", {"k": 2}, restart=True)


def test_a_field_that_fails_is_counted_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = prepared(tmp_path, 4)
    config, out = config_of(tmp_path, fields), tmp_path / "out"
    command = ["compare", "--config", str(config), "--out", str(out), "--device", "cpu"]
    (tmp_path / "1.png").write_bytes(b"no image")
    assert run(monkeypatch, command) == 3
    assert "1.png" in capsys.readouterr().err
    held = json.loads((out / "compare.json").read_text())["methods"][0]["tests"]["held"]
    assert (held["fields"], held["failed"]) == (3, 1)
    save(tmp_path / "1.png", 2, 0)
    assert run(monkeypatch, command) == 0


def test_a_baseline_that_is_not_compared_and_a_test_without_cells(tmp_path: Path) -> None:
    config = config_of(tmp_path, prepared(tmp_path, 2))
    with pytest.raises(ConfigError, match="baseline"):
        load_settings(Comparison, config, ["baseline=cnn"])
    empty = load_settings(Comparison, config, ["tests={held: [{dataset: other}]}"])
    with pytest.raises(DataError, match="'held'"):
        fields_of(empty)


def test_stored_values_are_counted() -> None:
    # 1,637,633 parameters with one output unit; five have four more units of 129.
    assert stored_values([find("leukocyte-altarawneh")]) == 1_637_633 + 4 * 129 + 2 * 64
    assert stored_values([]) is None
    assert stored_values([Path(__file__)]) is None
