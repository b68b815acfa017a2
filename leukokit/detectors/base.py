"""The contract of a detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from leukokit.cells import Cells
from leukokit.engines.base import Engine
from leukokit.plugin import P_co, Plugin, PluginParams
from leukokit.smear import Smear


class DetectorParams(PluginParams):
    """Parameters of every detector."""

    confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="score below which a cell is dropped; by default the detector's own",
    )


class Detector(Plugin[P_co], ABC):
    """Finds the cells of fields of view; their parameters are best derived from ``DetectorParams``.

    Args:
        params: the plugin's parameters; None for its defaults.
        device: ``cpu``, ``cuda`` or ``cuda:N``; it exists.

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

    Params: ClassVar[type[PluginParams]] = DetectorParams

    def __init__(self, params: P_co | None = None, device: str = "cpu") -> None:
        super().__init__(params)
        self.device = device

    @property
    def default_confidence(self) -> float:
        """Confidence threshold where the parameter ``confidence`` is not set; 0 keeps every detection."""
        return 0.0

    @property
    def confidence(self) -> float:
        """Confidence threshold in use: ``detect`` returns no cell with a lower score."""
        chosen: float | None = getattr(self.params, "confidence", None)
        return self.default_confidence if chosen is None else chosen

    @abstractmethod
    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Return the cells of each field in the order given; boxes in pixels of the original image."""
