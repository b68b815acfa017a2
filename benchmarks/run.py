"""Run benchmarks and add their figures to ``benchmarks/results``.

    python benchmarks/run.py                    # lists them
    python benchmarks/run.py graphs cold_start
    python benchmarks/run.py --update-docs      # the figures that the documentation quotes

Times mean something only on a machine that does nothing else: a busy one is refused without ``--anyway``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from quotes import documentation, update
from records import BENCHMARKS, ROOT, add_run, read_runs

IDLE_LOAD = 0.5
"""Load average of a minute up to which a machine counts as idle."""


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="'all', or: " + ", ".join(BENCHMARKS))
    parser.add_argument("--anyway", action="store_true", help="Run on a busy machine, too.")
    parser.add_argument("--update-docs", action="store_true", help="Write the quoted figures anew.")
    options = parser.parse_args()
    names = list(BENCHMARKS) if options.names == ["all"] else options.names
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"no benchmark named {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    if names and not options.anyway and (load := load_average()) > IDLE_LOAD:
        print(f"the machine is busy (load {load:.1f}); wait, or say --anyway", file=sys.stderr)
        return 1
    for name in names:
        run(name)
    if options.update_docs:
        for page in filter(update, documentation()):
            print(f"wrote {page.relative_to(ROOT)}")
    if not names and not options.update_docs:
        list_benchmarks()
    return 0


def load_average() -> float:
    """Return the load average of the last minute; 0 where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def run(name: str) -> None:
    """Run a benchmark and keep its figures.

    Raises:
        SystemExit: it failed; nothing is kept.
    """
    print(f"== {name}: {BENCHMARKS[name].title}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        script = Path(__file__).with_name(f"{name}.py")
        command = [sys.executable, str(script), *BENCHMARKS[name].arguments, "--json", str(figures)]
        finished = subprocess.run(command, cwd=ROOT, check=False)
        if finished.returncode:
            raise SystemExit(f"{name} failed with exit code {finished.returncode}; nothing was recorded")
        path = add_run(name, json.loads(figures.read_text(encoding="utf-8")))
    print(f"recorded in {path.relative_to(ROOT)}", flush=True)


def list_benchmarks() -> None:
    """Print the name, title and newest run of each benchmark."""
    for name, benchmark in BENCHMARKS.items():
        runs = read_runs(name)
        newest = f"{runs[-1]['date']}, commit {runs[-1]['commit']}" if runs else "not recorded yet"
        print(f"{name:<12} {benchmark.title} ({newest})")


if __name__ == "__main__":
    raise SystemExit(main())
