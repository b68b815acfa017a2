"""What the benchmarks share: a child process's time and peak memory, the table, and the figures' file.

Run as a script it is the launcher of one child. Linux counts the peak memory of the process that starts a
program to that program, so a child started by a large benchmark would be charged for the benchmark.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = dict(os.environ)
"""The environment as the benchmark found it: ultralytics, once imported, allows its children one thread."""
LOAD_AT_START = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
"""Load average of the minute before the benchmark; times mean something where it is near 0."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One finished child.

    Attributes:
        seconds: by the clock on the wall.
        peak_mib: peak resident memory in MiB.
        stdout: what it printed.
        cpu_seconds: of all its threads and children, which other work on the machine hardly changes.
    """

    seconds: float
    peak_mib: float
    stdout: str
    cpu_seconds: float


def measure(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; with the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        launcher = [sys.executable, "-I", "-S", __file__, str(figures), *map(str, command)]
        run = subprocess.run(launcher, env=environment or ENVIRONMENT, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"failed: {' '.join(map(str, command))}\n{run.stdout[-800:]}{run.stderr[-800:]}")
        seconds, peak_mib, cpu = json.loads(figures.read_text())
    return Measured(seconds, peak_mib, run.stdout, cpu)


def console_script(name: str) -> Path:
    """A console script of the running interpreter's environment.

    Raises:
        SystemExit: it is not installed there.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise SystemExit(f"{name}: not installed beside {sys.executable}; install it into this environment")
    return path


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of texts, its first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        first, *others = (
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures as JSON with the machine they were measured on; nothing without a path."""
    if path is None:
        return
    partial = path.with_name(path.name + ".part")
    partial.write_text(
        json.dumps({"machine": describe_machine(), **figures}, indent=1) + "\n", encoding="utf-8"
    )
    partial.replace(path)


def describe_machine() -> dict[str, Any]:
    """Describe the machine, but do not name it: system, processor, cores, memory, Python, load."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "python": platform.python_version(),
        "OMP_NUM_THREADS": ENVIRONMENT.get("OMP_NUM_THREADS"),
        "load_at_start": LOAD_AT_START,
    }


def _processor() -> str:
    """The processor's model; where the system does not say, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _memory_gib() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def _launch(figures: Path, command: Sequence[str]) -> int:
    if not hasattr(os, "wait4"):
        print("peak memory is measured by os.wait4, which this system has not", file=sys.stderr)
        return 1
    started = time.perf_counter()
    child = os.posix_spawn(command[0], list(command), os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    cpu = usage.ru_utime + usage.ru_stime
    figures.write_text(json.dumps([seconds, usage.ru_maxrss * unit / 2**20, cpu]))
    return abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    raise SystemExit(_launch(Path(sys.argv[1]), sys.argv[2:]))
