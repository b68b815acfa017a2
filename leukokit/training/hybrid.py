"""Training the classifier ``hybrid``: a CNN and a graph network over the cells, at once.

The graph network has the CNN's embedding of a leukocyte's crop on the leukocyte's node. Both answer, and
the loss is the mean of their errors: the CNN is then a separate classifier, ``cnn``, on whose
weights the hybrid stands. Colours of all cells of a field are varied together and sizes too: only what is
compared with the other cells of the field is then left to go by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.hybrid import find_cnn
from leukokit.classifiers.networks.backbone import EMBEDDING
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.classifiers.networks.context_network import ContextNetwork
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.networks.graph_batch import (
    GraphBatch,
    GraphTensors,
    context_tensors,
    side_by_side,
)
from leukokit.classifiers.networks.modules import (
    mean_embeddings,
    to_input,
    write_context_graph,
    write_crop_graph,
)
from leukokit.classifiers.neural import DEFAULT_VIEWS
from leukokit.datasets.fields import WeightsName
from leukokit.graph_builders.base import GraphBuilder
from leukokit.training.calibration import UNCALIBRATED, calibration_of
from leukokit.training.cards import write_classifier_card, write_graph
from leukokit.training.cells import (
    AnnotatedCell,
    absence_offsets,
    builder_of,
    plain_views,
    training_cells,
)
from leukokit.training.classifier import (
    ClassifierRecipe,
    ViewDataset,
    build,
    classifier_plan,
    crop_entries,
)
from leukokit.training.loop import Training, fit
from leukokit.weights import ClassifierCard, read_card, sha256_of
from leukokit.weights.files import load_weights, save_weights

_COLOURS = [number for number, name in enumerate(CONTEXT_FEATURES) if name[-2:] in ("_r", "_g", "_b")]
_OWN_COLUMNS = [n for n, name in enumerate(CONTEXT_FEATURES) if name not in ("degree", "mean_edge_length")]
_LENGTHS = [CONTEXT_FEATURES.index(name) for name in ("diameter", "mean_edge_length")]


class HybridRecipe(ClassifierRecipe):
    """What ``leukokit train classifier --config`` reads for ``hybrid``."""

    classifier: Literal["hybrid"]
    cnn: WeightsName = "leukocyte-cnn"
    stain: float = Field(0.15, ge=0, description="spread of the factor on a field's optical densities")
    size: float = Field(0.04, ge=0, description="spread of the factor on a field's lengths")
    foreign_context: float = Field(
        0.0, ge=0, le=1, description="share of the cells put into the graph of another cell's field"
    )
    members: int = Field(
        1,
        ge=1,
        le=16,
        description="trainings, of this seed and those after it, whose weights are averaged",
    )
    absent_weight: float = Field(
        1.0, gt=0, le=1, description="weight in the loss of a class that the cell's laboratory never shows"
    )
    start_from: Path | None = Field(
        None,
        description="trained hybrid to continue from, with its CNN beside it; its classes come first",
    )

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
        self, crops: torch.Tensor, features: torch.Tensor, batch: GraphBatch, nodes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, classes) of the graph network and of the CNN alone.

        Args:
            crops: (B, 3, S, S) float32 RGB in 0..1.
            features: (N, 21) float32 of all nodes, columns as ``context.CONTEXT_FEATURES``.
            batch: the graphs of the crops' cells, one each.
            nodes: (B,) int64, the crops' nodes.
        """
        embeddings = self.cnn.backbone(crops)
        pictures = features.new_zeros(len(features), embeddings.shape[1]).index_copy(0, nodes, embeddings)
        logits = self.context(features, pictures, batch.tensors.edges, batch.tensors.edge_features)
        return logits[nodes], self.cnn.head(embeddings)


def train_hybrid(
    recipe: HybridRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train both networks; returns the path of the graph network's weights, with their card beside.

    The CNN's weights are written beside them, with a card that makes them those of a ``cnn``.

    Args:
        recipe: what is trained on what, and how.
        out: folder for checkpoints and weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        resume: continue from the last checkpoint in ``out``.
        report: called with each line of progress.
        command: what makes these weights again, for the cards.

    Raises:
        DataError: no cell is selected.  ConfigError: nothing to resume.  WeightsError: no ImageNet weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells, held = training_cells(recipe)
    report(f"{len(cells)} cells to train on, {len(held)} held back to calibrate")
    graphs = FieldGraphs(cells, builder_of(recipe.graph))
    network = _trained(recipe, graphs, out, device, resume, report)
    path, cnn_path = out / "best.safetensors", out / f"{recipe.cnn}.safetensors"
    save_weights(network.context, path)
    save_weights(network.cnn, cnn_path)
    calibration, alone = _calibrate(network, held, recipe, report)
    common, architecture = crop_entries(recipe), recipe.plugin.architecture
    of_cnn = recipe.model_copy(update={"name": recipe.cnn})
    used = cells + held
    write_classifier_card(of_cnn, cnn_path, command, used, alone, architecture=architecture, **common)
    common |= {"cnn": {"name": recipe.cnn, "sha256": sha256_of(cnn_path)}}
    on_cnn = f"gatv2 on {architecture}"
    write_classifier_card(recipe, path, command, used, calibration, architecture=on_cnn, **common)
    write_graph(lambda: write_crop_graph(recipe.plugin, cnn_path), report)
    write_graph(lambda: write_context_graph(path), report)
    return path


def _trained(
    recipe: HybridRecipe,
    graphs: FieldGraphs,
    out: Path,
    device: str,
    resume: bool,
    report: Callable[[str], None],
) -> JointNetwork:
    """Train the recipe's members one after the other, and average their weights."""
    networks = []
    for seed in range(recipe.seed, recipe.seed + recipe.members):
        member = recipe.model_copy(update={"seed": seed})
        training = start_training(member, graphs, device)
        checkpoint = out / ("state.pt" if recipe.members == 1 else f"state-{seed}.pt")
        # A member that has not begun has nothing to resume.
        if resume and (checkpoint.exists() or seed == recipe.seed):
            training.load(checkpoint)
        fit_hybrid(training, member, graphs, checkpoint, report)
        assert isinstance(training.average, JointNetwork)
        networks.append(training.average)
    return average_weights(networks)


def average_weights(networks: Sequence[JointNetwork]) -> JointNetwork:
    """Return the first network with the mean of all networks' weights and statistics.

    Trainings that start from the same trained weights end near enough to each other for their mean to be as
    good as their joint answer (Wortsman et al. 2022, arXiv:2203.05482).
    """
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    networks[0].load_state_dict(mean)
    return networks[0]


class FieldGraphs:
    """The graphs of annotated cells' fields, each built once.

    Attributes:
        cells: the annotated cells.
        graphs: the graph of each field, by the field's ``id``.
        places: by label, positions of the cells in whose place a cell of that label may be shown.
    """

    def __init__(self, cells: Sequence[AnnotatedCell], builder: GraphBuilder) -> None:
        self.cells = cells
        self.graphs: dict[int, GraphTensors] = {}
        self._members: dict[int, list[int]] = {}
        for number, cell in enumerate(cells):
            key = id(cell.field)
            if key not in self.graphs:
                self.graphs[key] = context_tensors(builder.build(cell.field.cells), cell.field.appearance)
                self._members[key] = []
            self._members[key].append(number)
        self.places = _places(cells)

    def batch(self, numbers: Sequence[int]) -> tuple[GraphBatch, torch.Tensor]:
        """Return the graphs of some cells, one each, side by side, and the (B,) cells' nodes.

        Args:
            numbers: positions of B cells.
        """
        batch = side_by_side([self.graphs[id(self.cells[number].field)] for number in numbers])
        nodes = [start + self.cells[number].node for start, number in zip(batch.starts, numbers, strict=True)]
        return batch, torch.tensor(nodes)

    def transplanted(self, numbers: Sequence[int], hosts: Sequence[int]) -> tuple[GraphBatch, torch.Tensor]:
        """As ``batch`` of the hosts, whose nodes have the colours and the size of the cells ``numbers``."""
        batch, nodes = self.batch(hosts)
        for number, host, node in zip(numbers, hosts, nodes.tolist(), strict=True):
            if number != host:
                own = self.graphs[id(self.cells[number].field)].features[self.cells[number].node]
                batch.tensors.features[node, _OWN_COLUMNS] = own[_OWN_COLUMNS]
        return batch, nodes

    def node_embeddings(
        self, numbers: Sequence[int], batch: GraphBatch, embeddings: npt.NDArray[np.float32]
    ) -> torch.Tensor:
        """Return (nodes, E) of a batch: of annotated cells, from (N, E) of all cells; zeros elsewhere."""
        of_nodes = torch.zeros(len(batch.tensors.features), embeddings.shape[1])
        for number, start in zip(numbers, batch.starts, strict=True):
            for other in self._members[id(self.cells[number].field)]:
                of_nodes[start + self.cells[other].node] = torch.from_numpy(embeddings[other])
        return of_nodes


def _places(cells: Sequence[AnnotatedCell]) -> dict[int, list[int]]:
    """By label, the cells of that label; those of all shared labels where one laboratory alone shows it."""
    labs: dict[int, set[str]] = defaultdict(set)
    for cell in cells:
        labs[cell.label].add(cell.field.source.lab)
    shared = [n for n, cell in enumerate(cells) if len(labs[cell.label]) > 1] or list(range(len(cells)))
    return {
        label: [n for n in shared if cells[n].label == label] if len(found) > 1 else shared
        for label, found in labs.items()
    }


def context_network(recipe: HybridRecipe, graphs: FieldGraphs, embedding: int = EMBEDDING) -> ContextNetwork:
    """Return a graph network with its first weights, which knows the usual values of the features."""
    torch.manual_seed(recipe.seed)
    network = ContextNetwork(len(recipe.classes), embedding=embedding)
    features = torch.cat([graph.features for graph in graphs.graphs.values()])
    network.mean.copy_(features.mean(dim=0))
    network.deviation.copy_(features.std(dim=0, unbiased=False) + 1e-3)
    return network


def start_training(recipe: HybridRecipe, graphs: FieldGraphs, device: str = "cpu") -> Training:
    """Return both networks with their first weights, the CNN's from ImageNet.

    Raises:
        WeightsError: the package that carries those is not installed.
    """
    cnn = build(recipe, np.empty((0, 0), np.float32))
    assert isinstance(cnn, CropNetwork)
    frozen = recipe.plugin.frozen_parts(cnn, recipe.frozen_blocks)
    context = context_network(recipe, graphs, cnn.backbone.width)
    network = JointNetwork(cnn.to(memory_format=torch.channels_last), context)
    if recipe.start_from:
        continue_from(network, recipe.start_from)
    return Training(network.to(device), recipe, classifier_plan(recipe, recipe.workers), frozen)


def continue_from(network: JointNetwork, path: Path) -> None:
    """Take the weights of a trained hybrid and its CNN; outputs of further classes start from their mean.

    Raises:
        WeightsError: a file is missing, or of another architecture.
    """
    card = read_card(path, ClassifierCard)
    cnn, context = CropNetwork(len(card.classes)), ContextNetwork(len(card.classes))
    load_weights(cnn, find_cnn(path, card.cnn))
    load_weights(context, path)
    for part, trained in ((network.cnn, cnn), (network.context, context)):
        own, values = part.state_dict(), trained.state_dict()
        for name, value in values.items():
            if own[name].shape != value.shape:
                further = value.mean(dim=0, keepdim=True).expand(
                    len(own[name]) - len(value), *value.shape[1:]
                )
                # A class that is not learnt yet is a little less likely than those that are.
                values[name] = torch.cat([value, further - (1.0 if value.ndim == 1 else 0.0)])
        part.load_state_dict(values)


def fit_hybrid(
    training: Training,
    recipe: HybridRecipe,
    graphs: FieldGraphs,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Take the steps that are left; see ``loop.fit``."""
    device = next(training.network.parameters()).device
    offsets = torch.from_numpy(absence_offsets(graphs.cells, recipe.classes, recipe.absent_weight))
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    def loss_of(examples: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        crops, numbers, labels = examples
        rng = np.random.default_rng([recipe.seed, training.step])
        torch.manual_seed(int(rng.integers(2**31)))
        drawn = numbers[:, 0].tolist()
        batch, nodes = graphs.transplanted(drawn, foreign_hosts(drawn, graphs, recipe, rng))
        batch = batch.to(device)
        features = varied_features(batch, recipe, rng)
        logits, alone = training.network(to_input(crops, device), features, batch, nodes.to(device))
        both = torch.cat([logits, alone]) + offsets[drawn].to(device).repeat(2, 1)
        loss: torch.Tensor = cross_entropy(both, labels.to(device).repeat(2))
        return loss

    # In place of what else a network is given of a cell, its number.
    supply = ViewDataset(list(graphs.cells), np.arange(len(graphs.cells))[:, None], recipe)
    fit(training, supply, loss_of, checkpoint, report)


def foreign_hosts(
    drawn: Sequence[int], graphs: FieldGraphs, recipe: HybridRecipe, rng: np.random.Generator
) -> list[int]:
    """Draw the cells in whose places the ``drawn`` ones stand in the graph, most in their own.

    A cell takes the place of one of its class, or of any class where a single laboratory shows its own: the
    field around it then tells nothing of that laboratory.
    """
    if not recipe.foreign_context:
        return list(drawn)
    hosts = []
    for number in drawn:
        if rng.random() < recipe.foreign_context:
            places = graphs.places[graphs.cells[number].label]
            hosts.append(places[rng.integers(len(places))])
        else:
            hosts.append(number)
    return hosts


def varied_features(batch: GraphBatch, recipe: HybridRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Return features (nodes, 21) with one factor per field on its optical densities, one on its lengths."""
    fields = len(batch.starts)
    stain = np.exp(rng.normal(0, recipe.stain, (fields, 3)))
    factors = np.ones((fields, len(CONTEXT_FEATURES)), np.float32)
    factors[:, _COLOURS] = np.tile(stain, len(_COLOURS) // 3)
    factors[:, _LENGTHS] = np.exp(rng.normal(0, recipe.size, (fields, 1)))
    features = batch.tensors.features
    return features * torch.from_numpy(factors)[batch.owners].to(features.device)


def _calibrate(
    network: JointNetwork,
    held: list[AnnotatedCell],
    recipe: HybridRecipe,
    report: Callable[[str], None],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Temperature and review threshold of the hybrid and of the CNN alone."""
    if not held:
        return UNCALIBRATED, UNCALIBRATED
    labels = np.array([cell.label for cell in held])
    embeddings = embeddings_of(network.cnn, held, recipe)
    graphs = FieldGraphs(held, builder_of(recipe.graph))
    logits = context_logits(network.context, graphs, embeddings)
    calibration = calibration_of(logits, labels, recipe.target_accuracy, report)
    report("the CNN alone:")
    alone = calibration_of(head_logits(network.cnn, embeddings), labels, recipe.target_accuracy, report)
    return calibration, alone


@torch.inference_mode()
def embeddings_of(
    cnn: CropNetwork, cells: Sequence[AnnotatedCell], recipe: ClassifierRecipe
) -> npt.NDArray[np.float32]:
    """Embeddings (N, E) of the cells as the classifier sees them."""
    crops = plain_views(list(cells), recipe.crop_px, recipe.cover, recipe.nucleus, recipe.unit)
    found = [mean_embeddings(cnn, part, DEFAULT_VIEWS).cpu() for part in torch.split(crops, 64)]
    return np.asarray(torch.cat(found).numpy())


@torch.inference_mode()
def head_logits(cnn: CropNetwork, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (N, C) of the CNN alone."""
    device = next(cnn.parameters()).device
    return np.asarray(cnn.head(torch.from_numpy(embeddings).to(device)).cpu().numpy())


@torch.inference_mode()
def context_logits(
    network: nn.Module, graphs: FieldGraphs, embeddings: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return logits (N, C) of the annotated cells with their embeddings (N, E)."""
    device, count = next(network.parameters()).device, len(graphs.cells)
    found = []
    for first in range(0, count, 64):
        numbers = range(first, min(first + 64, count))
        batch, nodes = graphs.batch(numbers)
        of_nodes = graphs.node_embeddings(numbers, batch, embeddings).to(device)
        features, edges, edge_features = batch.to(device).tensors
        found.append(network(features, of_nodes, edges, edge_features)[nodes].cpu())
    return np.asarray(torch.cat(found).numpy())
