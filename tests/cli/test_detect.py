"""What ``leukokit detect`` prints of the classes of leukocytes."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from rich.console import Console

from leukokit.batch.manifest import Manifest
from leukokit.cells import Cells, Labelling
from leukokit.cli import main
from leukokit.cli.detect_output import print_classes, print_differential, print_row
from leukokit.differential import differential
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.synthetic.smear import draw_smear, save_smear
from leukokit.taxonomy import ERYTHROBLAST, IMMATURE_GRANULOCYTE, LEUKOCYTE_CLASSES, UNCLASSIFIED

EXAMPLE = Path(__file__).parents[2] / "examples" / "smear.png"
ALL = (*LEUKOCYTE_CLASSES, IMMATURE_GRANULOCYTE, ERYTHROBLAST)


def counted(counts: dict[str, int], labelled: bool = True) -> SmearResult:
    """A field with so many leukocytes of each class."""
    rows = [
        np.full(len(ALL), 1 / len(ALL)) if name == UNCLASSIFIED else np.eye(len(ALL))[ALL.index(name)]
        for name, count in counts.items()
        for _ in range(count)
    ]
    boxes = np.tile([1.0, 1.0, 9.0, 9.0], (len(rows), 1)).reshape(-1, 4)
    cells = Cells(boxes, np.zeros(len(rows), int), np.ones(len(rows), np.float32))
    if labelled:
        cells = cells.with_labelling(
            Labelling(np.array(rows).reshape(-1, len(ALL)), ALL, review_threshold=0.5)
        )
    smear = Smear.from_array(np.zeros((10, 10, 3), np.uint8), Path("ward 3/smear.png"))
    return SmearResult(smear, cells, Path("smear"))


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    text = to.file.getvalue()
    assert all(len(line) <= to.width for line in text.splitlines())
    return text


def test_classes_stand_on_one_line_below_the_row() -> None:
    to = console()
    result = counted({"neutrophil": 4, "lymphocyte": 3, UNCLASSIFIED: 1})
    print_row(to, result, first=True)
    print_classes(to, result)
    lines = printed(to).splitlines()
    assert len(lines) == 3
    assert lines[2] == "  neutrophil 4  lymphocyte 3  unclassified 1"


@pytest.mark.parametrize("result", [counted({}), counted({"neutrophil": 2}, labelled=False)])
def test_nothing_is_said_where_there_is_no_class(result: SmearResult) -> None:
    to = console()
    print_classes(to, result)
    assert printed(to) == ""


@pytest.mark.parametrize("width", [30, 80, 200])
def test_many_classes_break_between_entries_only(width: int) -> None:
    to = console(width)
    counts = dict.fromkeys((*ALL, UNCLASSIFIED), 12)
    print_classes(to, counted(counts))
    lines = printed(to).splitlines()
    assert len(lines) == {30: 6, 80: 2, 200: 1}[width]
    entries = [entry for line in lines for entry in line.strip().split("  ")]
    assert entries == [f"{name} 12" for name in counts]


def test_the_differential_has_n_percent_and_limits() -> None:
    to = console()
    counts = {"neutrophil": 50, "lymphocyte": 49, "basophil": 1, ERYTHROBLAST: 3, UNCLASSIFIED: 2}
    print_differential(to, differential(counts), 4)
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed(to).splitlines() if line]
    assert rows[0] == ["differential of 4 images", "n", "%", "95% interval"]
    assert rows[1] == ["neutrophil", "50", "50.0", "39.8 - 60.2"]
    assert rows[3] == ["basophil", "1", "1.0", "0.0 - 5.4"]
    assert rows[4] == ["classified leukocytes", "100"]
    assert rows[5] == ["unclassified 2, to review; not in the percentages"]
    assert rows[6] == ["erythroblasts 3, 3.0 per 100 leukocytes; not counted as leukocytes"]
    assert len(rows) == 7, "100 leukocytes are enough"


def test_few_leukocytes_are_said() -> None:
    to = console()
    print_differential(to, differential({"neutrophil": 99}), 1)
    text = printed(to)
    assert "differential of 1 image " in text
    assert "n = 99: a differential count needs 100" in text
    assert "unclassified" not in text and "erythroblasts" not in text


def test_a_differential_of_nothing_is_no_table() -> None:
    to = console()
    print_differential(to, differential({"neutrophil": 0, ERYTHROBLAST: 1, UNCLASSIFIED: 2}), 1)
    text = printed(to)
    assert "n = 0: " in text and "%" not in text
    assert "unclassified 2" in text and "erythroblasts 1; not" in text


def test_tables_of_a_batch_are_not_replaced(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with Manifest(tmp_path, {}), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["leukokit", "detect", str(EXAMPLE), "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 2
    assert "holds a batch" in capfd.readouterr().err
    assert not (tmp_path / "counts.csv").exists()


BUSY = """
import sys
import torch
from pathlib import Path
from leukokit.detectors.base import Detector
from leukokit.registry import detectors

@detectors.register
class Busy(Detector):
    name, version, summary = "busy", "1", "computes in native code, for long"

    def detect(self, smears):
        Path(__file__).with_suffix(".begun").touch()
        matrix = torch.rand(2500, 2500)
        while True:
            matrix = torch.nn.functional.normalize(matrix @ matrix)
"""


def test_ctrl_c_while_a_plugin_computes_is_said_and_ends_in_order(tmp_path: Path) -> None:
    plugin = tmp_path / "busy.py"
    plugin.write_text(BUSY)
    options = ["--plugin", str(plugin), "--detector", "busy", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "leukokit", "detect", str(EXAMPLE), *options, "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not plugin.with_suffix(".begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "stopped: 0 of 1 images are saved\n"


def test_builder_and_classifier_are_chosen(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        options = ["--graph", "delaunay", "--classifier", "none", "--save", "json,graphml", "--device", "cpu"]
        patch.setattr(sys, "argv", ["leukokit", "detect", str(EXAMPLE), "--out", str(tmp_path), *options])
        with pytest.raises(SystemExit) as stop:
            main()
    out, err = capfd.readouterr()
    assert (stop.value.code or 0, err) == (0, "")
    assert "differential" not in out
    document = json.loads((tmp_path / "smear.json").read_text())
    assert document["differential"] is None
    assert document["graph"]["builder"] == "delaunay"
    found = nx.read_graphml(tmp_path / "smear.graphml")
    assert found.number_of_nodes() == len(document["cells"]) > 0
    assert found.number_of_edges() == len(document["graph"]["edges"]) > 0


def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """Exit code and what is printed of ``leukokit detect`` with no classifier."""
    options = ["--classifier", "none", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["leukokit", "detect", *arguments, *options])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """A folder of two small fields."""
    folder = tmp_path / "fields"
    folder.mkdir()
    for number in (1, 2):
        save_smear(draw_smear(number, 200, 160, 1, 40.0), folder / f"{number}.png")
    return folder


def test_tables_of_an_earlier_run_that_are_replaced_are_told(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fields: Path, tmp_path: Path
) -> None:
    there = ["--out", str(tmp_path / "out")]
    code, said, _ = run(capfd, monkeypatch, str(fields / "1.png"), *there)
    assert (code, "earlier run" in said) == (0, False)
    code, said, _ = run(capfd, monkeypatch, str(fields / "2.png"), *there)
    assert (code, "cells.csv, counts.csv of an earlier run replaced" in said) == (0, True)


FICKLE = """
from leukokit.registry import writers
from leukokit.writers.base import Writer

@writers.register
class Fickle(Writer):
    name, version, summary = "fickle", "1", "fails on one image"

    def write(self, result):
        if result.smear.path.stem == "1":
            raise ValueError("not this one")
        self.save(self.out / "2.txt", "")


@writers.register
class Endless(Writer):
    name, version, summary = "endless", "1", "cannot finish"

    def write(self, result):
        pass

    def close(self):
        raise ValueError("no end")
"""


@pytest.mark.parametrize(
    ("save", "code", "told", "images"),
    [
        ("csv,fickle", 3, r"\S+1\.png: writer 'fickle' failed \(ValueError: not this one\)", ["2.png"]),
        ("endless,csv", 1, r"writer 'endless' failed at its end \(ValueError: no end\)", ["1.png", "2.png"]),
    ],
)
def test_a_writer_that_fails_costs_an_image_at_most(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fields: Path,
    tmp_path: Path,
    save: str,
    code: int,
    told: str,
    images: list[str],
) -> None:
    (tmp_path / "fickle.py").write_text(FICKLE)
    options = ["--plugin", str(tmp_path / "fickle.py"), "--save", save, "--out", str(tmp_path / "out")]
    found, said, err = run(capfd, monkeypatch, str(fields), *options)
    assert found == code and re.fullmatch(rf"error: {told}\n", err)
    assert "wrote" in said and ("2.txt" in said) == ("fickle" in save)
    with (tmp_path / "out" / "counts.csv").open(newline="") as stream:
        assert [Path(row["image"]).name for row in csv.DictReader(stream)] == images


def test_tables_have_the_columns_of_a_batch(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fields: Path, tmp_path: Path
) -> None:
    assert run(capfd, monkeypatch, str(fields), "--save", "csv", "--out", str(tmp_path / "one"))[0] == 0
    options = ["--out", str(tmp_path / "all"), "--classifier", "none", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["leukokit", "batch", str(fields), *options])
    with pytest.raises(SystemExit):
        main()
    headers = {
        (folder, name): (tmp_path / folder / name).read_text().splitlines()[0]
        for folder in ("one", "all")
        for name in ("counts.csv", "cells.csv")
    }
    assert headers["all", "cells.csv"] == headers["one", "cells.csv"]
    assert headers["all", "counts.csv"] == f"{headers['one', 'counts.csv']},group,status"
