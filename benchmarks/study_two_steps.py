"""The hybrid in two steps: the graph network is trained on a CNN that is left as it is.

Whatever it then does better than that CNN is owed to the graph network, which is what the controls of
benchmarks/study.py take apart. Of every training cell the CNN sees several varied views; the graph network
learns from a random one each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from leukokit.classifiers.networks.backbone import EMBEDDING
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.networks.modules import to_input
from leukokit.training.cells import AnnotatedCell, rarity
from leukokit.training.classifier import classifier_plan
from leukokit.training.hybrid import FieldGraphs, HybridRecipe, context_network, varied_features
from leukokit.training.loop import Training
from leukokit.training.views import Variation, varied_view
from leukokit.weights.files import load_weights


class TwoStepRecipe(HybridRecipe):
    """The recipe of the second step; crops are those of the first."""

    classifier: Literal["hybrid"]
    trained_cnn: Path
    views: int = Field(3, ge=1, description="varied views of every training cell that the CNN sees")


def trained_cnn(recipe: TwoStepRecipe) -> CropNetwork:
    """The CNN of the first step, in evaluation mode."""
    network = CropNetwork(len(recipe.classes))
    load_weights(network, recipe.trained_cnn)
    return network.to(memory_format=torch.channels_last).eval()


@torch.inference_mode()
def varied(cnn: CropNetwork, cells: list[AnnotatedCell], recipe: TwoStepRecipe) -> npt.NDArray[np.float32]:
    """Embeddings (V, N, 320) of varied views of the cells."""
    out = np.empty((recipe.views, len(cells), EMBEDDING), np.float32)
    for view in range(recipe.views):
        for first in range(0, len(cells), 64):
            pictures = [
                varied_view(
                    np.asarray(cell.crop),
                    recipe.crop_px,
                    recipe.cover,
                    None,
                    Variation(recipe.low_resolution),
                    np.random.default_rng([recipe.seed, view, first + number]),
                )
                for number, cell in enumerate(cells[first : first + 64])
            ]
            crops = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
            out[view, first : first + len(pictures)] = cnn.backbone(to_input(crops, "cpu")).numpy()
    return out


def second_step(recipe: TwoStepRecipe, graphs: FieldGraphs, embeddings: npt.NDArray[np.float32]) -> nn.Module:
    """The graph network, trained; ``embeddings`` are (V, N, 320) float32 of the graphs' N cells."""
    training = Training(context_network(recipe, graphs), recipe, classifier_plan(recipe))
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    cells = graphs.cells
    chances = rarity(cells, recipe.balance)
    labels = torch.tensor([cell.label for cell in cells])
    while training.step < recipe.steps:
        rng = np.random.default_rng([recipe.seed, training.step])
        torch.manual_seed(int(rng.integers(2**31)))
        drawn = rng.choice(len(cells), recipe.batch, p=chances)
        batch, nodes = graphs.batch(drawn.tolist())
        view = embeddings[rng.integers(len(embeddings))]
        pictures = graphs.node_embeddings(drawn.tolist(), batch, view)
        features = varied_features(batch, recipe, rng)
        logits = training.network(features, pictures, batch.tensors.edges, batch.tensors.edge_features)
        training.advance(cross_entropy(logits[nodes], labels[drawn]))
    return training.average
