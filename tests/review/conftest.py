"""What the tests of reviewing share: a batch of the drawn smear, copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from leukokit.batch import run_batch

SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"


@pytest.fixture(scope="session")
def finished_batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("review")
    for slide in ("slide-1", "slide-2"):
        (root / "smears" / slide).mkdir(parents=True)
        shutil.copyfile(SMEAR, root / "smears" / slide / "field.png")
    run_batch(root / "smears", root / "results", group_by="folder")
    return root / "results"


@pytest.fixture
def results(finished_batch: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_batch, tmp_path / "results"))
