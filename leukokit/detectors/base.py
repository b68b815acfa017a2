"""The contract of a detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from leukokit.cells import Cells
from leukokit.plugin import Plugin, PluginParams
from leukokit.smear import Smear


class Detector(Plugin, ABC):
    """Finds the cells of smears.

    Args:
        params: the plugin's parameters; None for its defaults.
        device: ``cpu``, ``cuda`` or ``cuda:N``, already resolved.
    """

    def __init__(self, params: PluginParams | None = None, device: str = "cpu") -> None:
        super().__init__(params)
        self.device = device

    @abstractmethod
    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Cells of each smear, in the order given; boxes in pixels of the original image."""
