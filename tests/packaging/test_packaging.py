"""Files beside the package agree with it: the conda recipe, the release script, the cluster example."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import leukokit
from leukokit.synthetic.smear import draw_smear

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "opencv-python-headless": "py-opencv",
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",
    "ultralytics-opencv-headless": "ultralytics",
}

needs_bash = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="the scripts need bash"
)


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def recipe() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "conda" / "recipe" / "recipe.yaml").read_text(encoding="utf-8")))


def test_the_conda_recipe_requires_what_the_package_requires() -> None:
    required = set()
    for requirement in project()["dependencies"]:
        name, version = re.split(r"(?=>=)", requirement)
        required.add(f"{CONDA_NAMES.get(name, name)} {version}")
    listed = {entry for entry in recipe()["requirements"]["run"] if not entry.startswith("python ")}
    assert listed == required


def test_the_conda_recipe_has_the_version_and_the_command() -> None:
    assert f'default="{leukokit.__version__}"' in recipe()["context"]["version"]
    commands = [f"{name} = {target}" for name, target in project()["scripts"].items()]
    assert recipe()["build"]["python"]["entry_points"] == commands


def released(tmp_path: Path, tag: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the release script where CHANGELOG.md has a section for 0.2.0; return it and the new source."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "leukokit").mkdir()
    shutil.copy(ROOT / "tools" / "set_version.sh", tmp_path / "tools")
    source = tmp_path / "leukokit" / "__init__.py"
    shutil.copy(ROOT / "leukokit" / "__init__.py", source)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [0.2.0] - 2027-01-01\n")
    run = subprocess.run(
        ["bash", str(tmp_path / "tools" / "set_version.sh"), tag], capture_output=True, text=True, check=False
    )
    return run, source.read_text(encoding="utf-8")


@needs_bash
def test_the_tag_gives_the_version(tmp_path: Path) -> None:
    run, source = released(tmp_path, "v0.2.0")
    assert run.returncode == 0, run.stderr
    assert '__version__ = "0.2.0"\n' in source


@needs_bash
@pytest.mark.parametrize(("tag", "message"), [("0.2.0", "begins with v"), ("v0.3.0", "no section")])
def test_a_tag_that_cannot_be_released_is_refused(tmp_path: Path, tag: str, message: str) -> None:
    run, source = released(tmp_path, tag)
    assert run.returncode == 1
    assert message in run.stderr
    assert f'__version__ = "{leukokit.__version__}"\n' in source


SBATCH = """#!/usr/bin/env bash
# Runs a job at once, as the scheduler would later: each task of an array, then what depends on it.
set -euo pipefail
tasks=0
while [[ $1 == --* ]]; do
  case $1 in --array=1-*) tasks=${1#--array=1-} ;; esac
  shift
done
if [ "$tasks" -gt 0 ]; then
  for task in $(seq "$tasks"); do
    SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$tasks bash "$@" >&2
  done
  echo "7;cluster"
else
  SLURM_JOB_ID=8 bash "$@"
fi
"""


@needs_bash
def test_the_cluster_example_counts_shards_and_merges_them(tmp_path: Path) -> None:
    smears = tmp_path / "smears"
    smears.mkdir()
    for seed in (1, 2, 3):
        field = draw_smear(seed, 320, 240, 2, 40.0)
        Image.fromarray(field.image).save(smears / f"field-{seed}.png")
    scheduler = tmp_path / "bin" / "sbatch"
    scheduler.parent.mkdir()
    scheduler.write_text(SBATCH)
    scheduler.chmod(0o755)
    programs = [str(scheduler.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    script = ROOT / "examples" / "slurm.sbatch"
    run = subprocess.run(
        ["bash", str(script), str(smears), str(tmp_path / "results")],
        env={**os.environ, "PATH": os.pathsep.join(programs), "SHARDS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    counts = (tmp_path / "results" / "all" / "counts.csv").read_text(encoding="utf-8")
    assert [f"field-{seed}.png" in counts for seed in (1, 2, 3)] == [True] * 3
