"""Annotated cells of the drawn example, as training meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukokit.config import PipelineConfig
from leukokit.datasets.detected import detect_fields
from leukokit.datasets.fields import AnnotatedField
from leukokit.pipeline import Pipeline

SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"
CLASSES = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ``leukokit data cells``: the example's leukocytes, and one that the detector misses."""
    out = tmp_path_factory.mktemp("cells")
    pipeline = Pipeline.from_config(PipelineConfig(classifier=None))
    smear = pipeline.read(SMEAR)
    found = pipeline.detect(smear)
    boxes = [*found.boxes[found.kinds == 0].tolist(), [700.0, 20, 720, 40]]
    labels = [*(CLASSES[number % 5] for number in range(len(boxes) - 1)), "monocyte"]
    fields = [field(boxes, labels), field([[1, 1, 9, 9]], [""])]
    said: list[str] = []
    broken = field([[0, 0, 9, 9]], ["monocyte"], out / "none.png")
    assert detect_fields([*fields, broken], pipeline, out / "seen", said.append) == len(boxes)
    assert any("none.png" in line for line in said)
    return out / "seen"


def field(boxes: list[list[float]], labels: list[str], image: Path = SMEAR) -> AnnotatedField:
    kinds = ["leukocyte"] * len(boxes)
    return AnnotatedField(image, "txl-pbc", "pbc", "a", "", "train", (), boxes, kinds, labels)
