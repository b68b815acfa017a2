"""The network of the classifier ``altarawneh``: a crop beside a vector of its context."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

ALTARAWNEH_PX: Final = 64
"""Side of its crops."""
DESCRIPTOR_SIZE: Final = 64
"""Length of its vector."""


class AltarawnehNetwork(nn.Module):
    """The network of the seed paper, layer by layer (Altarawneh 2023, IJRITCC 11(9)).

    Two 3x3 convolutions of 32 and 64 filters without padding, each with ReLU and a 2x2 maximum, flattened
    to 12,544; beside them a dense layer of 64 on a 64-vector; both joined into a dense layer of 128 and
    the output. With one output unit it has the paper's 1,637,633 parameters.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.vector = nn.Linear(DESCRIPTOR_SIZE, 64)
        self.joined = nn.Linear(64 * 14 * 14 + 64, 128)
        self.output = nn.Linear(128, outputs)
        # The paper says nothing of the vector's units: they are brought to mean 0 and deviation 1.
        self.register_buffer("mean", torch.zeros(DESCRIPTOR_SIZE))
        self.register_buffer("deviation", torch.ones(DESCRIPTOR_SIZE))

    def forward(self, crops: torch.Tensor, descriptors: torch.Tensor) -> torch.Tensor:
        """Logits (B, outputs) of RGB crops (B, 3, 64, 64) in 0..1 and descriptors (B, 64), both float32."""
        x = torch.max_pool2d(torch.relu(self.conv1(crops)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
        scaled = (descriptors - self.mean) / self.deviation
        v = torch.relu(self.vector(scaled.clamp(-5, 5)))
        y = torch.relu(self.joined(torch.cat([x, v], dim=1)))
        logits: torch.Tensor = self.output(y)
        return logits
