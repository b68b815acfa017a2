"""A detector, and a writer, that do to each image what its first pixel's blue says: hang, crash, leave."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence

import numpy as np

from leukokit.cells import Cells
from leukokit.detectors.base import Detector
from leukokit.registry import detectors, writers
from leukokit.results import SmearResult
from leukokit.smear import Smear
from leukokit.writers.base import Writer

DEEDS = (
    *("none", "exit", "regex", "orphan", "segfault", "generator-exit", "chdir", "child", "kill", "stop"),
    *("print", "write-exit", "write-regex", "write-sleep", "write-raise"),
)


def do(deed: str) -> None:
    if deed == "exit":
        os._exit(0)
    elif deed == "regex":
        # Keeps the interpreter for hours.
        re.match(r"(a+)+$", "a" * 60 + "b")
    elif deed == "orphan":
        # A child that outlives it holds its pipes open.
        if os.fork() == 0:
            time.sleep(600)
        os._exit(1)
    elif deed == "segfault":
        ctypes.string_at(0)
    elif deed == "generator-exit":
        raise GeneratorExit
    elif deed == "chdir":
        os.chdir("/")
    elif deed == "child":
        subprocess.run(["sleep", "600"], check=True)
    elif deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif deed == "print":
        print("a plugin prints", flush=True)
    elif deed == "sleep":
        time.sleep(600)
    elif deed == "raise":
        raise BaseException("a writer's own")


@detectors.register
class Nasty(Detector):
    """One leukocyte for each image that it returns from."""

    name, version, summary = "nasty", "1", "hangs, crashes or leaves"

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        for smear in smears:
            do(DEEDS[int(smear.image[0, 0, 2])])
        boxes = np.array([[1, 1, 9, 9]], np.float32)
        return [Cells(boxes, np.zeros(1, np.int64), np.ones(1, np.float32)) for _ in smears]


@writers.register
class NastyWriter(Writer):
    """An empty file for each image that it returns from."""

    name, version, summary = "nasty", "1", "hangs, crashes or leaves"

    def write(self, result: SmearResult) -> None:
        deed = DEEDS[int(result.smear.image[0, 0, 2])]
        if deed.startswith("write-"):
            do(deed.removeprefix("write-"))
        self.save(self.path_for(result, ".nasty"), "")
