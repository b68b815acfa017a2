"""Where a batch writes to and what it says there: streams, logs, tables of others, writers at their end."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import PLUGINS, arguments, folder_of, rows, run, save, with_scripted_plugins

from leukokit.batch import job as job_module
from leukokit.batch import resources
from leukokit.registry import load_plugin_file, writers


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


WRITERS = """
from leukokit.errors import OutputError
from leukokit.registry import writers
from leukokit.writers.base import Writer

class Closing(Writer):
    version, summary = "1", "fails when it is closed"

    def write(self, result):
        pass

@writers.register
class Bad(Closing):
    name = "bad"

    def close(self):
        raise ValueError("cannot be closed")

@writers.register
class Full(Closing):
    name = "full"

    def close(self):
        raise OutputError("full.txt: cannot be written")

@writers.register
class Good(Closing):
    name = "good"

    def close(self):
        self.save(self.out / "good.txt", "closed")
"""


def test_a_writer_that_fails_at_its_end_costs_neither_tables_nor_other_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out, own = tmp_path / "in", tmp_path / "out", tmp_path / "own.py"
    for number in range(2):
        save(root / f"{number}.png", 6, shade=number)
    own.write_text(WRITERS)
    monkeypatch.setattr(writers, "_registered", dict(writers._registered))
    load_plugin_file(own)
    assert run(monkeypatch, [*arguments(root, out), "--save", "bad,full,good"]) == 3
    said = "writer 'bad' failed at its end (ValueError: cannot be closed)"
    errors = capsys.readouterr().err
    assert f"error: {said}" in errors and "error: full.txt: cannot be written" in errors
    assert (out / "good.txt").exists() and len(rows(out / "counts.csv")) == 2
    assert json.loads((out / "run.json").read_text())["attention"] == [said, "full.txt: cannot be written"]


def test_the_counts_go_where_those_of_detect_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 3), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out)) == 0
    counts = "images  failed  leuko."
    said = capsys.readouterr()
    assert counts in said.out and "wrote " in said.out and counts not in said.err
    assert run(monkeypatch, arguments(root, out)) == 0
    assert "resuming: 3 images" in capsys.readouterr().err
    assert run(monkeypatch, ["batch", "merge", str(out), "--out", str(tmp_path / "m")]) == 0
    assert counts in capsys.readouterr().out
    assert run(monkeypatch, arguments(root, out, "--quiet")) == 0
    said = capsys.readouterr()
    assert not said.out and not said.err.strip()


def test_a_log_may_be_in_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 1), tmp_path / "out"
    assert run(monkeypatch, arguments(root, out, "--log", str(out / "logs" / "batch.log"))) == 0
    assert "f000.png: done" in (out / "logs" / "batch.log").read_text()
    (tmp_path / "file").touch()
    assert run(monkeypatch, arguments(root, out, "--log", str(tmp_path / "file" / "batch.log"))) == 1
    assert "choose another file" in capsys.readouterr().err


def test_images_without_a_cell_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    save(root / "cells.png", 6)
    for number in range(4):
        save(root / f"empty{number}.png", 0, 0, shade=number)
    assert run(monkeypatch, arguments(root, out)) == 0
    (said,) = json.loads((out / "run.json").read_text())["attention"]
    assert said == "4 images are without any cell: empty0.png, empty1.png, empty2.png, ..."
    assert said in (out / "report.html").read_text()


@pytest.mark.parametrize("merged", [False, True])
def test_tables_of_something_else_are_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], merged: bool
) -> None:
    root, out, part = folder_of(tmp_path / "in", 1), tmp_path / "out", tmp_path / "part"
    out.mkdir()
    (out / "counts.csv").write_text("of detect")
    line = arguments(root, out)
    if merged:
        assert run(monkeypatch, arguments(root, part)) == 0
        line = ["batch", "merge", str(part), "--out", str(out)]
    assert run(monkeypatch, line) == 2
    said = capsys.readouterr().err
    assert "holds counts.csv and no batch" in said and "--restart" in said
    assert [path.name for path in out.iterdir()] == ["counts.csv"]
    assert run(monkeypatch, [*line, "--restart"]) == 0
    assert len(rows(out / "counts.csv")) == 1


def test_for_what_is_not_left_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out, asked = folder_of(tmp_path / "in", 3), tmp_path / "out", list[int]()
    share_cores = resources.share_cores

    def counting(images: int) -> Any:
        asked.append(images)
        return share_cores(images)

    monkeypatch.setattr(job_module, "share_cores", counting)
    assert run(monkeypatch, arguments(root, out)) == 0
    assert run(monkeypatch, arguments(root, out)) == 0
    # Of an image that has changed since, it is not the name that counts.
    save(root / "slide-0" / "f000.png", 5)
    assert run(monkeypatch, arguments(root, out)) == 0
    assert asked == [3, 0, 1]
    monkeypatch.setattr("leukokit.batch.job.start_workers", lambda work: pytest.fail("started"))
    assert run(monkeypatch, arguments(root, out, "--processes", "2")) == 0


@pytest.mark.parametrize("more", [(), ("--group-by", "folder")])
def test_many_unclassified_leukocytes_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    # One of each image is unclassified: 10 of 60, 1 of 4, 25 of 50.
    for name, images, leukocytes in (("known", 10, 6), ("few", 1, 4), ("new", 25, 2)):
        for number in range(images):
            save(root / name / f"{number}.png", leukocytes, shade=number)
    assert run(monkeypatch, arguments(root, out, *more)) == 0
    attention = json.loads((out / "run.json").read_text())["attention"]
    said = [line.partition(" leukocytes ha")[0] for line in attention if "no class" in line]
    assert said == (["new: 25 of 50", "few: 1 of 4"] if more else ["36 of 114"])
    shares = [row for row in rows(out / "differential.csv") if row["class"] == "monocyte"]
    withheld = {(row["scope"], row["name"]): row for row in shares if row["withheld"] == "true"}
    assert ("image", "few/0.png") in withheld and ("image", "known/0.png") not in withheld
    if more:
        assert ("group", "new") in withheld and ("group", "known") not in withheld
        row = withheld["group", "few"]
        assert (row["percent"], row["low_95"], row["high_95"]) == ("", "", "")
        assert (row["least_percent"], row["most_percent"]) == ("25.00", "50.00")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_consoles_that_lack_letters_and_hostile_names(tmp_path: Path, encoding: str) -> None:
    root, out = tmp_path / "in", tmp_path / "out [/red]"
    names = ["\xf1\u65e5", "[red]x[/red]", "a\x1b[31m\x07", "odd\udcff", "n\nn"]
    for name in names:
        save(root / name / "f.png", 6)
        save(root / name / f"{name}.png", 1, action="fail")
    command = [sys.executable, "-m", "leukokit", *arguments(root, out, "--plugin", str(PLUGINS))]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "FORCE_COLOR": "1"}
    ended = subprocess.run(
        [*command, "--group-by", "folder"], capture_output=True, env=environment, timeout=120
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 3 and b"Traceback" not in said and b"[red]x[/red]" in said
    # Colours are rich's own; nothing of a name gets through.
    assert b"\x07" not in said and b"\\x1b[31m\\x07" in said and b"wrote " in said
    assert len(rows(out / "counts.csv")) == 10 and len(rows(out / "failures.csv")) == 5


@pytest.mark.skipif(not Path("/bin/sh").exists(), reason="a pipe of the shell")
@pytest.mark.parametrize("pipe", ["| true", "2>&1 | true", "2>&1 >/dev/null | true"])
def test_a_reader_that_had_enough_stops_nothing(tmp_path: Path, pipe: str) -> None:
    root, out = folder_of(tmp_path / "in", 9), tmp_path / "out"
    save(root / "blue.png", 1, action="fail")
    command = shlex.join([sys.executable, "-m", "leukokit", *arguments(root, out, "--plugin", str(PLUGINS))])
    script = f"({command}; echo $? > {tmp_path}/code) {pipe}"
    subprocess.run(["/bin/sh", "-c", script], timeout=120, check=True)
    assert (tmp_path / "code").read_text().strip() == "3"
    assert len(rows(out / "counts.csv")) == 10
