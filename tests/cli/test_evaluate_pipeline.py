"""``leukokit evaluate``: figures as JSON, as tables and as a picture; errors of one line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from leukokit import weights
from leukokit.cli import main
from leukokit.config import DEFAULT_PLUGINS, PipelineConfig, PluginChoice
from leukokit.datasets.detected import detect_fields
from leukokit.datasets.fields import AnnotatedField, read_fields, write_fields
from leukokit.pipeline import Pipeline
from leukokit.registry import classifiers, detectors, graph_builders, load_plugin_file

PLUGIN = '''
import numpy as np
from leukokit.cells import Cells
from leukokit.classifiers.base import Classifier
from leukokit.detectors.base import Detector
from leukokit.registry import classifiers, detectors


@detectors.register
class Corner(Detector):
    """One leukocyte in the upper left corner."""

    name, version, summary = "corner", "0.1", "one leukocyte in the corner"

    def detect(self, smears):
        box = np.array([[5.0, 5.0, 25.0, 25.0]])
        return [Cells(box, np.array([0]), np.array([0.9])) for _ in smears]


@classifiers.register
class Always(Classifier):
    """Says one class of all."""

    name, version, summary = "always", "0.1", "one class of all"
    classes = ("neutrophil", "lymphocyte")

    def classify(self, smears, graphs):
        return [np.tile(np.float32([0.8, 0.2]), (len(graph), 1)) for graph in graphs]
'''


def run(
    capfd: pytest.CaptureFixture[str], *arguments: object, what: str = "pipeline"
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``leukokit evaluate`` in this process, 80 columns wide."""
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        command = ["leukokit", "evaluate", what, *map(str, arguments), "--device", "cpu"]
        patch.setattr(sys, "argv", command)
        patch.setenv("COLUMNS", "80")
        for registry in (detectors, graph_builders, classifiers):
            patch.setattr(registry, "_registered", dict(registry._registered))
        with pytest.raises(SystemExit) as stop:
            main()
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return int(stop.value.code or 0), out, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures: a neutrophil in the corner, a lymphocyte there, and a picture that is one cell."""
    (tmp_path / "own.py").write_text(PLUGIN)
    corner, whole = [5.0, 5.0, 25.0, 25.0], [0.0, 0.0, 80.0, 60.0]
    fields = []
    for name, box, label, dataset in (
        ("a", corner, "neutrophil", "smears"),
        ("b", corner, "lymphocyte", "smears"),
        ("c", whole, "lymphocyte", "single"),
    ):
        Image.new("RGB", (80, 60), (230, 220, 225)).save(tmp_path / f"{name}.png")
        complete = ("leukocyte",) if box is corner else ()
        fields.append(
            AnnotatedField(
                tmp_path / f"{name}.png",
                dataset,
                "lab",
                name,
                f"slide-{name}",
                "test",
                complete,
                [box],
                ["leukocyte"],
                [label],
            )
        )
    write_fields(tmp_path / "fields.jsonl", fields)
    return tmp_path


def options(folder: Path) -> tuple[object, ...]:
    fields, own = folder / "fields.jsonl", folder / "own.py"
    return ("--fields", fields, "--plugin", own, "--detector", "corner", "--classifier", "always")


def test_json_file_and_picture(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    out, picture = folder / "figures.json", folder / "confusion.png"
    code, stdout, err = run(
        capfd, *options(folder), "--graph", "delaunay", "--dataset", "smears", "--json",
        "--out", out, "--picture", picture,
    )  # fmt: skip
    assert code == 0, err
    figures = json.loads(stdout)
    assert figures == json.loads(out.read_text())
    assert (figures["fields"], figures["cells"], figures["with_threshold"]) == (2, 2, None)
    assert figures["forced"]["balanced_recall"] == 0.5
    assert figures["confusion"]["counts"] == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert figures["provenance"]["graph"]["name"] == "delaunay"
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_tables_and_choice_of_slides(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capfd, *options(folder), "--slide", "slide-b")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert ["lymphocyte", "1", "0.000", "-", "0.000", "100.0", "0.0"] in rows
    assert ["no", "cell", "there", "0", "0", "0", "0", "0"] in rows
    assert "fewer than ten cells of lymphocyte: intervals are too narrow" in out
    # A pipe is as wide as its tables.
    assert "…" not in out and " 0.000 (0.000-0.975)" in out


def test_figures_are_kept_in_the_card(
    capfd: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry in (detectors, classifiers):
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    load_plugin_file(folder / "own.py")
    choice = PluginChoice(name="corner")
    detect_fields(
        read_fields(folder / "fields.jsonl"),
        Pipeline.from_config(PipelineConfig(detector=choice, classifier=None), "cpu"),
        folder / "cells",
        report=lambda _: None,
    )
    monkeypatch.undo()
    card = Path(shutil.copy(weights.FOLDER / "leukocyte-cnn.json", folder))
    given = ("--cells", folder / "cells", "--plugin", folder / "own.py", "--classifier", "always")
    code, out, err = run(capfd, *given, "--card", card, "--title", "corners", "--json", what="classifier")
    assert code == 0, err
    (kept,) = [entry for entry in json.loads(card.read_text())["metrics"] if entry["title"] == "corners"]
    assert (kept["cells"], kept["photos"]) == (3, 3) and kept["accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert kept["accuracy_interval"] == pytest.approx(
        json.loads(out)["forced"]["accuracy_interval"], abs=1e-4
    )
    assert kept["recalls"] == {
        "neutrophil": {"cells": 1, "recall": 1.0},
        "lymphocyte": {"cells": 2, "recall": 0.0},
    }


@pytest.mark.parametrize("what", ["detector", "pipeline"])
def test_fields_that_fail_are_said_and_cost_the_exit_code(
    capfd: pytest.CaptureFixture[str], folder: Path, what: str
) -> None:
    (folder / "b.png").write_bytes(b"no image")
    given = options(folder)[:6] + (options(folder)[6:] if what == "pipeline" else ())
    code, out, err = run(capfd, *given, "--dataset", "smears", "--json", what=what)
    figures = json.loads(out)
    assert code == 3 and err.startswith("error: ") and "b.png" in err
    assert (figures["fields"], figures["photos"], len(figures["failures"])) == (1, 1, 1)
    (folder / "a.png").write_bytes(b"no image")
    code, out, err = run(capfd, *given, "--dataset", "smears", what=what)
    assert code == 1 and out == "" and "every field" in err and len(err.splitlines()) == 1


def test_help_tells_the_defaults_that_are_used(capfd: pytest.CaptureFixture[str]) -> None:
    for what in ("pipeline", "classifier"):
        code, out, _ = run(capfd, "--help", what=what)
        told = " ".join(out.replace("│", " ").split())
        assert code == 0 and f"[default: ({DEFAULT_PLUGINS['classifier']})]" in told
        assert f"Graph builder plugin. [default: ({DEFAULT_PLUGINS['graph']})]" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "single: "),
        (
            ["--dataset", "smears", "--split", "train"],
            "there are: single (lab lab; split test), smears (lab lab; split test)",
        ),
        (["--dataset", "smears", "--classifier", "none"], "no classifier"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    capfd: pytest.CaptureFixture[str], folder: Path, arguments: list[str], said: str
) -> None:
    code, out, err = run(capfd, *options(folder), *arguments)
    assert code != 0 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and said in err
