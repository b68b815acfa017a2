"""``leukokit detect`` where plugins misbehave, output is lost, names are hostile, or files are others'."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SCRIPTED = Path(__file__).parents[1] / "support" / "scripted.py"
FAST = ("--classifier", "none", "--device", "cpu", "--set", "standardize=false")


def draw(path: Path) -> Path:
    """A small image with nothing to see, which the scripted detector does not look at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), (230, 220, 225)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with two images in ``images/``."""
    for name in ("a.png", "b.png"):
        draw(tmp_path / "images" / name)
    return tmp_path


def command(*arguments: object) -> list[str]:
    plugin = ("--plugin", SCRIPTED, "--detector", "scripted")
    return [sys.executable, "-m", "leukokit", "detect", *map(str, (*arguments, *plugin, *FAST))]


def environment(script: Mapping[str, Any] | None = None, **variables: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return (
        os.environ
        | {"LEUKOKIT_SCRIPT": json.dumps(script or {}), "PYTHONPATH": root, "COLUMNS": "100"}
        | variables
    )


def detect(
    cwd: Path, *arguments: object, script: Mapping[str, Any] | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """``leukokit detect`` with the scripted detector, in a process of its own."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(script, **variables), capture_output=True, timeout=300
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done


def test_what_a_plugin_prints_is_not_among_the_documents(folder: Path) -> None:
    script = {"*": {"print": "loading the net"}}
    done = detect(folder, "images", "--json", script=script)
    assert done.returncode == 0
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(document["image"]["path"]).name for document in documents] == ["a.png", "b.png"]
    assert done.stderr.count(b"loading the net\n") == 2
    assert done.stderr.count(b"loading the net from C\n") == 2


def test_a_plugin_that_changes_the_folder_moves_no_files(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    script = {"*": {"chdir": str(folder / "elsewhere")}}
    done = detect(folder, "images", "--save", "json,csv", "--out", "out", script=script)
    assert done.returncode == 0, done.stderr
    assert not list((folder / "elsewhere").iterdir())
    assert {path.name for path in (folder / "out").glob("*.*")} >= {
        "a.json",
        "b.json",
        "cells.csv",
        "counts.csv",
    }


@pytest.mark.parametrize("kind", ["ValueError", "GeneratorExit", "SystemExit", "KeyboardInterrupt"])
def test_what_a_plugin_raises_costs_its_image(folder: Path, kind: str) -> None:
    done = detect(folder, "images", "--save", "csv", "--out", "out", script={"a": {"raise": kind}})
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("error: ")]
    assert "a.png: detector 'scripted'" in line and kind in line
    with (folder / "out" / "counts.csv").open(newline="") as stream:
        assert [Path(row["image"]).name for row in csv.DictReader(stream)] == ["b.png"]


def test_a_writer_that_ends_the_process_is_no_success(folder: Path) -> None:
    done = detect(folder, "images", "--save", "scripted,csv", "--out", "out", script={"b": {"exit": 0}})
    assert done.returncode == 1
    assert b"error: a writer ended the process with exit code 0" in done.stderr
    assert (folder / "out" / "a.count").read_text() == "1\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT")
def test_ctrl_c_ends_code_that_keeps_the_interpreter(folder: Path) -> None:
    script = {"a": {"hold": 600, "print": "begun"}}
    started = command("images", "--save", "csv", "--out", "out")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(started, cwd=folder, env=environment(script), **pipes) as process:
        for line in process.stdout or ():
            if line.startswith(b"begun"):
                break
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        process.communicate(timeout=60)
    assert process.returncode == 130
    # Five seconds are what a worker process is given; the rest is a slow machine's.
    assert time.monotonic() - sent < 30


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_names_that_the_terminal_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    draw(tmp_path / "мазок 血液.png")
    draw(tmp_path / "z.png")
    done = detect(
        tmp_path, "мазок 血液.png", "z.png", "--save", "csv", "--out", "out", PYTHONIOENCODING=encoding
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u043c" in done.stdout and b"z.png" in done.stdout
    with (tmp_path / "out" / "counts.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == ["мазок 血液.png", "z.png"]


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "a[bold", "x\x1b]0;title\x07", "two\nlines"])
def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path, name: str) -> None:
    try:
        draw(tmp_path / f"{name}.png")
    except OSError:
        pytest.skip("this system has no such names")
    script = {"*": {"notes": ["[/red] \x1b[31m a note"]}}
    done = detect(tmp_path, ".", "--save", "json", "--out", f"{name} out", script=script)
    assert done.returncode == 0, done.stderr
    for shown in (done.stdout, done.stderr):
        assert b"\x1b" not in shown and b"\x07" not in shown
    assert b"[/red] \\x1b[31m a note" in done.stdout
    assert b"lines.png\n" not in done.stdout


def test_a_closed_pipe_costs_no_file(folder: Path) -> None:
    for number in range(6):
        draw(folder / "images" / f"more {number}.png")
    started = command("images", "--save", "json", "--out", "out")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(started, cwd=folder, env=environment(), **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert len(list((folder / "out").glob("*.json"))) == 8


def test_documents_that_nobody_reads_are_no_success(folder: Path) -> None:
    for number in range(6):
        draw(folder / "images" / f"more {number}.png")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command("images", "--json"), cwd=folder, env=environment(), **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=120)
    assert process.returncode == 141
    assert b"Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("options", [("--json",), ("--save", "none")])
def test_output_onto_a_full_disk_is_one_line(folder: Path, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("images", *options),
            cwd=folder,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: the output cannot be written (No space left on device); free space, or use --out"
    ]


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}])
def test_names_in_a_file_are_whole(tmp_path: Path, variables: dict[str, str]) -> None:
    name = "a long name of a smear of the second ward, third slide, field 17, taken in November.png"
    draw(tmp_path / name)
    done = detect(tmp_path, name, "--save", "none", script=None, **variables)
    assert name.encode() in done.stdout


def test_labels_made_by_hand_are_not_replaced(folder: Path) -> None:
    labels = folder / "labels"
    labels.mkdir()
    (labels / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    done = detect(folder, "images", "--save", "yolo", "--out", "labels")
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("error: ")]
    assert "a.txt: exists, and leukokit did not write it" in line and "--overwrite" in line
    assert (labels / "a.txt").read_text() == "0 0.5 0.5 0.1 0.1\n"
    assert (labels / "b.txt").exists()
    # A second time, its own files are replaced and the others still are not; corrected ones count as others'.
    (labels / "b.txt").write_text("corrected\n")
    assert detect(folder, "images", "--save", "yolo", "--out", "labels").returncode == 1
    assert (labels / "b.txt").read_text() == "corrected\n"
    assert detect(folder, "images", "--save", "yolo", "--out", "labels", "--overwrite").returncode == 0
    assert (labels / "a.txt").read_text() != "0 0.5 0.5 0.1 0.1\n"
    assert detect(folder, "images", "--save", "yolo", "--out", "labels").returncode == 0


@pytest.mark.parametrize(
    ("save", "name"), [("yolo", "classes.txt"), ("csv", "counts.csv"), ("coco", "coco.json")]
)
def test_a_table_of_others_is_refused_before_any_image(folder: Path, save: str, name: str) -> None:
    (folder / "out").mkdir()
    (folder / "out" / name).write_text("mine")
    done = detect(folder, "images", "--save", save, "--out", "out")
    assert done.returncode == 2
    assert f"{name}: exists, and leukokit did not write it".encode() in done.stderr
    assert [path.name for path in (folder / "out").iterdir()] == [name]
    assert (folder / "out" / name).read_text() == "mine"


def test_a_file_removed_during_the_run_is_no_success(folder: Path) -> None:
    remover = folder / "remover.py"
    remover.write_text(
        "from leukokit import Writer, register\n\n@register\nclass Remover(Writer):\n"
        "    name, version, summary = 'remover', '1', 'removes what it wrote'\n"
        "    def write(self, result):\n"
        "        path = self.path_for(result, '.gone')\n        self.save(path, 'x')\n        path.unlink()\n"
    )
    done = detect(folder, "images", "--plugin", remover, "--save", "remover", "--out", "out")
    assert done.returncode == 1
    assert done.stderr.count(b".gone: is not there any more") == 2
