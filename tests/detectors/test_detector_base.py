"""The contract of a detector: its confidence threshold."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import Field

from leukokit.cells import Cells
from leukokit.detectors.base import Detector, DetectorParams
from leukokit.errors import ConfigError
from leukokit.smear import Smear


class NothingParams(DetectorParams):
    side_px: int = Field(3, description="a parameter of its own")


class Nothing(Detector):
    name = "nothing"
    version = "1"
    summary = "finds nothing"
    Params = NothingParams

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        return [Cells.empty() for _ in smears]


class Strict(Nothing):
    @property
    def default_confidence(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("kind", "values", "threshold"),
    [
        (Nothing, {}, 0.0),
        (Nothing, {"confidence": 0.25}, 0.25),
        (Strict, {}, 0.5),
        (Strict, {"confidence": 0.0}, 0.0),
    ],
)
def test_the_threshold_is_the_parameter_or_the_detectors_own(
    kind: type[Detector], values: dict[str, float], threshold: float
) -> None:
    assert kind(kind.parse(values)).confidence == threshold


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "high"])
def test_a_threshold_out_of_range_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="confidence"):
        Nothing.parse({"confidence": value})
