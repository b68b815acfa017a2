"""YOLO networks as torch modules: built by ultralytics' package, made ready to run or to be exported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from leukokit import weights
from leukokit.detectors.yolo.network import build_network, quiet_ultralytics
from leukokit.engines.export import Example, Exportable, write_graph_beside
from leukokit.errors import WeightsError, cause_of
from leukokit.weights.files import load_weights

INPUT: Final = "pictures"
OUTPUT: Final = "anchors"
OPEN_SIDES: Final = {0: "pictures", 1: "height", 2: "width"}


class PictureModule(nn.Module):
    """A detection network on pictures as they are in memory.

    uint8 (B, H, W, 3) RGB, sides divisible by 32, to float32 (B, 4 + K, A): of each anchor centre, width and
    height in pixels, and K scores.

    Args:
        network: an ultralytics ``DetectionModel``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.float().eval()
        # The end-to-end heads of newer architectures keep at most 300 cells, silently.
        self.head.end2end = False

    @property
    def head(self) -> Any:
        """The network's last layer."""
        layers: Any = self.network.model
        return layers[-1]

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        output = self.network(pictures.permute(0, 3, 1, 2).float() / 255)
        anchors: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return anchors

    def for_speed(self) -> PictureModule:
        """Work the normalisations into the convolutions; for torch alone, which is then twice as fast."""
        fused: Any = self.network
        self.network = fused.fuse(verbose=False).to(memory_format=torch.channels_last)
        for layer in self.network.modules():
            # A copy of every map for its activation costs a fifth of the time on a CPU.
            if isinstance(layer, nn.SiLU):
                layer.inplace = True
        return self

    def for_export(self) -> PictureModule:
        """Compute the anchors' places from each picture's size, as a graph for any size must."""
        self.head.export, self.head.dynamic, self.head.format = True, True, "onnx"
        return self


def from_safetensors(path: Path, architecture: str, kinds: int) -> PictureModule:
    """The network of a weight file.

    Raises:
        WeightsError: the file is damaged, or of another architecture.
    """
    network = build_network(architecture, kinds)
    load_weights(network, path)
    return PictureModule(network)


def from_pickle(path: Path) -> tuple[PictureModule, list[str]]:
    """The network of an ultralytics checkpoint and the names of its classes; runs the code in the file.

    Raises:
        WeightsError: it is no such checkpoint.
    """
    quiet_ultralytics()
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        module = checkpoint.get("ema") or checkpoint["model"]
        names = module.names
    except Exception as error:
        # Unpickling runs foreign code, which may raise anything.
        raise WeightsError(f"{path}: not an ultralytics checkpoint ({cause_of(error)})") from error
    ordered = [str(names[number]) for number in sorted(names)] if isinstance(names, dict) else list(names)
    return PictureModule(module), ordered


def exportable(module: Callable[[], PictureModule]) -> Exportable:
    """A network as an export needs it; ``module`` makes it anew."""
    traced = Example(INPUT, torch.zeros(1, 64, 96, 3, dtype=torch.uint8), OPEN_SIDES)
    outputs = {OUTPUT: {0: "pictures", 2: "anchors"}}
    return Exportable(module().for_export(), module().for_speed().for_export(), [traced], outputs)


def write_detector_graph(path: Path) -> None:
    """Write the ONNX graph of a weight file beside it, and its hash into the card.

    Raises:
        WeightsError: the file has no card, is damaged, or cannot be exported.
    """
    card = weights.read_card(path, weights.DetectorCard)
    module = partial(from_safetensors, path, card.architecture, len(card.kinds))
    weights.record_graph(path, write_graph_beside(exportable(module), path))
