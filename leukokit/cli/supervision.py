"""A second process that watches a command whose writers are plugins of others.

Detectors and the like of others run in worker processes, but writers run in the command's own process. One
may end it, even with exit code 0, crash it, or keep it from hearing Ctrl-C. So the command runs in a child
process, and the parent reports how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

FINISHED: Final = "LEUKOKIT_FINISHED_FILE"
"""Environment variable of the child: the file that it makes when it ends in order."""
CHILD_PATIENCE: Final = 5.0
"""Seconds that a child has to end after Ctrl-C."""

_is_program = False


def enter_program() -> None:
    """Note that this process is the command's own, and may be started again as a child."""
    global _is_program
    _is_program = True
    if FINISHED in os.environ:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def mark_finished() -> None:
    """Tell the parent, if there is one, that this process ends in order."""
    if path := os.environ.get(FINISHED):
        with contextlib.suppress(OSError):
            Path(path).touch()


def supervise(writer_names: Sequence[str]) -> None:
    """Run this command in a child process and end as it does, if a writer is a plugin of others.

    Returns at once if none does, in the child itself, and where the command was called from Python.
    """
    if not _is_program or FINISHED in os.environ or _are_own(writer_names):
        return
    with tempfile.TemporaryDirectory(prefix="leukokit-") as folder:
        finished = Path(folder) / "finished"
        code = _run_child(finished)
        is_complete = finished.exists()
    if not is_complete and code != 130:
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        sys.stderr.write(
            f"error: a writer ended the process {how}: what is not saved is lost; "
            "'leukokit plugins check' tests plugins\n"
        )
        code = 1
    raise SystemExit(code)


def _are_own(writer_names: Sequence[str]) -> bool:
    """Return whether all writers are leukokit's own; imports none of them."""
    from leukokit.registry import OWN, writers

    return set(writer_names) <= {row.name for row in writers.rows() if row.package == OWN}


def _run_child(finished: Path) -> int:
    """Run this process's command in a child; returns its exit code, or minus the signal that ended it."""
    # As this process found its modules: with the current folder, or without.
    safe_path = [] if sys.path[:1] in ([""], [str(Path.cwd())]) else ["-P"]
    command = [sys.executable, *safe_path, "-m", "leukokit", *sys.argv[1:]]
    # In a process group of its own, so that Ctrl-C reaches it once, through this process.
    apart: dict[str, Any] = {} if os.name == "nt" else {"process_group": 0}
    child = subprocess.Popen(command, env=os.environ | {FINISHED: str(finished)}, **apart)
    deadline: float | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal deadline
        if deadline is not None:
            child.kill()
            return
        deadline = time.monotonic() + CHILD_PATIENCE
        child.send_signal(signal.SIGINT if os.name != "nt" else number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(0.2)
                break
            if deadline is not None and time.monotonic() > deadline:
                child.kill()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if deadline is None:
        return code
    if code != 130:
        sys.stderr.write("stopped: a writer did not react and was ended\n")
    return 130


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
