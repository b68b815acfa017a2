"""The contract of a classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leukokit.config import PluginChoice
from leukokit.engines.base import Engine
from leukokit.graph import CellGraph
from leukokit.plugin import P_co, Plugin
from leukokit.smear import Smear


class Classifier(Plugin[P_co], ABC):
    """Tells the classes of the leukocytes of cell graphs.

    Args:
        params: the plugin's parameters; None for its defaults.
        device: ``cpu``, ``cuda`` or ``cuda:N``, already resolved.

    Attributes:
        engine: what runs the networks, as the user chose; None for the best that is installed.
        threads: that one call of a network may use on a CPU; 0 for all cores.
    """

    engine: type[Engine] | None = None
    threads: int = 0

    @property
    def engine_used(self) -> str:
        """Name and version of the engine that runs the networks; empty where there is none."""
        return ""

    def __init__(self, params: P_co | None = None, device: str = "cpu") -> None:
        super().__init__(params)
        self.device = device

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes, in the order of the columns."""

    @property
    def review_threshold(self) -> float:
        """Least probability of a class; a leukocyte below it is ``unclassified`` and wants review."""
        return 0.0

    @property
    def trained_graph(self) -> PluginChoice | None:
        """The graph builder it was trained with; None if it uses no links."""
        return None

    @abstractmethod
    def classify(self, smears: Sequence[Smear], graphs: Sequence[CellGraph]) -> list[npt.NDArray[np.float32]]:
        """Class probabilities of every node, one (N, C) float32 array a graph, in the order given.

        A leukocyte's row sums to one; the row of any other cell is all zero.
        """
