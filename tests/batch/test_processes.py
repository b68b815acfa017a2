"""A batch whose images are looked at in processes of their own."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import batches
import pytest
from batches import PLUGINS, arguments, files, folder_of, rows, save

from leukokit.batch.process import (
    LookingProcess,
    Work,
    _Failed,
    _Said,
    _without_interrupts,
    hear_out,
    looking_processes,
)
from leukokit.batch.run import how_many_processes
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.errors import OutputError, PluginError
from leukokit.registry import ALL

TOLD = ("--plugin", str(PLUGINS))
TWO = ("--processes", "2", *TOLD)


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    """Exit code of the command, run here as if no file's plugins had been loaded yet."""
    for registry in ALL:
        monkeypatch.setattr(registry, "_registered", {})
    return batches.run(monkeypatch, arguments)


def children_of(process: int) -> list[int]:
    """The processes that it started and that still run."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


def test_processes_write_what_one_writes_and_a_death_costs_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = folder_of(tmp_path / "in", 30), tmp_path / "out"
    (root / "torn.png").write_bytes(b"no image")
    save(root / "blue.png", 2, blue=255)
    assert run(monkeypatch, arguments(root, tmp_path / "whole", *TOLD)) == 3
    deadly = save(root / "slide-1" / "deadly.png", 2, blue=253)
    assert run(monkeypatch, [*arguments(root, out), *TWO]) == 3
    causes = {row["image"]: row["cause"] for row in rows(out / "failures.csv")}
    assert "its worker process was killed (SIGKILL)" in causes["slide-1/deadly.png"]
    assert "this image is blue" in causes["blue.png"]
    assert len(causes) == 3 and len(rows(out / "counts.csv")) == 33
    # Without that image the same command ends with the tables of a batch in one process.
    deadly.unlink()
    assert run(monkeypatch, [*arguments(root, out), *TWO]) == 3
    assert files(out) == files(tmp_path / "whole")
    assert json.loads((out / "run.json").read_text())["provenance"]["device"] == "cpu"


def test_a_full_disk_stops_the_batch(tmp_path: Path) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    (out / "slide-1").mkdir(parents=True)
    # A folder where a file of the image is to be: its writer cannot go on.
    (out / "slide-1" / "f001.json").mkdir()
    command = [sys.executable, "-m", "leukokit", *arguments(root, out), *TWO]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 1
    assert "f001.json" in stopped.stderr and "Traceback" not in stopped.stderr
    assert not (out / "counts.csv").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_batch_leaves_no_process_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    root, out = folder_of(tmp_path / "in", 24), tmp_path / "out"
    slowly = ("--set", "detector.seconds=0.1")
    command = [sys.executable, "-m", "leukokit", *arguments(root, out, *slowly), *TWO]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while len(list(out.rglob("f*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = children_of(process.pid)
    assert len(children) >= 2
    # Ctrl-C at a terminal reaches all of them, the kill one.
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said
    # The processes that the batch itself ends are no failures of their images.
    assert "was killed" not in said
    deadline = time.monotonic() + 15
    while (alive := [c for c in children if Path(f"/proc/{c}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive
    assert 4 <= len(list(out.rglob("f*.json"))) < 24
    assert run(monkeypatch, [*arguments(root, out, *slowly), *TWO]) == 0
    assert run(monkeypatch, arguments(root, tmp_path / "whole", *slowly, *TOLD)) == 0
    assert files(out) == files(tmp_path / "whole")


ODD = """
    from leukokit.errors import PluginError
    class OddError(PluginError):
        def __init__(self, what, why):
            super().__init__(f"{what}: {why}")
    raise OddError("odd", "it travels badly")
"""


WRITER = """
from leukokit.registry import writers
from leukokit.writers.base import Writer

@writers.register
class Nothing(Writer):
    name, version, summary, file_an_image = f"nothing-{os.getpid()}", "1", "writes nothing", True

    def write(self, result):
        pass

"""


@pytest.mark.parametrize(
    ("ending", "said"),
    [("    os._exit(7)\n", "ended (exit code 7) at its start"), (ODD, "error: odd: it travels badly")],
)
def test_a_process_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ending: str, said: str
) -> None:
    root, ends = folder_of(tmp_path / "in", 3), tmp_path / "ends.py"
    # Loaded in this process, too, where it does not end.
    ends.write_text(f"import os\n{WRITER}if os.getpid() != {os.getpid()}:\n{ending}")
    code = run(monkeypatch, [*arguments(root, tmp_path / "out"), *TWO, "--plugin", str(ends)])
    assert code == 1
    told = capfd.readouterr().err
    assert said in told and "Traceback" not in told


def test_more_images_than_a_pipe_holds_wait_in_no_deadlock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "in"
    for number in range(12):
        save(root / ("deep" * 40) / f"f{number:03}.png", 200, 50)
    assert run(monkeypatch, [*arguments(root, tmp_path / "out"), *TWO, "--set", "detector.size=2"]) == 0
    assert sum(int(row["leukocyte"]) for row in rows(tmp_path / "out" / "counts.csv")) == 2400


def test_what_a_process_says_at_its_end_is_heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = Pipe()
    process = object.__new__(LookingProcess)
    monkeypatch.setattr(process, "_ended", False, raising=False)
    monkeypatch.setattr(process, "_connection", here, raising=False)
    ended = SimpleNamespace(join=lambda: None, exitcode=0)
    monkeypatch.setattr(process, "_process", ended, raising=False)
    there.send(_Said(logging.WARNING, "half as many from now on"))
    there.send(_Failed("OutputError", "the disk is full"))
    there.send(_Failed("PluginError", "writer 'w' failed at its end (ValueError: no)"))
    there.close()
    said = hear_out([process])
    assert [type(error) for error in said] == [OutputError, PluginError] and "writer 'w'" in str(said[1])
    assert "half as many from now on" in caplog.text
    ended.exitcode = -signal.SIGKILL
    (error,) = hear_out([process])
    assert "whose writers were to finish was killed (SIGKILL)" in str(error)


def test_a_process_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    here, _there = Pipe()
    process = object.__new__(LookingProcess)
    monkeypatch.setattr(process, "_ended", False, raising=False)
    monkeypatch.setattr(process, "_connection", here, raising=False)
    monkeypatch.setattr("leukokit.batch.process.PATIENCE", 0.05)
    (error,) = hear_out([process])
    assert "took longer than 0.05 s" in str(error)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals as POSIX has them")
def test_processes_leave_signals_to_the_batch() -> None:
    with _without_interrupts():
        assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, ())


ASKED = """
import os
from leukokit.detectors.base import Detector
from leukokit.registry import detectors

@detectors.register
class Asked(Detector):
    name, version, summary = "asked", "1.0", "finds nothing, and says how many threads it has"

    def detect(self, smears):
        return []

    def provenance(self):
        return super().provenance() | {"threads": os.environ.get("OMP_NUM_THREADS")}
"""


@pytest.mark.parametrize(("said", "has"), [(None, "3"), ("7", "7")])
def test_a_process_takes_its_share_of_threads_unless_the_user_says(
    said: str | None, has: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    (tmp_path / "asked.py").write_text(ASKED)
    config = PipelineConfig(detector=PluginChoice(name="asked"), classifier=None)
    work = Work(config, "cpu", (tmp_path / "asked.py",), (), tmp_path, workers=1, threads=3)
    with looking_processes([work]) as (process,):
        assert process.wait().provenance["detector"]["threads"] == has
    assert os.environ.get("OMP_NUM_THREADS") == said


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leukokit.batch.run.cores", lambda: 16)
    memory = {"cpu": 0, "cuda:0": 24 << 30, "cuda:1": 8 << 30, "cuda:2": 8 << 30}
    monkeypatch.setattr("leukokit.batch.run._free_memory", memory.__getitem__)
    monkeypatch.setattr("leukokit.batch.run._memory", lambda: 64 << 30)
    gpu, two = ["cuda:0"], ["cuda:0", "cuda:1"]
    assert how_many_processes(None, ["cpu"], 9000) == 0
    assert how_many_processes(None, gpu, 9000) == 12
    assert how_many_processes(None, ["cuda:1"], 9000) == 4
    assert how_many_processes(None, two, 9000) == 8
    assert how_many_processes(None, ["cuda:0", "cpu"], 9000) == 0
    assert how_many_processes(None, gpu, 120) == 2
    assert how_many_processes(None, gpu, 60) == 0
    assert how_many_processes(1, gpu, 9000) == 0
    assert how_many_processes(3, ["cpu"], 0) == 0
    assert how_many_processes(3, ["cpu"], 9000) == 3
    assert how_many_processes(2, [*two, "cuda:2"], 9000) == 3
    monkeypatch.setattr("leukokit.batch.run._memory", lambda: 16 << 30)
    assert how_many_processes(None, gpu, 9000) == 5
    monkeypatch.setattr("leukokit.batch.run.cores", lambda: 1)
    assert how_many_processes(None, gpu, 9000) == 0
