"""The stress script runs, and finds nothing that hangs, breaks or is wrong without a word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "stress.py"


@pytest.mark.slow
def test_hostile_images_names_and_cards(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "images", "names", "cards", "--cases", "24"]
    ended = subprocess.run(
        [*command, "--json", str(tmp_path / "figures.json")], capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    for figures in json.loads((tmp_path / "figures.json").read_text()).values():
        assert figures["tried"] > 20 and figures["done"] + figures["clear"] >= figures["tried"]
        assert not (figures["hangs"] or figures["tracebacks"] or figures["wrong"])
