"""Training the classifier ``hybrid``: a CNN and a graph network over the cells, at once.

The graph network has the CNN's embedding of a leukocyte's crop on the leukocyte's node. Both answer, and
what is made less is the mean of their errors: the CNN is then a classifier of its own, ``cnn``, on whose
weights the hybrid stands. Colours of all cells of a field are varied together and sizes too: only what is
compared with the other cells of the field is then left to go by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader, Subset

from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.hybrid import embedded
from leukokit.classifiers.networks.backbone import EMBEDDING
from leukokit.classifiers.networks.context import CONTEXT_FEATURES, context_tensors
from leukokit.classifiers.networks.context_network import ContextNetwork
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.neural import DEFAULT_VIEWS, to_input
from leukokit.datasets.fields import WeightsName
from leukokit.graph_builders.base import GraphBuilder
from leukokit.pyg import Batch, Data
from leukokit.training.calibration import UNCALIBRATED, calibration_of
from leukokit.training.cards import write_card
from leukokit.training.cells import AnnotatedCell, builder_of, plain_views, training_cells
from leukokit.training.classifier import ClassifierRecipe, Progress, ViewDataset, build
from leukokit.training.loop import TrainingState
from leukokit.weights import sha256_of
from leukokit.weights.files import save_weights

_COLOURS = [number for number, name in enumerate(CONTEXT_FEATURES) if name[-2:] in ("_r", "_g", "_b")]
_LENGTHS = [CONTEXT_FEATURES.index(name) for name in ("diameter", "mean_edge_length")]


class HybridRecipe(ClassifierRecipe):
    """What ``leukokit train classifier --config`` reads for ``hybrid``."""

    classifier: Literal["hybrid"]
    cnn: WeightsName = "leukocyte-cnn"
    stain: float = Field(0.15, ge=0, description="spread of the factor on a field's optical densities")
    size: float = Field(0.04, ge=0, description="spread of the factor on a field's lengths")

    @property
    def plugin(self) -> type[CnnClassifier]:
        """The classifier that the CNN is of."""
        return CnnClassifier


class JointNetwork(nn.Module):
    """A CNN, and a graph network on its embedding."""

    def __init__(self, cnn: CropNetwork, context: ContextNetwork) -> None:
        super().__init__()
        self.cnn, self.context = cnn, context

    def forward(
        self, crops: torch.Tensor, features: torch.Tensor, batch: Batch, nodes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, classes) of the graph network and of the CNN alone.

        Args:
            crops: (B, 3, S, S) float32 RGB in 0..1.
            features: (N, 21) float32 of all nodes, columns as ``context.CONTEXT_FEATURES``.
            batch: the graphs of the crops' cells, one each.
            nodes: (B,) int64, the crops' nodes.
        """
        seen = self.cnn.backbone(crops)
        pictures = features.new_zeros(len(features), seen.shape[1]).index_copy(0, nodes, seen)
        logits = self.context(features, pictures, batch.edge_index, batch.edge_attr)
        return logits[nodes], self.cnn.head(seen)


def train_hybrid(
    recipe: HybridRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train, writing checkpoints to ``out``; returns the path of the graph network's weights.

    Their card lies beside, and so do the CNN's weights, with a card that makes them those of a ``cnn``.

    Raises:
        DataError: no cell is selected.  ConfigError: nothing to resume.  WeightsError: no ImageNet weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells, held = training_cells(recipe)
    report(f"{len(cells)} cells to train on, {len(held)} held back to calibrate")
    scenes = Scenes(cells, builder_of(recipe.graph))
    state = start(recipe, scenes, device)
    if resume:
        state.load(out / "state.pt")
    fit(state, recipe, scenes, out / "state.pt", report)
    network = state.average
    assert isinstance(network, JointNetwork)
    path, cnn_path = out / "best.safetensors", out / f"{recipe.cnn}.safetensors"
    save_weights(network.context, path)
    save_weights(network.cnn, cnn_path)
    calibration = alone = UNCALIBRATED
    if held:
        labels = np.array([cell.label for cell in held])
        seen = embeddings_of(network.cnn, held, recipe)
        logits = context_logits(network.context, Scenes(held, builder_of(recipe.graph)), seen)
        calibration = calibration_of(logits, labels, recipe.target_accuracy, report)
        report("the CNN alone:")
        alone = calibration_of(head_logits(network.cnn, seen), labels, recipe.target_accuracy, report)
    common = {
        "crop_px": recipe.crop_px,
        "cover": recipe.cover,
        "unit": recipe.unit,
        "nucleus": recipe.nucleus,
        "graph": {"name": recipe.graph.name, **recipe.graph.params},
    }
    own = recipe.model_copy(update={"name": recipe.cnn})
    used = cells + held
    write_card(own, cnn_path, command, used, alone, architecture=recipe.plugin.architecture, **common)
    write_card(
        recipe,
        path,
        command,
        used,
        calibration,
        architecture=f"gatv2 on {recipe.plugin.architecture}",
        cnn={"name": recipe.cnn, "sha256": sha256_of(cnn_path)},
        **common,
    )
    return path


class Scenes:
    """The graphs of annotated cells' fields, each built once."""

    def __init__(self, cells: Sequence[AnnotatedCell], builder: GraphBuilder) -> None:
        self.cells = cells
        self.data: dict[int, Data] = {}
        self.inside: dict[int, list[int]] = {}
        for number, cell in enumerate(cells):
            key = id(cell.field)
            if key not in self.data:
                graph = builder.build(cell.field.cells)
                features, edges, figures = context_tensors(graph, cell.field.appearance)
                self.data[key] = Data(x=features, edge_index=edges, edge_attr=figures)
                self.inside[key] = []
            self.inside[key].append(number)

    def batch(self, numbers: Sequence[int]) -> tuple[Batch, torch.Tensor]:
        """The graphs of some cells, one each, side by side, and the (B,) cells' nodes.

        Args:
            numbers: positions of B cells.
        """
        batch = Batch.from_data_list([self.data[id(self.cells[number].field)] for number in numbers])
        starts = batch.ptr[:-1].tolist()
        nodes = [start + self.cells[number].node for start, number in zip(starts, numbers, strict=True)]
        return batch, torch.tensor(nodes)

    def pictures(
        self, numbers: Sequence[int], batch: Batch, embeddings: npt.NDArray[np.float32]
    ) -> torch.Tensor:
        """Embeddings (nodes, E) of a batch: of annotated cells, from (N, E) of all; zeros elsewhere."""
        pictures = torch.zeros(batch.num_nodes, embeddings.shape[1])
        for number, start in zip(numbers, batch.ptr[:-1].tolist(), strict=True):
            for other in self.inside[id(self.cells[number].field)]:
                pictures[start + self.cells[other].node] = torch.from_numpy(embeddings[other])
        return pictures


def context_network(recipe: HybridRecipe, scenes: Scenes, embedding: int = EMBEDDING) -> ContextNetwork:
    """A graph network with its first weights, which knows the usual values of the features."""
    torch.manual_seed(recipe.seed)
    network = ContextNetwork(len(recipe.classes), embedding=embedding)
    features = torch.cat([data.x for data in scenes.data.values()])
    network.mean.copy_(features.mean(dim=0))
    network.deviation.copy_(features.std(dim=0, unbiased=False) + 1e-3)
    return network


def start(recipe: HybridRecipe, scenes: Scenes, device: str = "cpu") -> TrainingState:
    """Both networks with their first weights, the CNN's from ImageNet.

    Raises:
        WeightsError: the package that carries those is not installed.
    """
    cnn = build(recipe, np.empty((0, 0), np.float32))
    assert isinstance(cnn, CropNetwork)
    frozen = recipe.plugin.frozen_parts(cnn, recipe.frozen_blocks)
    context = context_network(recipe, scenes, cnn.backbone.width)
    network = JointNetwork(cnn.to(memory_format=torch.channels_last), context)
    return TrainingState(network.to(device), recipe, frozen)


def fit(
    state: TrainingState,
    recipe: HybridRecipe,
    scenes: Scenes,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Take the steps that are left."""
    device = next(state.network.parameters()).device
    # In place of what else a network is shown of a cell, its number.
    supply = ViewDataset(list(scenes.cells), np.arange(len(scenes.cells))[:, None], recipe)
    views = Subset(supply, range(state.step * recipe.batch, len(supply)))
    progress = Progress(state, report)
    for crops, numbers, labels in DataLoader(views, recipe.batch, num_workers=recipe.workers):
        rng = np.random.default_rng([recipe.seed, state.step])
        torch.manual_seed(int(rng.integers(2**31)))
        batch, nodes = scenes.batch(numbers[:, 0].tolist())
        batch = batch.to(device)
        features = varied_features(batch, recipe, rng)
        logits, alone = state.network(to_input(crops, str(device)), features, batch, nodes.to(device))
        progress.note(state.advance(torch.cat([logits, alone]), labels.to(device).repeat(2)))
        if checkpoint and state.step % recipe.check_every == 0:
            state.save(checkpoint)


def varied_features(batch: Batch, recipe: HybridRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Features (nodes, 21) with a factor a field on all its optical densities, and one on its lengths."""
    fields = batch.num_graphs
    stain = np.exp(rng.normal(0, recipe.stain, (fields, 3)))
    factors = np.ones((fields, len(CONTEXT_FEATURES)), np.float32)
    factors[:, _COLOURS] = np.tile(stain, len(_COLOURS) // 3)
    factors[:, _LENGTHS] = np.exp(rng.normal(0, recipe.size, (fields, 1)))
    varied: torch.Tensor = batch.x * torch.from_numpy(factors).to(batch.x.device)[batch.batch]
    return varied


@torch.inference_mode()
def embeddings_of(
    cnn: CropNetwork, cells: Sequence[AnnotatedCell], recipe: ClassifierRecipe
) -> npt.NDArray[np.float32]:
    """Embeddings (N, E) of the cells as the classifier sees them."""
    crops = plain_views(list(cells), recipe.crop_px, recipe.cover, recipe.nucleus, recipe.unit)
    found = [embedded(cnn, part, DEFAULT_VIEWS).cpu() for part in torch.split(crops, 64)]
    return np.asarray(torch.cat(found).numpy())


@torch.inference_mode()
def head_logits(cnn: CropNetwork, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (N, C) of the CNN alone."""
    device = next(cnn.parameters()).device
    return np.asarray(cnn.head(torch.from_numpy(embeddings).to(device)).cpu().numpy())


@torch.inference_mode()
def context_logits(
    network: nn.Module, scenes: Scenes, embeddings: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Logits (N, C) of the annotated cells with their embeddings (N, E)."""
    device, count = next(network.parameters()).device, len(scenes.cells)
    answers = []
    for first in range(0, count, 64):
        numbers = range(first, min(first + 64, count))
        batch, nodes = scenes.batch(numbers)
        pictures, batch = scenes.pictures(numbers, batch, embeddings), batch.to(device)
        logits = network(batch.x, pictures.to(device), batch.edge_index, batch.edge_attr)
        answers.append(logits[nodes].cpu())
    return np.asarray(torch.cat(answers).numpy())
