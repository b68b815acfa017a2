"""The command line as users meet it: output, exit codes, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leukokit import __version__
from leukokit.cli import main
from leukokit.registry import isolated, writers
from leukokit.synthetic.smear import draw_smear, save_smear

EXAMPLE = Path(__file__).parents[2] / "examples" / "smear.png"

PLUGIN = '''
import numpy as np
from pydantic import Field
from leukokit.cells import Cells
from leukokit.detectors.base import Detector
from leukokit.plugin import PluginParams
from leukokit.registry import detectors


class MiddleParams(PluginParams):
    side: int = Field(10, ge=1, description="side of the box")


@detectors.register
class Middle(Detector):
    """One leukocyte in the middle."""

    name, version, summary = "middle", "0.3", "one leukocyte in the middle"
    Params = MiddleParams

    def detect(self, smears):
        return [self.one(smear.width / 2, smear.height / 2, self.params.side / 2) for smear in smears]

    def one(self, x, y, half):
        box = np.array([[x - half, y - half, x + half, y + half]])
        return Cells(box, np.array([0]), np.array([1.0]))
'''


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``main`` in this process."""
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["leukokit", *map(str, arguments)])
        patch.setenv("COLUMNS", "140")
        # What a --plugin registers ends with the command.
        with isolated(), pytest.raises(SystemExit) as stop:
            main()
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return int(stop.value.code or 0), out, err


def errors(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good image, one cut short and a text that calls itself an image."""
    folder = tmp_path_factory.mktemp("slides")
    save_smear(draw_smear(1, 400, 300, 2, 40.0), folder / "good.png")
    content = (folder / "good.png").read_bytes()
    (folder / "short.png").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("a note to myself")
    (folder / "good.json").unlink()
    return folder


def process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leukokit", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_example_gives_a_table_and_files(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capfd, "detect", EXAMPLE, "--out", tmp_path / "results", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "leukocytes" in out and "smear.png" in out and " px" in out
    written = {
        path.relative_to(tmp_path / "results").as_posix() for path in (tmp_path / "results").rglob("*")
    }
    assert {"smear.cells.png", "smear.json"} <= written
    assert any(name.endswith(".csv") for name in written)
    assert not [name for name in written if "part" in name]
    document = json.loads((tmp_path / "results" / "smear.json").read_text())
    assert 9 <= document["counts"]["leukocyte"] <= 11
    assert str(document["counts"]["erythrocyte"]) in out


def test_folder_with_bad_files_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    done = process("detect", folder, "--json", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    assert document["image"]["path"].endswith("good.png")
    assert document["counts"]["leukocyte"] == 2
    failed = errors(done.stderr)
    assert len(failed) == 2
    assert "short.png" in failed[0] and "truncated" in failed[0]
    assert "text.jpg" in failed[1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "--json alone writes no files"


def test_json_is_one_line_an_image_and_writes_where_asked(
    capfd: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    save_smear(draw_smear(2, 400, 300, 2, 40.0), tmp_path / "other.png")
    code, out, _ = run(
        capfd, "detect", folder / "good.png", tmp_path / "other.png",
        "--json", "--out", tmp_path / "out", "--save", "csv", "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    names = [Path(json.loads(line)["image"]["path"]).name for line in out.splitlines()]
    assert names == ["good.png", "other.png"]
    assert list((tmp_path / "out").rglob("*.csv"))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_nothing_good(capfd: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    code, out, err = run(
        capfd, "detect", folder / "text.jpg", tmp_path / "none.png",
        "--out", tmp_path / "out", "--save", "json", "--device", "cpu",
    )  # fmt: skip
    assert code == 1
    assert len(errors(err)) == len(err.splitlines()) == 2
    assert {name for name in ("text.jpg", "none.png") for line in errors(err) if name in line} == {
        "text.jpg",
        "none.png",
    }
    assert out.strip() == ""


def test_quiet_prints_nothing(capfd: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    code, out, err = run(
        capfd, "detect", folder / "good.png", "-q", "--out", tmp_path / "out", "--save", "json",
        "--device", "cpu",
    )  # fmt: skip
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "out" / "good.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--set", "detector.confidence=high"], 2, "confidence"),
        (["--set", "detector.colour=1"], 2, "colour"),
        (["--set", "nonsense"], 2, "KEY=VALUE"),
        (["--set", "colour=1"], 2, "colour: no such setting; there are: standardize, engine, time_limit"),
        (["--config", "none.yaml"], 2, "none.yaml"),
        (["--device", "tpu"], 2, "--device"),
        (["--device", "cpu", "--detector", "yoloo"], 2, "yolo"),
        (["--device", "cpu", "--save", "xml"], 2, "geojson"),
        (["--device", "cpu", "--plugin", "none.py"], 2, "none.py"),
        (["--device", "cpu", "--set", "detector.weights=none"], 1, "smear-yolo11n"),
    ],
)
def test_wrong_setting_is_one_line(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done, out, err = run(capfd, "detect", EXAMPLE, *arguments)
    assert done == code
    assert out == ""
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and word in err


@pytest.mark.parametrize("arguments", [["detect", "--colour"], ["detekt"], ["detect"]])
def test_wrong_usage(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, err = run(capfd, *arguments)
    assert code == 2
    assert out == "" and "Usage" in err


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from leukokit.errors import ConfigError

    monkeypatch.setattr(sys, "argv", ["leukokit", "detect", str(EXAMPLE), "--set", "x", "--debug"])
    with pytest.raises(ConfigError):
        main()


def test_detector_from_a_file(capfd: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "middle.py"
    own.write_text(PLUGIN)
    code, out, err = run(
        capfd, "detect", folder / "good.png", "--plugin", own, "--detector", "middle",
        "--set", "detector.side=20", "--json", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    assert [cell["box"] for cell in document["cells"]] == [[190, 140, 210, 160]]
    stored = document["provenance"]["detector"]
    assert (stored["name"], stored["version"], stored["params"]) == ("middle", "0.3", {"side": 20})
    code, _, err = run(
        capfd, "detect", folder / "good.png", "--plugin", own, "--detector", "middle",
        "--set", "detector.side=0", "--device", "cpu",
    )  # fmt: skip
    assert code == 2 and "side" in err
    code, out, _ = run(capfd, "plugins", "list", "--plugin", own)
    assert code == 0 and "middle" in out
    code, out, _ = run(capfd, "plugins", "info", "middle", "--plugin", own)
    assert code == 0 and "side of the box" in out


def test_plugin_file_that_fails(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "broken.py"
    own.write_text("1 / 0\n")
    code, _, err = run(capfd, "detect", EXAMPLE, "--plugin", own)
    assert code == 1
    assert len(err.splitlines()) == 1 and "broken.py" in err and "ZeroDivisionError" in err


def test_plugins_are_listed_and_explained(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "plugins", "list")
    assert code == 0
    for name in ("yolo", "coco", "csv", "geojson", "json", "png"):
        assert name in out.split()
    code, out, _ = run(capfd, "plugins", "info", "yolo")
    assert code == 0
    for parameter in ("confidence", "cell_diameter_px", "tile_px", "trust_pickle"):
        assert parameter in out
    code, _, err = run(capfd, "plugins", "info", "yoloo")
    assert code == 2 and "yolo" in err


def test_doctor(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "doctor")
    for word in (__version__, "torch", "device cpu", "detector yolo", "writer json", "weights smear-yolo11n"):
        assert word in out
    assert (code == 1) == ("problem" in out)


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "--version") == (0, f"leukokit {__version__}\n", "")
    code, out, _ = run(capfd, "--help")
    assert code == 0
    for command in ("detect", "train", "evaluate", "plugins", "data", "doctor"):
        assert command in out


def test_module_and_light_start(tmp_path: Path) -> None:
    done = process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"leukokit {__version__}\n")
    check = "import sys, leukokit.cli; print(sorted({'torch', 'cv2', 'scipy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


def test_plugins_of_a_package_have_its_version_and_info_has_their_own(
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, listed, _ = run(capfd, "plugins", "list")
    (row,) = [line.split() for line in listed.splitlines() if line.startswith("writer") and " png " in line]
    assert row == ["writer", "png", "leukokit", __version__, "ok"]
    version = writers.get("png").version
    assert version != __version__, "else this test shows nothing"
    _, described, _ = run(capfd, "plugins", "info", "png")
    assert described.startswith(f"writer png {version}: ")
    _, checked, _ = run(capfd, "doctor")
    assert f"{version} (leukokit {__version__})" in checked


def test_an_unknown_plugin_is_sought_in_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "detect", EXAMPLE, "--save", "brief", "--device", "cpu")
    assert code == 2
    assert "no writer is called 'brief'; there are: " in err and "--plugin" in err


def test_texts_of_plugins_are_no_markup(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "marked.py"
    own.write_text(
        PLUGIN.replace("one leukocyte in the middle", "[/red] [bold]x").replace("side of the box", "[/]")
    )
    for command in (["plugins", "list"], ["plugins", "info", "middle"]):
        code, out, err = run(capfd, *command, "--plugin", own)
        assert (code, err) == (0, "")
    assert "[/red] [bold]x" in out and "[/]" in out
