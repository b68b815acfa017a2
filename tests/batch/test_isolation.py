"""Plugins that hang, crash or leave: each costs its image, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import batches
import pytest
from batches import folder_of, rows, save
from nasty import DEEDS

from leukokit.registry import ALL

NASTY = Path(__file__).with_name("nasty.py")
SOME = ("none", "exit", "regex", "orphan", "generator-exit", "chdir", "print", "write-regex", "write-raise")
HARMLESS = {"none", "chdir", "print"}

CAUSES = {
    "exit": "its worker process ended (exit code 0)",
    "regex": "took longer than 'time_limit' allows",
    "orphan": "its worker process ended (exit code 1)",
    "segfault": "its worker process was killed (SIGSEGV)",
    "generator-exit": "detector 'nasty' failed (GeneratorExit",
    "child": "detector 'nasty' failed (TimeoutError: took longer than 2 s",
    "kill": "its worker process was killed (SIGKILL)",
    "stop": "took longer than 'time_limit' allows",
    "write-exit": "its worker process ended (exit code 0)",
    "write-regex": "took longer than 'time_limit' allows",
    "write-sleep": "writer 'nasty' took longer than 2 s",
    "write-raise": "writer 'nasty' failed (BaseException: a writer's own)",
}


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return [
        *("batch", str(root), "--out", str(out), "--detector", "nasty", "--classifier", "none"),
        *("--set", "standardize=false", "--device", "cpu", "--plugin", str(NASTY), *more),
    ]


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    """Exit code of the command, run here as if no file's plugins had been loaded yet."""
    for registry in ALL:
        monkeypatch.setattr(registry, "_registered", {})
    return batches.run(monkeypatch, arguments)


def images_of(root: Path, deeds: tuple[str, ...]) -> Path:
    """One image for each deed, and a harmless one after it."""
    for number, deed in enumerate(deeds):
        save(root / f"{number:02}-{deed}.png", number, third=DEEDS.index(deed))
        save(root / f"{number:02}-{deed}-then.png", number)
    return root


def descendants() -> set[int]:
    found = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return {
        int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line or "sleep 600" in line
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what the plugin does needs POSIX")
@pytest.mark.parametrize("deeds", [SOME, pytest.param(DEEDS, marks=pytest.mark.slow)])
def test_whatever_a_plugin_does_costs_its_image(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    deeds: tuple[str, ...],
) -> None:
    monkeypatch.setattr("leukokit.batch.worker_process.GRACE", 1.0)
    before = descendants()
    monkeypatch.chdir(tmp_path)
    images_of(Path("in"), deeds)
    code = run(monkeypatch, arguments(Path("in"), Path("out"), "--set", "time_limit=2", "--save", "nasty"))
    streams = capfd.readouterr()
    assert code == 3 and "Traceback" not in streams.err and "a plugin prints" not in streams.out
    status = {row["image"]: row["status"] for row in rows(tmp_path / "out" / "counts.csv")}
    failed = {name.removesuffix(".png")[3:] for name, what in status.items() if what == "failed"}
    assert len(status) == 2 * len(deeds) and set(status.values()) == {"done", "failed"}
    assert failed == set(deeds) - HARMLESS
    causes = {row["image"][3:-4]: row["cause"] for row in rows(tmp_path / "out" / "failures.csv")}
    for deed in failed:
        assert CAUSES[deed] in causes[deed]
    saved = {path.name for path in (tmp_path / "out").rglob("*.nasty")}
    assert len(saved) == sum(what == "done" for what in status.values())
    deadline = time.monotonic() + 15
    while descendants() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not descendants() - before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what the plugin does needs POSIX")
@pytest.mark.parametrize("deed", ["regex"])
def test_ctrl_c_does_not_wait_for_code_that_keeps_the_interpreter(tmp_path: Path, deed: str) -> None:
    root, out, log = images_of(tmp_path / "in", (deed,)), tmp_path / "out", tmp_path / "batch.log"
    (root / f"00-{deed}-then.png").rename(root / "00-first.png")
    save(root / "00-a.png", 1)
    command = arguments(root, out, "--save", "nasty", "--log", str(log))
    process = subprocess.Popen(
        [sys.executable, "-m", "leukokit", *command], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    deadline = time.monotonic() + 90
    while (not log.exists() or "00-a.png: done" not in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "stopped: " in said and "Traceback" not in said


def test_own_plugins_need_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leukokit.batch.job.start_workers", lambda settings: pytest.fail("started"))
    root = folder_of(tmp_path / "in", 1)
    assert (
        batches.run(monkeypatch, ["batch", str(root), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    )
    assert json.loads((tmp_path / "out" / "run.json").read_text())["images"]["done"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what the plugin does needs POSIX")
def test_detect_loses_the_image_alone_and_prints_json_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("leukokit.batch.worker_process.GRACE", 1.0)
    root = images_of(tmp_path / "in", ("none", "exit", "regex", "chdir", "print"))
    line = ["detect", *arguments(root, tmp_path / "out")[1:], "--set", "time_limit=2", "--json"]
    assert run(monkeypatch, [*line, "--save", "csv,json"]) == 3
    streams = capfd.readouterr()
    paths = [Path(json.loads(line)["image"]["path"]).name for line in streams.out.splitlines()]
    failed = {"01-exit.png", "02-regex.png"}
    assert paths == sorted(path.name for path in root.iterdir() if path.name not in failed)
    assert CAUSES["exit"] in streams.err and CAUSES["regex"] in streams.err
    assert len(rows(tmp_path / "out" / "counts.csv")) == 8


SLOW_READER = """
import time
import leukokit.pipeline

read = leukokit.pipeline.read_smear

def read_slowly(path):
    if path.name.startswith("slow"):
        time.sleep(600)
    return read(path)

leukokit.pipeline.read_smear = read_slowly
"""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_does_not_wait_for_an_image_that_is_read(tmp_path: Path, times: int) -> None:
    root, out, log = folder_of(tmp_path / "in", 2), tmp_path / "out", tmp_path / "batch.log"
    save(root / "slow.png", 1)
    (tmp_path / "own.py").write_text(NASTY.read_text() + SLOW_READER)
    command = arguments(root, out, "--processes", "0", "--log", str(log))
    command[command.index(str(NASTY))] = str(tmp_path / "own.py")
    process = subprocess.Popen(
        [sys.executable, "-m", "leukokit", *command], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while (not log.exists() or "f001.png: done" not in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "Traceback" not in said
