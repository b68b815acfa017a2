"""The same counts and labels by every engine, on drawn smears and on real ones where they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leukokit.pipeline import Pipeline
from leukokit.smear import Smear
from leukokit.synthetic.smear import draw_smear

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("classifier", ["hybrid", "cnn", "altarawneh"])
def test_drawn_smears(engine: str, classifier: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    by_torch, other = (
        Pipeline(classifier=classifier, engine=name, device="cpu") for name in ("torch", engine)
    )
    for seed, diameter in enumerate((30.0, 44.0, 66.0)):
        smear = Smear.from_array(draw_smear(seed, 400, 320, 3, diameter).image)
        expected, result = by_torch.run(smear), other.run(smear)
        found = result.cells
        assert found.counts == expected.cells.counts and found.counts["leukocyte"] >= 2
        assert found.class_counts == expected.cells.class_counts
        assert np.abs(np.sort(found.scores) - np.sort(expected.cells.scores)).max() < 1e-4
        assert result.provenance["engines"]["detector"].startswith(engine)


@pytest.mark.slow
@pytest.mark.parametrize("fields", ["drawn", "real"])
def test_three_hundred_fields(fields: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    if fields == "real" and not (ROOT.parent / "shared" / "data").is_dir():
        pytest.skip("the real smears of ../shared/data are not here")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "benchmarks/parity.py", "--fields", fields, "--json", str(figures)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = json.loads(figures.read_text())
    for name in ("onnxruntime", "openvino"):
        assert found[name]["fields"] >= 300
        assert (found[name]["counts"], found[name]["labels"]) == (0, 0), name
        assert found[name]["largest"]["box"] < 0.01 and found[name]["largest"]["probability"] < 1e-3
