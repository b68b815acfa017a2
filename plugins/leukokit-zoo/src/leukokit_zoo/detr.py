"""Detector ``detr``: after Leng et al. (2023, doi:10.1016/j.bspc.2022.104518), a detection transformer.

RT-DETR's decoder (Zhao et al. 2024, arXiv:2304.08069), as ultralytics builds it, reads the maps of the
detector ``yolo``, whose weights stay as they are; it is small, and finds leukocytes alone.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from leukokit import weights
from leukokit.detectors import YoloDetector, YoloParams
from leukokit.detectors.yolo import DEFAULT_WEIGHTS, YoloModel, layout_of
from leukokit.errors import WeightsError
from leukokit.taxonomy import KINDS
from pydantic import Field

from leukokit_zoo.weights import FOLDER

HIDDEN, QUERIES, POINTS, HEADS, LAYERS, FEED_FORWARD, DENOISING = 128, 50, 4, 4, 2, 256, 20
BACKBONE = "yolo11n"


class DetrParams(YoloParams):
    """Parameters of the detector ``detr``."""

    weights: Path = Field(FOLDER / "detr.safetensors", description="weight file of the decoder")
    # The decoder learnt on windows of 320 px and finds next to nothing in pictures of 1,000 px.
    tile_px: int = Field(
        640,
        ge=256,
        multiple_of=32,
        description="longest side of an image that the network gets, in pixels",
    )


class DetrDetector(YoloDetector[DetrParams]):
    """Leukocytes by a transformer's queries; sizes and tiles are dealt with as by ``yolo``."""

    name = "detr"
    version = "0.1"
    summary = "RT-DETR decoder on the maps of 'yolo', leukocytes only (after Leng et al. 2023)"

    @cached_property
    def model(self) -> YoloModel:
        """The network; model on first use.

        Raises:
            WeightsError: a file is missing, damaged, or of another architecture.
        """
        path = weights.find(self.params.weights)
        card = weights.read_card(path, weights.DetectorCard)
        return YoloModel(
            network=DetrNetwork(load(path), self.device),
            kinds=np.array([KINDS.index(kind) for kind in card.kinds], dtype=np.int64),
            cell_diameter_px=card.cell_diameter_px,
            diameter_range_px=card.diameter_range_px,
            confidence=card.confidence,
            name=card.name,
            sha256=card.sha256,
        )

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The decoder's file, and that of the network whose maps it reads."""
        return weights.find(self.params.weights), weights.find(DEFAULT_WEIGHTS)


class DetrNetwork:
    """The network behind ``leukokit.detectors.yolo.network.Network``: a query is an anchor."""

    def __init__(self, module: Any, device: str) -> None:
        self.module, self.device = module.float().eval().to(device), device

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Boxes and scores, float32 (B, QUERIES, 5)."""
        import torch

        height, width = pictures.shape[1:3]
        batch = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            boxes, scores = self.module.predict(batch)[1][:2]
            centres, half = boxes[-1][..., :2], boxes[-1][..., 2:] / 2
            corners = torch.cat([centres - half, centres + half], dim=-1)
            pixels = corners * corners.new_tensor([width, height, width, height])
            found = torch.cat([pixels, scores[-1].sigmoid()], dim=-1)
        return np.asarray(found.cpu().numpy(), dtype=np.float32)


def build() -> Any:
    """The network, its maps those of the shipped ``smear-yolo11n``, its decoder with random weights."""
    layout = layout_of(BACKBONE)
    from safetensors.torch import load_file
    from ultralytics.nn.tasks import RTDETRDetectionModel

    maps = layout["head"][-1][0]
    decoder = ["nc", HIDDEN, QUERIES, POINTS, HEADS, LAYERS, FEED_FORWARD]
    layout["head"][-1] = [maps, 1, "RTDETRDecoder", decoder]
    network: Any = RTDETRDetectionModel(layout, nc=1, verbose=False)  # type: ignore[no-untyped-call]
    network.nc, network.model[-1].num_denoising = 1, DENOISING
    stored = load_file(weights.find(DEFAULT_WEIGHTS))
    last = f"model.{len(network.model) - 1}."
    network.load_state_dict({k: v.float() for k, v in stored.items() if not k.startswith(last)}, strict=False)
    for layer in network.model[:-1]:
        layer.requires_grad_(False)
    return network


def load(path: Path) -> Any:
    """The network with the decoder of a weight file.

    Raises:
        WeightsError: the file does not fit.
    """
    from leukokit.weights import load_weights

    network = build()
    try:
        load_weights(network.model[-1], path)
    except WeightsError as error:
        raise WeightsError(f"{error}; it must hold a decoder of 'detr'") from error
    return network
