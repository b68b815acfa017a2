"""``plugins new`` and ``check``: what is written installs, is listed and keeps its contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from leukokit.cli import main
from leukokit.plugin import API_VERSION
from leukokit.registry import DISABLE
from leukokit.scaffold import NEW_KINDS, NewKind, create, kind_registry

PYTHON = [sys.executable, "-m"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers and imports is forgotten."""
    # Here, so that what a check puts on the path is taken off it again.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("leukokit_", "acme_")):
            del sys.modules[name]


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``leukokit plugins`` in this process."""
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["leukokit", "plugins", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return int(stop.value.code or 0), out, err


def install(package: Path, site: Path) -> None:
    """What ``pip install -e`` leaves behind: the metadata, and the source folder on the path."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_a_new_package_is_listed_and_passes_its_checks(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: NewKind
) -> None:
    code, out, _ = run(capfd, "new", kind, "acme-new", "--out", tmp_path)
    package = tmp_path / "leukokit-acme-new"
    assert code == 0 and f"pip install -e {package}" in out
    assert sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()) == [
        "README.md",
        "pyproject.toml",
        "src/leukokit_acme_new/__init__.py",
        "src/leukokit_acme_new/plugin.py",
        "tests/test_acme_new.py",
    ]
    code, out, err = run(capfd, "check", package)
    assert code == 0, out + err
    assert "checks passed" in out and "peak memory" in out
    install(package, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(package / "src")
    code, out, _ = run(capfd, "list")
    (line,) = [line for line in out.splitlines() if "acme-new" in line]
    assert line.split() == [*kind_registry(kind).kind.split(), "acme-new", "leukokit-acme-new", "0.1.0", "ok"]
    code, out, _ = run(capfd, "info", "acme-new")
    assert code == 0 and "acme-new 0.1.0" in out
    assert run(capfd, "check", "acme-new")[0] == 0
    code, _, err = run(capfd, "new", kind, "acme-new", "--out", tmp_path / "again")
    assert code == 2 and "exists already (leukokit-acme-new)" in err
    code, _, err = run(
        capfd, "new", "writer" if kind != "writer" else "detector", "acme-new", "--out", tmp_path
    )
    assert code == 2 and "package leukokit-acme-new is installed already" in err
    monkeypatch.setenv(DISABLE, "leukokit-acme-new")
    code, out, _ = run(capfd, "list")
    assert [line.split()[-1] for line in out.splitlines() if "acme-new" in line] == ["disabled"]
    for command in ("info", "check"):
        code, _, err = run(capfd, command, "acme-new")
        assert code == 1 and f"is disabled by {DISABLE}" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_a_new_file_passes_its_checks(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, kind: NewKind
) -> None:
    code, out, _ = run(capfd, "new", kind, "acme-new", "--single-file", "--out", tmp_path)
    file = tmp_path / "acme_new.py"
    assert code == 0 and f"leukokit plugins check {file}" in out
    assert [path.name for path in tmp_path.iterdir()] == ["acme_new.py"]
    earlier = kind_registry(kind).registered()
    code, out, err = run(capfd, "check", file, "--verbose")
    assert code == 0, out + err
    assert "failed" not in out and "no network" not in out and "works without network" in out
    (plugin,) = [found for found in kind_registry(kind).registered() if found not in earlier]
    assert plugin.api_version == API_VERSION  # type: ignore[attr-defined]  # a plugin has it


def test_what_is_written_is_tidy(tmp_path: Path) -> None:
    for kind in NEW_KINDS:
        create(kind, f"acme-{kind}", tmp_path)
    create("writer", "acme-one", tmp_path, single_file=True)
    for folder in (tmp_path / f"leukokit-acme-{kind}" for kind in NEW_KINDS):
        for command in (["check", "--select", "E,F,I,UP,B,SIM,RUF,PTH"], ["format", "--check"]):
            line = [*PYTHON, "ruff", *command, "--no-cache", "--line-length", "110", "."]
            done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_a_new_package_pass(tmp_path: Path) -> None:
    package = create("graph-builder", "acme-new", tmp_path)
    line = [*PYTHON, "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(line, cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.slow
def test_a_new_package_is_installed_by_pip(tmp_path: Path) -> None:
    package, target = create("classifier", "acme-new", tmp_path), tmp_path / "target"
    line = [*PYTHON, "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(package)]
    done = subprocess.run(line, capture_output=True, text=True)
    if "hatchling" in done.stderr and done.returncode:
        pytest.skip("pip could not fetch hatchling, which builds the package")
    assert done.returncode == 0, done.stderr
    for command in (["list"], ["check", "acme-new"]):
        shown = subprocess.run(
            [*PYTHON, "leukokit", "plugins", *command],
            env={**os.environ, "PYTHONPATH": str(target), "COLUMNS": "200"},
            capture_output=True,
            text=True,
        )
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert "acme-new" in shown.stdout


@pytest.mark.parametrize(
    "name",
    ["", "My-Net", "my_net", "my net", "1st", "-net", "net-", "a--b", "../net", "net\n", "nét", "all",
     "x" * 41, "leukokit", "leukokit-net", "$name", "net.py"],
)  # fmt: skip
def test_bad_names_are_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    for more in ([], ["--single-file"]):
        code, _, err = run(capfd, "new", "writer", "--out", tmp_path / "out", *more, "--", name)
        assert code == 2 and len(err.splitlines()) == 1 and err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_taken_names_and_targets_are_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capfd, "new", "writer", "json", "--out", tmp_path)
    assert code == 2 and "a writer 'json' exists already (leukokit)" in err
    assert run(capfd, "new", "detector", "json", "--out", tmp_path)[0] == 0
    code, _, err = run(capfd, "new", "detector", "json", "--out", tmp_path)
    assert code == 1 and "leukokit-json exists already" in err
    (tmp_path / "acme.py").symlink_to(tmp_path / "gone")
    code, _, err = run(capfd, "new", "detector", "acme", "--single-file", "--out", tmp_path)
    assert code == 1 and "acme.py exists already" in err
    (tmp_path / "file").write_text("")
    for more in ([], ["--single-file"]):
        code, _, err = run(capfd, "new", "detector", "other", "--out", tmp_path / "file", *more)
        assert code == 1 and "cannot be written" in err and len(err.splitlines()) == 1
    assert run(capfd, "new", "gadget", "other", "--out", tmp_path)[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acme.py", "file", "leukokit-json"]


BROKEN = """
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import graph_builders
import numpy as np

@graph_builders.register
class Bad(GraphBuilder):
    name, version, summary = "acme-bad", "1", "no [good]"

    def pairs(self, points, unit):
        return np.array([[0], [len(points)]])

@graph_builders.register
class Good(GraphBuilder):
    name, version, summary = "acme-good", "1", "none"

    def pairs(self, points, unit):
        return np.empty((2, 0), np.int64)
"""


def test_check_tells_what_fails(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "acme_two.py"
    file.write_text(BROKEN)
    code, out, _ = run(capfd, "check", file)
    assert code == 1
    lines = out.splitlines()
    (broken,) = [line for line in lines if line.startswith("graph builder 'acme-bad'")]
    (good,) = [line for line in lines if line.startswith("graph builder 'acme-good'")]
    assert "27 of 27 checks passed" in good and "27 of 27" not in broken
    (row,) = [line for line in lines if " two cells " in line]
    assert row.startswith("failed") and "pairs must be of cells numbered from 0 to 1" in row
    assert "no cell" not in out
    assert run(capfd, "check", "acme-good", "--plugin", file)[0] == 0


def test_check_ends_when_a_plugin_hangs(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "acme_slow.py"
    text = BROKEN.replace("return np.array", "import time; time.sleep(20)\n        return np.array")
    file.write_text(text.split("@graph_builders.register\nclass Good")[0])
    line = [*PYTHON, "leukokit", "plugins", "check", str(file), "--time-limit", "0.3"]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=15, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 1
    assert "did not finish within 0.3 s" in done.stdout and "acme-bad" in done.stdout


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("acme-none", "no plugin, .py file or folder is called 'acme-none'; there are: "),
        ("gone.py", "gone.py: no such plugin file"),
        ("empty.py", "empty.py: registers no plugin"),
        ("boom.py", "ZeroDivisionError"),
        ("bare", "bare: no pyproject.toml"),
        ("torn", "cannot be read"),
        ("plain", "has no entry points of leukokit's groups"),
        ("away", "writer 'acme' (acme_away:Thing) cannot be imported: ModuleNotFoundError"),
        ("other", "is imported from"),
    ],
)
def test_what_cannot_be_checked(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "boom.py").write_text("1 / 0")
    entry = '[project.entry-points."leukokit.writers"]\nacme = "{}"\n'
    projects = {
        "torn": "[project",
        "plain": '[project]\nname = "plain"\n',
        "away": entry.format("acme_away:Thing"),
        "other": entry.format("leukokit.writers.json:JsonWriter"),
    }
    (tmp_path / "bare").mkdir()
    for name, text in projects.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(text)
    code, _, err = run(capfd, "check", target)
    assert code == (2 if "acme-none" in target or target.endswith("gone.py") else 1)
    assert said in err and len(err.splitlines()) == 1


def test_a_name_of_two_kinds(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "check", "yolo", "--kind", "writer")
    assert code == 0 and "writer 'yolo'" in out and "detector" not in out
    code, _, err = run(capfd, "check", "knn", "--kind", "writer")
    assert code == 2 and "no writer is called 'knn'" in err


LOST = """import numpy as np
from pathlib import Path
from leukokit.graph_builders.base import GraphBuilderParams

class P(GraphBuilderParams):
    weights: Path = Path("gone.safetensors")
"""


def test_info_shows_the_card(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capfd, "info", "cnn")
    card = json.loads(
        (Path(main.__globals__["__file__"]).parents[1] / "weights/leukocyte-cnn.json").read_text()
    )
    assert code == 0 and card["sha256"] in out and "neutrophil, lymphocyte" in out and "CC BY 4.0" in out
    assert "sha256" not in run(capfd, "info", "knn")[1]
    file = tmp_path / "acme_lost.py"
    with_weights = BROKEN.replace('"none"', '"none"\n    Params = P')
    file.write_text(with_weights.replace("import numpy as np", LOST))
    code, out, _ = run(capfd, "info", "acme-good", "--plugin", file)
    assert code == 0 and "gone.safetensors: no such weight file" in out


def test_listing_stays_light_with_a_plugin_switched_off() -> None:
    program = """
import sys
from leukokit.cli import main
sys.argv = ["leukokit", "plugins", "list"]
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {"torch", "ultralytics", "matplotlib", "leukokit.testing", "leukokit.scaffold"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, DISABLE: "cnn", "COLUMNS": "200"},
    )
    *shown, last = done.stdout.splitlines()
    assert last == "[]"
    assert [line.split()[-1] for line in shown if line.startswith("classifier  ") and " cnn " in line] == [
        "disabled"
    ]
