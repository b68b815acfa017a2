"""What engines need to know of the CPU, found out without importing them."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


def cores() -> int:
    """Cores that this process may use; fewer where ``OMP_NUM_THREADS`` says so."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(here, int(said))) if said.isdecimal() else here


@cache
def avx_problem(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Why the libraries' compiled code cannot run on this CPU; empty where it can, or nobody says.

    Without AVX they end the process with an illegal instruction, which nothing can catch.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return ""
    if not flags or "avx" in flags.split():
        return ""
    return "this CPU has no AVX instructions, without which the library does not run; use another computer"
