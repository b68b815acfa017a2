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

from leukokit.batch.messages import Failure, LogLine, WorkerSettings
from leukokit.batch.resources import process_count
from leukokit.batch.worker_process import WorkerProcess, _without_interrupts, finish_workers, start_workers
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.errors import OutputError, PluginError
from leukokit.registry import ALL

SCRIPTED = ("--plugin", str(PLUGINS))
TWO = ("--processes", "2", *SCRIPTED)


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
    save(root / "blue.png", 2, action="fail")
    assert run(monkeypatch, arguments(root, tmp_path / "whole", *SCRIPTED)) == 3
    deadly = save(root / "slide-1" / "deadly.png", 2, action="die")
    assert run(monkeypatch, [*arguments(root, out), *TWO]) == 3
    causes = {row["image"]: row["cause"] for row in rows(out / "failures.csv")}
    assert "its worker process was killed (SIGKILL)" in causes["slide-1/deadly.png"]
    assert "told to fail" in causes["blue.png"]
    assert len(causes) == 3 and len(rows(out / "counts.csv")) == 33
    # Without that image the same command ends with the tables of a batch in one process.
    deadly.unlink()
    assert run(monkeypatch, [*arguments(root, out), *TWO]) == 3
    assert files(out) == files(tmp_path / "whole")
    assert json.loads((out / "run.json").read_text())["provenance"]["device"] == "cpu"


FULL = """
from leukokit.errors import OutputError
from leukokit.registry import writers
from leukokit.writers.base import Writer

@writers.register
class Full(Writer):
    name, version, summary = "full", "1", "finds the disk full at its last image"

    def write(self, result):
        if result.output_stem.name == "f005":
            raise OutputError("f005.txt: cannot be written (no space left); free space")
"""


def test_a_full_disk_at_the_last_image_stops_the_batch(tmp_path: Path) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    (tmp_path / "full.py").write_text(FULL)
    more = ("--save", "full", "--plugin", str(tmp_path / "full.py"))
    command = [sys.executable, "-m", "leukokit", *arguments(root, out), *TWO, *more]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 1
    assert "f005.txt: cannot be written" in stopped.stderr and "Traceback" not in stopped.stderr
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
    assert run(monkeypatch, arguments(root, tmp_path / "whole", *slowly, *SCRIPTED)) == 0
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
    name, version, summary, file_per_image = f"nothing-{os.getpid()}", "1", "writes nothing", True

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
    process = object.__new__(WorkerProcess)
    monkeypatch.setattr(process, "_is_ended", False, raising=False)
    monkeypatch.setattr(process, "_connection", here, raising=False)
    ended = SimpleNamespace(join=lambda: None, exitcode=0, pid=None)
    monkeypatch.setattr(process, "_process", ended, raising=False)
    there.send(LogLine(logging.WARNING, "half as many from now on"))
    there.send(Failure("OutputError", "the disk is full"))
    there.send(Failure("PluginError", "writer 'w' failed at its end (ValueError: no)"))
    there.close()
    said = finish_workers([process])
    assert [type(error) for error in said] == [OutputError, PluginError] and "writer 'w'" in str(said[1])
    assert "half as many from now on" in caplog.text
    ended.exitcode = -signal.SIGKILL
    (error,) = finish_workers([process])
    assert "whose writers were closing was killed (SIGKILL)" in str(error)


def test_a_process_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    here, _there = Pipe()
    process = object.__new__(WorkerProcess)
    monkeypatch.setattr(process, "_is_ended", False, raising=False)
    monkeypatch.setattr(process, "_connection", here, raising=False)
    monkeypatch.setattr("leukokit.batch.worker_process.PATIENCE", 0.05)
    (error,) = finish_workers([process])
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
    work = WorkerSettings(
        config, "cpu", (tmp_path / "asked.py",), (), tmp_path, workers=1, threads=3, memory=1 << 30
    )
    with start_workers([work]) as (process,):
        assert process.wait().provenance["detector"]["threads"] == has
    assert os.environ.get("OMP_NUM_THREADS") == said


def test_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leukokit.batch.resources.cores", lambda: 16)
    memory = {"cpu": 0, "cuda:0": 24 << 30, "cuda:1": 8 << 30, "cuda:2": 8 << 30}
    monkeypatch.setattr("leukokit.batch.resources._free_memory", memory.__getitem__)
    monkeypatch.setattr("leukokit.batch.resources.machine_memory", lambda: 64 << 30)
    gpu, two = ["cuda:0"], ["cuda:0", "cuda:1"]
    assert process_count(None, ["cpu"], 9000) == 0
    assert process_count(None, gpu, 9000) == 12
    assert process_count(None, ["cuda:1"], 9000) == 4
    assert process_count(None, two, 9000) == 8
    assert process_count(None, ["cuda:0", "cpu"], 9000) == 0
    assert process_count(None, gpu, 120) == 2
    assert process_count(None, gpu, 60) == 0
    assert process_count(1, gpu, 9000) == 1
    assert process_count(3, ["cpu"], 0) == 0
    assert process_count(3, ["cpu"], 9000) == 3
    assert process_count(0, gpu, 9000) == 0
    # Plugins that may hang or end their process get one.
    assert process_count(None, ["cpu"], 9, isolate=True) == 1
    assert process_count(None, ["cpu"], 9000, isolate=True) == 8
    assert process_count(None, gpu, 60, isolate=True) == 1
    assert process_count(0, ["cpu"], 60, isolate=True) == 0
    assert process_count(2, [*two, "cuda:2"], 9000) == 3
    monkeypatch.setattr("leukokit.batch.resources.machine_memory", lambda: 16 << 30)
    assert process_count(None, gpu, 9000) == 5
    monkeypatch.setattr("leukokit.batch.resources.cores", lambda: 1)
    assert process_count(None, gpu, 9000) == 0


ONCE = """
import os
from pathlib import Path

marker = Path(__file__).with_name("started")
if os.getpid() != {parent} and not marker.exists():
    marker.touch()
    os.kill(os.getpid(), 9)
"""


def test_a_process_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, own = folder_of(tmp_path / "in", 3), tmp_path / "own.py"
    own.write_text(PLUGINS.read_text() + ONCE.format(parent=os.getpid()))
    line = [*arguments(root, tmp_path / "out"), "--processes", "1", "--plugin", str(own)]
    assert run(monkeypatch, line) == 0
    assert (tmp_path / "started").exists() and len(rows(tmp_path / "out" / "counts.csv")) == 3
