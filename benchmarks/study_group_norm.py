"""The CNN of benchmarks/study.py with group normalisation, whose figures depend on the one crop alone."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from torch import nn

from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.registry import classifiers

GROUPS: Final = 8


@classifiers.register
class GroupNormClassifier(CnnClassifier):
    """The classifier ``cnn`` with group in place of batch normalisation (Wu & He 2018, arXiv:1803.08494).

    It starts from the same ImageNet weights, which expect the statistics that it does without: all of it
    is trained.
    """

    name = "cnn-group-norm"
    summary = "cnn with group normalisation"
    architecture = "efficientnet-lite0, group normalisation"

    @staticmethod
    def new_network(classes: int) -> CropNetwork:
        """The network, with random weights."""
        network = CropNetwork(classes)
        _replace(network.backbone)
        return network

    @classmethod
    def initialize(cls, network: CropNetwork, descriptors: npt.NDArray[np.float32]) -> None:
        """Take the published ImageNet weights, scales and offsets of the normalisation included."""
        published = CropNetwork(1).backbone
        published.load_imagenet()
        _replace(published)
        network.backbone.load_state_dict(published.state_dict())

    @classmethod
    def frozen_parts(cls, network: CropNetwork, blocks: int) -> list[nn.Module]:
        """None."""
        return []


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            group = nn.GroupNorm(GROUPS, child.num_features, eps=child.eps)
            group.weight, group.bias = child.weight, child.bias
            setattr(module, name, group)
        else:
            _replace(child)
