"""A batch: what it writes, what stops it, and that a stopped one ends as if it had not been."""

from __future__ import annotations

import html
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import PLUGINS, arguments, files, folder_of, rows, run, save, with_scripted_plugins
from PIL import Image

from leukokit import weights
from leukokit.batch.manifest import Manifest, count_done
from leukokit.batch.outputs.grouping import Grouping
from leukokit.cells import Cells
from leukokit.errors import ConfigError, OutputError
from leukokit.images.inputs import find_images
from leukokit.registry import classifiers, detectors, writers
from leukokit.smear import Smear


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


def test_every_image_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "in"
    save(root / "a" / "x.png", 6)
    save(root / "a" / "none.png", 0, 0)
    save(root / "b" / "x.png", 2)
    save(root / "b" / "blue.png", 2, action="fail")
    (root / "b" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    out = tmp_path / "out"
    assert run(monkeypatch, arguments(root, out, "--group-by", "folder", "--target", "10")) == 3
    counts = {row["image"]: row for row in rows(out / "counts.csv")}
    assert list(counts) == ["a/none.png", "a/x.png", "b/blue.png", "b/torn.png", "b/x.png"]
    assert counts["a/x.png"]["leukocyte"] == "6" and counts["a/x.png"]["unclassified"] == "1"
    assert counts["a/none.png"]["status"] == "done" and counts["a/none.png"]["leukocyte"] == "0"
    assert counts["b/blue.png"]["status"] == "failed" and counts["b/blue.png"]["leukocyte"] == ""
    causes = {row["image"]: row["cause"] for row in rows(out / "failures.csv")}
    assert "told to fail" in causes["b/blue.png"] and "truncated" in causes["b/torn.png"]
    assert len(rows(out / "cells.csv")) == 9 + 0 + 5
    shares = rows(out / "differential.csv")
    # Of a/x: six leukocytes, one uncertain; the others are l, m, e, b, n in turn.
    own = {row["class"]: row for row in shares if row["name"] == "a/x.png"}
    assert own["neutrophil"]["count"] == "1" and own["neutrophil"]["percent"] == "20.00"
    assert own["neutrophil"]["n"] == "5" and own["neutrophil"]["below_minimum"] == "true"
    group = next(row for row in shares if (row["scope"], row["name"]) == ("group", "b"))
    assert (group["n"], group["unclassified"], group["still_needed"]) == ("1", "1", "9")
    whole = [row for row in shares if row["scope"] == "all"]
    assert sum(int(row["count"]) for row in whole) == 6 and whole[0]["still_needed"] == "4"
    document = json.loads((out / "run.json").read_text())
    assert document["images"] == {"found": 5, "done": 3, "failed": 2, "waiting": 0}
    assert document["provenance"]["detector"]["name"] == "scripted"
    assert json.loads((out / "a" / "x.json").read_text())["counts"]["leukocyte"] == 6


def test_a_second_run_does_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out)) == 0
    first = files(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("f*.json")}
    assert run(monkeypatch, arguments(root, out)) == 0
    assert files(out) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("f*.json")} == before
    changed = save(root / "slide-0" / "f000.png", 5)
    added = save(root / "slide-1" / "g.png", 1)
    assert run(monkeypatch, arguments(root, out)) == 0
    counts = {row["image"]: row["leukocyte"] for row in rows(out / "counts.csv")}
    assert counts["slide-0/f000.png"] == "5" and counts["slide-1/g.png"] == "1" and len(counts) == 7
    assert changed.exists() and added.exists()


def test_what_contradicts_the_tables_goes_and_what_is_left_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out)) == 0
    assert "left out" not in capfd.readouterr().err
    stale = out / "cells.parquet"
    stale.touch()
    (root / "slide-0" / "f000.png").unlink()
    assert run(monkeypatch, arguments(root, out, "--group-by", "slide-[12]")) == 0
    said = capfd.readouterr()
    assert "1 images of the earlier batch" in said.err
    assert "1 image is in no group of --group-by slide-[12]" in said.out and "slide-1 " in said.out
    assert not stale.exists()
    # Its file stays, and that is said where the earlier batch is forgotten, too.
    (root / "slide-1" / "f001.png").unlink()
    assert run(monkeypatch, arguments(root, out, "--restart")) == 0
    said = capfd.readouterr()
    assert "1 images of the earlier batch" in said.err and "files that were saved of them stay" in said.err
    assert (out / "slide-1" / "f001.json").exists()


def test_an_image_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = folder_of(tmp_path / "in", 2), tmp_path / "out"
    (root / "torn.png").write_bytes(b"no image")
    assert run(monkeypatch, arguments(root, out)) == 3
    save(root / "torn.png", 4)
    assert run(monkeypatch, arguments(root, out)) == 0
    assert rows(out / "failures.csv") == []
    assert len(rows(out / "counts.csv")) == 3


def test_other_settings_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 2), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out)) == 0
    capsys.readouterr()
    assert run(monkeypatch, arguments(root, out, "--set", "detector.size=7")) == 2
    said = capsys.readouterr().err
    assert "detector.params.size: 9.0 is now 7.0" in said and "--restart" in said
    assert run(monkeypatch, arguments(root, out, "--set", "detector.size=7", "--restart")) == 0
    assert json.loads((out / "slide-1" / "f001.json").read_text())["cells"][0]["box"][2] == 7


def test_a_plugin_that_was_edited_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out, own = folder_of(tmp_path / "in", 2), tmp_path / "out", tmp_path / "scripted.py"
    own.write_text(PLUGINS.read_text())
    codes = []
    for _ in range(2):
        for registry in (detectors, classifiers):
            monkeypatch.setattr(registry, "_registered", {})
        codes.append(run(monkeypatch, arguments(root, out, "--plugin", str(own))))
        # Its version stays as it is.
        own.write_text(own.read_text().replace("top = 0.4", "top = 0.3"))
    assert codes == [0, 2]
    said = capsys.readouterr().err
    assert "classifier.source_sha256" in said and "It was made by: leukokit batch" in said


WRITER = """
import sys
from leukokit.errors import DataError
from leukokit.registry import writers
from leukokit.writers.base import Writer

@writers.register
class Odd(Writer):
    name, version, summary = "odd", "1", "a file an image"

    def write(self, result):
        if len(result.cells) == 3:
            sys.exit(0)
        if len(result.cells) == 4:
            raise DataError("no cell of mine")
        self.save(self.path_for(result, ".txt"), "one")
"""


def test_a_writer_that_ends_costs_its_image_and_one_that_was_edited_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out, own = folder_of(tmp_path / "in", 3), tmp_path / "out", tmp_path / "odd.py"
    own.write_text(WRITER)
    line = [*arguments(root, out), "--save", "odd", "--plugin", str(own)]
    monkeypatch.setattr(writers, "_registered", {})
    assert run(monkeypatch, line) == 3
    failure, other = rows(out / "failures.csv")
    assert failure["image"] == "slide-0/f000.png"
    assert "writer 'odd' failed (SystemExit: 0)" in failure["cause"]
    assert "writer 'odd' failed (DataError: no cell of mine)" in other["cause"]
    assert len(list(out.rglob("*.txt"))) == 1
    own.write_text(WRITER.replace('"one"', '"two"'))
    monkeypatch.setattr(writers, "_registered", {})
    assert run(monkeypatch, line) == 2
    assert "writer odd.source_sha256: " in capsys.readouterr().err


def test_weights_of_another_network_stop_a_batch_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, wrong = folder_of(tmp_path / "in", 9), weights.find("leukocyte-cnn")
    line = ["batch", str(root), "--out", str(tmp_path / "out"), "--detector", "scripted", "--device", "cpu"]
    line += ["--classifier", "altarawneh", "--set", f"classifier.weights={wrong}"]
    assert run(monkeypatch, line) == 1
    said = capsys.readouterr().err
    assert said.count("error:") == 1 and "leukocyte-cnn" in said


def test_what_one_should_know_of_the_counts_is_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    save(root / "slide-1" / "a.png", 3)
    shutil.copy(root / "slide-1" / "a.png", root / "b.png")
    pages = [Image.new("RGB", (50, 40), (1, 9, number)) for number in range(2)]
    pages[0].save(root / "c.tif", save_all=True, append_images=pages[1:])
    (root / "gone.png").symlink_to(root / "nowhere")
    more = ("--group-by", "slide-.", str(root / "typo.png"))
    assert run(monkeypatch, arguments(root, out, *more)) == 3
    streams = capsys.readouterr()
    printed = streams.out + streams.err
    attention = json.loads((out / "run.json").read_text())["attention"]
    expected = [
        "gone.png: link that leads to nothing",
        "typo.png: no such file",
        "1 of 3 leukocytes has no class",
        "2 images are in no group of --group-by slide-.",
        "1 image has a note",
        "1 image is the same file as another, under another name, and counted again",
    ]
    report = html.unescape((out / "report.html").read_text())
    assert len(attention) == len(expected)
    for said, line in zip(expected, attention, strict=True):
        assert said in line and line in report and said in " ".join(printed.split())
    assert {"b.png", "slide-1/a.png"} < set(attention[-1].split())
    noted = {row["image"]: row["notes"] for row in rows(out / "counts.csv")}
    assert noted == {"b.png": "", "c.tif": "page 1 of 2 read", "slide-1/a.png": ""}


def test_an_image_of_another_magnification_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for number in range(5):
        save(root / "a" / f"f{number}.png", 0, 4)
        save(root / "b" / f"f{number}.png", 0, 4)
    odd = save(root / "b" / "odd.png", 0, 4)
    scripted: Any = detectors.get("scripted")
    detect = scripted._cells

    def twice(self: Any, smear: Smear) -> Cells:
        cells = detect(self, smear)
        larger = 2 if smear.path == odd else 1
        return Cells(cells.boxes * larger, cells.kinds, cells.scores)

    monkeypatch.setattr(scripted, "_cells", twice)
    assert run(monkeypatch, arguments(root, out, "--group-by", "folder")) == 0
    attention = json.loads((out / "run.json").read_text())["attention"]
    (said,) = [line for line in attention if "magnification" in line]
    assert said.startswith("1 image is") and "erythrocytes of 18 px in b/odd.png, usually 9 px" in said


def test_a_target_wants_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*arguments(folder_of(tmp_path / "in", 1), tmp_path / "out"), "--target", "50"]
    assert run(monkeypatch, [*line, "--classifier", "none"]) == 2
    assert "--target 50" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_was_done_before_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = folder_of(tmp_path / "in", 5), tmp_path / "out"
    save(root / "blue.png", 1, action="fail")
    images = find_images([root]).images
    assert count_done(out, images) == 0
    assert run(monkeypatch, arguments(root, out)) == 3
    assert count_done(out, images) == 5
    assert count_done(out, find_images([save(tmp_path / "other.png", 1)]).images) == 0
    (out / "manifest.sqlite").write_bytes(b"no manifest" * 100)
    assert count_done(out, images) == 0


def test_a_folder_is_worked_on_by_one_batch(tmp_path: Path) -> None:
    with Manifest(tmp_path / "out", {"a": 1}), pytest.raises(OutputError, match="another batch"):
        Manifest(tmp_path / "out", {"a": 1})
    with Manifest(tmp_path / "out", {"a": 1}):
        pass
    with pytest.raises(ConfigError, match=r"a: 1 is now 2"):
        Manifest(tmp_path / "out", {"a": 2})


def test_writers_over_all_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path / "in", 1)
    assert run(monkeypatch, arguments(root, tmp_path / "out", "--save", "coco")) == 2
    assert "'leukokit detect' writes it" in capsys.readouterr().err


def test_hostile_names_are_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    names = ["=cmd().png", "a\nb.png", 'q"uo,te.png', "<script>alert(1)</script>x.png".replace("/", "_")]
    for name in names:
        save(root / name, 2)
    save(Path(os.fsdecode(os.fsencode(root) + b"/odd\xff.png")), 1)
    save(Path(os.fsdecode(os.fsencode(root) + b"/blue\xff.png")), 1, action="fail")
    assert run(monkeypatch, arguments(root, out, "--group-by", "(.*)")) == 3
    counts = rows(out / "counts.csv")
    assert len(counts) == 6 and len(rows(out / "failures.csv")) == 1
    assert not any(row["image"].startswith(("=", "+", "-", "@")) for row in counts)
    assert sum(int(row["leukocyte"] or 0) for row in counts) == 9


def test_groups() -> None:
    names = ["x/slide-12/c.png", "x/c.png", "odd\udcff/slide-3.png"]
    assert Grouping(None).groups_of(names) == ["", "", ""]
    assert Grouping("folder").groups_of(names) == ["x/slide-12", "x", "odd\udcff"]
    assert Grouping(r"slide-(\d+)").groups_of(names) == ["12", "", "3"]
    assert Grouping(r"slide-\d+").groups_of(names) == ["slide-12", "", "slide-3"]
    assert Grouping("odd.").groups_of(names) == ["", "", "odd\udcff"]


@pytest.mark.parametrize("rule", ["(", "a{99999999999}", "(" * 5000 + ")" * 5000])
def test_what_is_no_regular_expression_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="not a regular expression") as error:
        Grouping(rule)
    assert len(str(error.value)) < 400


def test_a_regular_expression_that_takes_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leukokit._patterns.MAX_SECONDS", 0.5)
    with pytest.raises(ConfigError, match="takes too long"):
        Grouping("(a+)+$").groups_of(["a" * 60 + "b.png"])


def killed(command: list[str], after: float) -> bool:
    """Start the command in a process of its own and kill it; False where it was through before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, kills: int, seed: int) -> None:
    root = folder_of(tmp_path / "in", images)
    (root / "torn.png").write_bytes(b"no image")
    slowly = ("--set", "detector.seconds=0.02")
    assert run(monkeypatch, arguments(root, tmp_path / "whole", *slowly)) == 3
    out = tmp_path / "torn apart"
    command = [sys.executable, "-m", "leukokit", *arguments(root, out, *slowly, "--plugin", str(PLUGINS))]
    rng, happened = random.Random(seed), 0
    for _ in range(kills):
        started = time.monotonic()
        # Not before the first image, which is when the interpreter is up.
        while not list(out.rglob("f*.json")) and happened and time.monotonic() - started < 0.1:
            time.sleep(0.01)
        happened += killed(command, rng.uniform(2.0, 6.0))
    assert happened
    assert subprocess.run(command, capture_output=True).returncode == 3
    assert files(out) == files(tmp_path / "whole")
    assert not list(out.rglob("*.part"))


def test_a_killed_batch_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = folder_of(tmp_path / "in", 40), tmp_path / "out"
    slowly = ("--set", "detector.seconds=0.05")
    command = [sys.executable, "-m", "leukokit", *arguments(root, out, *slowly, "--plugin", str(PLUGINS))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.rglob("f*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= len(list(out.rglob("f*.json"))) < 40 and not (out / "counts.csv").exists()
    # As if it had been killed while it wrote; another's file is not its own.
    for name in (
        ".leukokit-0123456789abcdef.part",
        "slide-0/.leukokit-fedcba9876543210.part",
        "slide-0/.mine.5.part",
    ):
        (out / name).touch()
    assert run(monkeypatch, arguments(root, out, *slowly)) == 0
    assert run(monkeypatch, arguments(root, tmp_path / "whole", *slowly)) == 0
    assert [path.name for path in out.rglob("*.part")] == [".mine.5.part"]
    (out / "slide-0/.mine.5.part").unlink()
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
def test_25_kills_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survive(tmp_path, monkeypatch, images=300, kills=25, seed=0)


@pytest.mark.slow
def test_200_damaged_files_cost_no_other_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out, rng = tmp_path / "in", tmp_path / "out", random.Random(0)
    for number in range(200):
        suffix = (".png", ".jpg", ".tif", ".bmp", ".webp")[number % 5]
        path = save(root / f"bad{number:03}{suffix}", 2)
        content = bytearray(path.read_bytes())
        if number % 2:
            content = content[: rng.randrange(len(content))]
        else:
            for _ in range(rng.randrange(1, 20)):
                content[rng.randrange(min(len(content), 120))] = rng.randrange(256)
        path.write_bytes(content)
        save(root / f"good{number:03}.png", 3)
    assert run(monkeypatch, arguments(root, out)) == 3
    counts = rows(out / "counts.csv")
    assert len(counts) == 400
    assert all(row["leukocyte"] == "3" for row in counts if row["image"].startswith("good"))
    failed = {row["image"] for row in rows(out / "failures.csv")}
    assert failed == {row["image"] for row in counts if row["status"] == "failed"}
    assert len(failed) > 100 and all(row["cause"] for row in rows(out / "failures.csv"))
