"""What may go wrong while a batch runs: disks, files, memory, plugins; nothing done is lost."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from batches import PLUGINS, arguments, files, folder_of, rows, run, save, with_scripted_plugins

from leukokit.batch.manifest import Manifest
from leukokit.batch.records import Record
from leukokit.batch.scheduler import Scheduler
from leukokit.cells import Cells
from leukokit.config import PipelineConfig
from leukokit.errors import DeviceMemoryError, LeukokitError
from leukokit.graph import CellGraph
from leukokit.images.inputs import find_images
from leukokit.pipeline import Pipeline
from leukokit.smear import Smear


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


def scripted_pipeline(**config: object) -> Pipeline:
    chosen = {"detector": "scripted", "classifier": "turns", "standardize": False, **config}
    return Pipeline.from_config(PipelineConfig.model_validate(chosen), "cpu")


def test_a_full_disk_stops_clearly_and_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = folder_of(tmp_path / "in", 30), tmp_path / "out"
    command = [sys.executable, "-m", "leukokit", *arguments(root, out, "--plugin", str(PLUGINS))]
    # No file may grow larger than this: the manifest soon wants to.
    small = 60_000
    limited = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small)),
    )
    assert limited.returncode == 1
    assert "free space" in limited.stderr and "Traceback" not in limited.stderr
    assert not (out / "counts.csv").exists()
    assert run(monkeypatch, arguments(root, out)) == 0
    assert run(monkeypatch, arguments(root, tmp_path / "whole")) == 0
    assert files(out) == files(tmp_path / "whole")


def test_an_image_removed_midway_is_a_failure_of_its_own(tmp_path: Path) -> None:
    found = find_images([folder_of(tmp_path / "in", 8)]).images
    found[5].path.unlink()
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan(enumerate(found))
        Scheduler([scripted_pipeline()], manifest).run(found)
        told = list(manifest.entries())
    assert [bool(entry.error) for entry in told] == [number == 5 for number in range(8)]
    assert found[5].path.name in told[5].error


def test_a_plugin_that_hangs_on_one_image_costs_that_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = folder_of(tmp_path / "in", 4), tmp_path / "out"
    save(root / "slow.png", 1, action="hang")
    started = time.monotonic()
    assert run(monkeypatch, arguments(root, out, "--set", "time_limit=0.3")) == 3
    assert time.monotonic() - started < 30
    (failure,) = rows(out / "failures.csv")
    assert failure["image"] == "slow.png"
    assert "detector 'scripted'" in failure["cause"] and "longer than 0.3 s" in failure["cause"]
    assert sum(row["status"] == "done" for row in rows(out / "counts.csv")) == 4


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_does_not_wait_for_plugins_that_hang(tmp_path: Path, how: signal.Signals) -> None:
    root, log = tmp_path / "in", tmp_path / "batch.log"
    for number in range(3):
        save(root / f"slow{number}.png", 1, action="hang")
    save(root / "a.png", 1)
    more = ("--plugin", str(PLUGINS), "--log", str(log))
    line = [sys.executable, "-m", "leukokit", *arguments(root, tmp_path / "out", *more)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while "a.png: done" not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(how)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped: 1 of 4 images are done" in said and "Traceback" not in said


def test_several_devices_share_the_images(tmp_path: Path) -> None:
    found = find_images([folder_of(tmp_path / "in", 40)]).images
    pipelines = [scripted_pipeline(), scripted_pipeline()]
    threads: dict[int, set[str]] = {0: set(), 1: set()}
    for number, pipeline in enumerate(pipelines):
        detect = pipeline.detector.detect

        def seen(smears: Sequence[Smear], number: int = number, detect: Any = detect) -> list[Cells]:
            threads[number].add(threading.current_thread().name)
            time.sleep(0.01)
            return list(detect(smears))

        monkey = pytest.MonkeyPatch()
        monkey.setattr(pipeline.detector, "detect", seen)
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan(enumerate(found))
        Scheduler(pipelines, manifest).run(found)
        told = list(manifest.entries())
    assert all(threads.values())
    assert [entry.name for entry in told] == [image.relative for image in found]
    for number, entry in enumerate(told):
        assert entry.document is not None
        white = entry.document["counts"]["leukocyte"]
        assert white == int(found[number].path.stem[1:]) % 7


def test_an_error_in_one_device_stops_the_others(tmp_path: Path) -> None:
    found = find_images([folder_of(tmp_path / "in", 40)]).images

    def fail(_: Record) -> None:
        raise ZeroDivisionError

    with Manifest(tmp_path / "out", {}) as manifest, pytest.raises(ZeroDivisionError):  # noqa: PT012
        manifest.plan(enumerate(found))
        Scheduler([scripted_pipeline(), scripted_pipeline()], manifest, on_record=fail).run(found)
    with Manifest(tmp_path / "out", {}) as manifest:
        assert sum(manifest.is_done(image) for image in found) < len(found)


class TooSmall:
    """A detector's ``detect`` on a device whose memory holds ``most`` images."""

    def __init__(self, pipeline: Pipeline, most: int) -> None:
        self.detect, self.most, self.asked = pipeline.detector.detect, most, list[int]()

    def __call__(self, smears: Sequence[Smear]) -> list[Cells]:
        self.asked.append(len(smears))
        if len(smears) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.detect(smears)


def cells_of(pipeline: Pipeline, smears: Sequence[Smear]) -> list[Cells | LeukokitError]:
    found = pipeline.process(smears)
    return [graph if isinstance(graph, LeukokitError) else graph.cells for graph in found]


def smears_of(tmp_path: Path, count: int) -> list[Smear]:
    pipeline = scripted_pipeline()
    return [pipeline.read(image.path) for image in find_images([folder_of(tmp_path / "in", count)]).images]


def test_a_batch_too_large_for_the_device_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    smears, pipeline = smears_of(tmp_path, 8), scripted_pipeline()
    expected = cells_of(pipeline, smears)
    small = TooSmall(pipeline, 3)
    monkeypatch.setattr(pipeline.detector, "detect", small)
    found = cells_of(pipeline, smears)
    assert small.asked == [8, 4, 2, 2, 2, 2]
    for cells, wanted in zip(found, expected, strict=True):
        assert isinstance(cells, Cells) and isinstance(wanted, Cells)
        assert cells.boxes.tolist() == wanted.boxes.tolist()
    assert "from now on 2" in caplog.text
    # It is not tried again with more.
    cells_of(pipeline, smears)
    assert small.asked[6:] == [2, 2, 2, 2]


def test_what_no_device_memory_holds_is_done_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    smears, pipeline = smears_of(tmp_path, 2), scripted_pipeline()
    monkeypatch.setattr(pipeline, "device", "cuda:0")
    monkeypatch.setattr(pipeline.detector, "detect", TooSmall(pipeline, 0))
    found = cells_of(pipeline, smears)
    assert all(isinstance(cells, Cells) for cells in found)
    assert caplog.text.count("done on the CPU") == 2


def test_a_classifier_that_fails_on_one_of_several_costs_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smears, pipeline = smears_of(tmp_path, 6), scripted_pipeline()
    expected, asked = pipeline.process(smears), list[int]()
    assert pipeline.classifier is not None
    classify = pipeline.classifier.classify

    def choosy(shown: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        asked.append(len(shown))
        if smears[3] in shown:
            raise ValueError("not that one")
        return classify(shown, graphs)

    monkeypatch.setattr(pipeline.classifier, "classify", choosy)
    found = pipeline.process(smears)
    # All at once, then each by itself.
    assert asked == [6, 1, 1, 1, 1, 1, 1]
    for number, (graph, wanted) in enumerate(zip(found, expected, strict=True)):
        if number == 3:
            assert isinstance(graph, LeukokitError)
            assert "classifier 'turns' failed (ValueError: not that one)" in str(graph)
        else:
            assert isinstance(graph, CellGraph) and isinstance(wanted, CellGraph)
            assert graph.cells.labelling is not None and wanted.cells.labelling is not None
            assert graph.cells.labelling.labels == wanted.cells.labelling.labels


def test_what_the_cpu_memory_does_not_hold_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smears, pipeline = smears_of(tmp_path, 1), scripted_pipeline()
    monkeypatch.setattr(pipeline.detector, "detect", TooSmall(pipeline, 0))
    (error,) = cells_of(pipeline, smears)
    assert isinstance(error, DeviceMemoryError) and isinstance(error, LeukokitError)


def test_what_is_asked_for_and_not_there_is_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out, log = folder_of(tmp_path / "in", 2), tmp_path / "out", tmp_path / "batch.log"
    (root / "torn.png").write_bytes(b"no image")
    missing = str(tmp_path / "nowhere")
    assert run(monkeypatch, [*arguments(root, out, "--log", str(log)), missing]) == 3
    document = json.loads((out / "run.json").read_text())
    assert len(document["not_found"]) == 1 and missing in document["not_found"][0]
    assert sorted(document["image_sha256"]) == ["slide-0/f000.png", "slide-1/f001.png"]
    lines = log.read_text().splitlines()
    assert any("ERROR" in line and "torn.png" in line for line in lines)
    assert sum(line.endswith("f000.png: done") for line in lines) == 1
    assert "INFO done: 3 images, 1 failed" in lines[-1]


def test_parquet_holds_what_the_csv_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    root, out = folder_of(tmp_path / "in", 7), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out, "--parquet")) == 0
    told = parquet.read_table(out / "cells.parquet").to_pylist()
    written = rows(out / "cells.csv")
    assert len(told) == len(written) > 20
    for cell, row in zip(told, written, strict=True):
        assert (cell["image"], str(cell["id"]), cell["kind"]) == (row["image"], row["id"], row["kind"])
        assert (cell["label"] or "") == row["label"]
        assert cell["x2"] == pytest.approx(float(row["x2"]))
        assert {None: "", True: "true", False: "false"}[cell["review"]] == row["review"]


def test_a_folder_that_may_not_be_written_to_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path / "in", 1)
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    assert run(monkeypatch, arguments(root, occupied / "out")) == 1
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(("stem", "fails"), [("folder", True), ("x" * 250, False), ("\u0e19" * 80, False)])
def test_a_name_that_cannot_be_written_costs_its_image_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str, fails: bool
) -> None:
    root, out = folder_of(tmp_path / "in", 2), tmp_path / "out"
    save(root / f"{stem}.png", 2)
    # No file takes the name of a folder; a name that is too long is shortened.
    (out / "folder.json").mkdir(parents=True)
    assert run(monkeypatch, arguments(root, out)) == (3 if fails else 0)
    causes = {row["image"]: row["cause"] for row in rows(out / "failures.csv")}
    assert set(causes) == ({f"{stem}.png"} if fails else set())
    assert all("cannot be written" in cause for cause in causes.values())
    assert len([path for path in out.rglob("*.json") if path.is_file()]) == (3 if fails else 4)
    assert not list(out.rglob("*.part"))
    assert run(monkeypatch, arguments(root, out)) == (3 if fails else 0)


def test_folders_named_like_results_stand_in_no_ones_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for name in ("run.json/a.png", "a.json/b.png", "a.png", "Report.HTML/c.png"):
        save(root / name, 1)
    assert run(monkeypatch, arguments(root, out)) == 0
    saved = {path.relative_to(out).as_posix() for path in out.rglob("*.json")}
    assert saved == {"run.json", "a.json", "run.json_/a.json", "a.json_/b.json", "Report.HTML_/c.json"}
    assert {row["image"] for row in rows(out / "counts.csv")} >= {"run.json/a.png", "a.json/b.png"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_log_on_a_full_disk_costs_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 2), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out, "--log", "/dev/full")) == 0
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.count("--log /dev/full: cannot be written any more") == 1
    assert len(rows(out / "counts.csv")) == 2
