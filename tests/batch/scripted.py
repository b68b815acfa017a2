"""A detector and a classifier that do at once what an image's first pixel scripts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from leukokit.cells import Cells
from leukokit.classifiers.base import Classifier
from leukokit.detectors.base import Detector
from leukokit.graph import CellGraph
from leukokit.plugin import PluginParams
from leukokit.registry import classifiers, detectors
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE_CLASSES

ACTIONS = ("find", "fail", "hang", "die")


class ScriptedParams(PluginParams):
    """Parameters of the detector ``scripted``."""

    seconds: float = Field(0.0, description="time that it takes over an image")
    size: float = Field(9.0, description="side of the cells' boxes")


@detectors.register
class ScriptedDetector(Detector[ScriptedParams]):
    """Finds as many leukocytes as the first pixel is red, erythrocytes as it is green; blue is the action."""

    name, version, summary = "scripted", "1", "does what the first pixel scripts"
    Params = ScriptedParams

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        return [self._cells(smear) for smear in smears]

    def _cells(self, smear: Smear) -> Cells:
        time.sleep(self.params.seconds)
        white, red, number = (int(value) for value in smear.image[0, 0])
        action = ACTIONS[number]
        if action == "fail":
            raise ValueError("told to fail")
        if action == "hang":
            time.sleep(600)
        if action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        corners = np.arange(white + red, dtype=np.float32)[:, None] * np.ones(2, np.float32)
        boxes = np.concatenate([corners, corners + self.params.size], axis=1)
        return Cells(boxes, np.repeat([0, 1], [white, red]), np.full(white + red, 0.9, np.float32))


@classifiers.register
class Turns(Classifier):
    """The classes in turn, the first cell of an image uncertain."""

    name, version, summary = "turns", "1", "classes in turn"

    @property
    def classes(self) -> tuple[str, ...]:
        return LEUKOCYTE_CLASSES

    @property
    def review_threshold(self) -> float:
        return 0.5

    def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        return [self._chances(graph) for graph in graphs]

    def _chances(self, graph: CellGraph) -> npt.NDArray[np.float32]:
        chances = np.zeros((len(graph), 5), np.float32)
        for turn, node in enumerate(np.flatnonzero(graph.cells.kinds == 0)):
            top = 0.4 if turn == 0 else 0.8
            chances[node] = (1 - top) / 4
            chances[node, turn % 5] = top
        return chances
