"""A detector and a writer that do what a script tells them to, for tests of what stands around plugins.

The script is a JSON object in the environment variable ``LEUKOKIT_SCRIPT``: for each image's stem, or for
``*``, which stands for all others, what happens to it:

- ``cells``: number of leukocytes that the detector finds (default 1);
- ``notes``: the notes of these cells;
- ``print``: text that the detector prints on standard output, from Python and from C;
- ``chdir``: folder that the detector changes to;
- ``raise``: name of a built-in exception that the detector raises;
- ``hold``: seconds for which the detector keeps the interpreter;
- ``exit``: exit code with which the writer ends the process.

Usage: ``--plugin tests/support/scripted.py --detector scripted --save scripted``.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from leukokit import Cells, Detector, Smear, SmearResult, Writer, register

SCRIPT = "LEUKOKIT_SCRIPT"


def lines_for(smear: Smear) -> dict[str, Any]:
    """Return what the script says about an image."""
    script = json.loads(os.environ.get(SCRIPT, "{}"))
    found: dict[str, Any] = script.get(smear.path.stem if smear.path else "", script.get("*", {}))
    return found


@register
class ScriptedDetector(Detector):
    """Finds what the script says."""

    name, version, summary = "scripted", "1.0", "finds what the test's script says"

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        return [self._follow(lines_for(smear)) for smear in smears]

    def _follow(self, script: dict[str, Any]) -> Cells:
        if text := script.get("print"):
            print(text, flush=True)
            os.write(1, f"{text} from C\n".encode())
        if folder := script.get("chdir"):
            os.chdir(folder)
        if kind := script.get("raise"):
            raise getattr(builtins, kind)("as the script says")
        started = time.monotonic()
        while time.monotonic() - started < script.get("hold", 0):
            # Backtracks for about a second without giving the interpreter away.
            re.match(r"(a|a)*$", "a" * 22 + "b")
        count = script.get("cells", 1)
        corners = 12.0 * np.arange(count, dtype=np.float32)[:, None] * np.ones(2, np.float32)
        boxes = np.concatenate([corners, corners + 10], axis=1)
        return Cells(boxes, np.zeros(count, int), np.ones(count, np.float32), tuple(script.get("notes", ())))


@register
class ScriptedWriter(Writer):
    """Saves the number of cells, or ends the process."""

    name, version, summary = "scripted", "1.0", "saves what the test's script says"

    def write(self, result: SmearResult) -> None:
        script = lines_for(result.smear)
        if "exit" in script:
            os._exit(script["exit"])
        self.save(self.path_for(result, ".count"), f"{len(result.cells)}\n")
