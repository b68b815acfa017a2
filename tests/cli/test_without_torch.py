"""On a CPU no command that processes images imports torch, nor what it drags in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "smear.png"
HEAVY = ("torch", "torchvision", "ultralytics", "torch_geometric", "matplotlib", "openvino", "onnx")

FORBID = f"""
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ImportError(f"{{name}} is imported")

sys.meta_path.insert(0, Forbid())
from leukokit.cli import app
try:
    app(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
assert not [name for name in sys.modules if name.partition(".")[0] in {HEAVY}]
"""


@pytest.mark.parametrize("classifier", ["hybrid", "cnn", "altarawneh"])
def test_detect(tmp_path: Path, classifier: str) -> None:
    out = run("detect", EXAMPLE, "--json", "--out", tmp_path / "out", "--classifier", classifier)
    counts = json.loads(out)["counts"]
    assert counts["leukocyte"] > 5 and counts["erythrocyte"] > 100


def test_batch(tmp_path: Path) -> None:
    run("batch", EXAMPLE, "--out", tmp_path / "out", "--quiet")
    assert (tmp_path / "out" / "report.html").exists()


def test_graph(tmp_path: Path) -> None:
    run("graph", EXAMPLE, "--out", tmp_path / "graph.graphml")
    assert (tmp_path / "graph.graphml").exists()


def run(*arguments: str | Path) -> str:
    command = [sys.executable, "-c", FORBID, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
