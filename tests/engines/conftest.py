"""A small network as a torch module, as safetensors, and as an ONNX graph on these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leukokit.engines.base import Model
from leukokit.engines.export import Example, export_graph, save_graph, share_weights
from leukokit.weights.files import load_weights, save_weights


class Wrapped(nn.Module):
    """As the package's networks are exported: pictures of bytes in, the network of the file within."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(pictures.permute(0, 3, 1, 2).float() / 255).mean(dim=(2, 3))
        return found


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    # One pass in training, for statistics that are no zeros and ones.
    network(torch.rand(4, 3, 9, 9))
    return network.eval()


@pytest.fixture
def model(tmp_path: Path) -> Model:
    weights, graph = tmp_path / "small.safetensors", tmp_path / "small.onnx"
    save_weights(small_network(), weights)

    def module() -> Any:
        network = small_network()
        load_weights(network, weights)
        return Wrapped(network).eval()

    example = Example("pictures", torch.zeros(1, 8, 9, 3, dtype=torch.uint8), {0: "n", 1: "h", 2: "w"})
    exported = export_graph(module(), [example], {"scores": {0: "n"}})
    share_weights(exported, weights)
    digest = save_graph(exported, graph)
    return Model(weights, ("pictures",), ("scores",), graph, digest, module)
