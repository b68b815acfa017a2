"""The benchmarks run on small inputs, and write their figures with the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import records

SMALL = {
    "classifiers": ["--runs", "1"],
    "graphs": ["--cells", "1000", "--runs", "1"],
    "standardize": ["--runs", "1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_writes_the_figures_that_the_history_draws(name: str, tmp_path: Path) -> None:
    script = records.ROOT / "benchmarks" / f"{name}.py"
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(script), *SMALL[name], "--json", str(figures)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["machine"]["cores"] >= 1
    drawn = records.flatten({key: value for key, value in document.items() if key != "machine"})
    assert [path for path in drawn if records.is_drawn(name, path)]
