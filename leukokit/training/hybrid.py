"""Training the classifier ``hybrid``: a graph network over the cells, on the embeddings of a trained CNN.

In two steps. The CNN is trained first, by its own recipe, and then left as it is, so that whatever the
hybrid does better than it is owed to the graph network. Of every training cell the CNN sees several varied
views; the graph network learns from a random one each time. Colours of all cells of a field are varied
together and sizes too: only what is compared with the other cells of the field is then left to go by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from leukokit import weights
from leukokit.classifiers.backbone import EMBEDDING
from leukokit.classifiers.context import CONTEXT_FEATURES, context_data
from leukokit.classifiers.hybrid import embedded
from leukokit.classifiers.loaded import DEFAULT_VIEWS, to_input
from leukokit.classifiers.networks import ContextNetwork, CropNetwork
from leukokit.config import PluginChoice
from leukokit.errors import ConfigError
from leukokit.graph_builders.base import GraphBuilder
from leukokit.pyg import Batch, Data
from leukokit.training.classifier import Progress
from leukokit.training.crops import Variation, varied_view
from leukokit.training.labelled import (
    LabelledCell,
    LabelledCellsRecipe,
    builder_of,
    calibration_of,
    plain_views,
    rarity,
    training_cells,
    write_card,
)
from leukokit.training.state import TrainingState
from leukokit.weights import ClassifierCard
from leukokit.weights.files import load_weights, save_weights

_COLOURS = [number for number, name in enumerate(CONTEXT_FEATURES) if name[-2:] in ("_r", "_g", "_b")]
_LENGTHS = [CONTEXT_FEATURES.index(name) for name in ("diameter", "mean_edge_length")]


class HybridRecipe(LabelledCellsRecipe):
    """What ``leukokit train classifier --config`` reads for ``hybrid``."""

    classifier: Literal["hybrid"]
    cnn: Path = Field(description="weights of the CNN: a file, or the name of shipped ones")
    graph: PluginChoice = Field(default_factory=lambda: PluginChoice(name="knn"))
    views: int = Field(4, ge=1, description="varied views of every training cell that the CNN sees")
    stain: float = Field(0.15, ge=0, description="spread of the factor on a field's optical densities")
    size: float = Field(0.04, ge=0, description="spread of the factor on a field's lengths")


def train_hybrid(
    recipe: HybridRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train, writing checkpoints to ``out``; returns the path of the weights, with their card beside.

    Raises:
        DataError: no cell is selected.  WeightsError: no such CNN.
        ConfigError: nothing to resume, or a CNN of other classes.
    """
    out.mkdir(parents=True, exist_ok=True)
    cnn = TrainedCnn(recipe, device)
    cells, held = training_cells(recipe)
    report(f"{len(cells)} cells to train on, {len(held)} held back to calibrate")
    scenes = Scenes(cells, builder_of(recipe.graph))
    state = start(recipe, scenes, device)
    kept = out / "embeddings.npy"
    if resume:
        state.load(out / "state.pt")
        embeddings = np.load(kept, allow_pickle=False)
    else:
        report(f"the CNN looks at {recipe.views} views of each")
        embeddings = cnn.varied(cells, recipe)
        np.save(out / "embeddings.part.npy", embeddings)
        (out / "embeddings.part.npy").replace(kept)
        state.save(out / "state.pt")
    fit(state, recipe, scenes, embeddings, out / "state.pt", report)
    path = out / "best.safetensors"
    save_weights(state.average, path)
    calibration = (1.0, 0.0)
    if held:
        logits = context_logits(state.average, Scenes(held, builder_of(recipe.graph)), cnn.plain(held))
        calibration = calibration_of(logits, np.array([c.label for c in held]), recipe.sure, report)
    write_card(
        recipe,
        path,
        command,
        cells + held,
        calibration,
        architecture="gatv2 on efficientnet-lite0",
        crop_px=cnn.card.crop_px,
        cover=cnn.card.cover,
        nucleus=cnn.card.nucleus,
        graph={"name": recipe.graph.name, **recipe.graph.params},
        cnn={"name": cnn.card.name, "sha256": cnn.card.sha256},
    )
    return path


class TrainedCnn:
    """The CNN of a recipe, and what it sees of labelled cells."""

    def __init__(self, recipe: HybridRecipe, device: str) -> None:
        path = weights.find(recipe.cnn)
        self.card = weights.read_card(path, ClassifierCard)
        if self.card.classes != recipe.classes:
            raise ConfigError(
                f"{path}: a CNN of the classes {', '.join(self.card.classes)}, not the recipe's"
            )
        self.network = CropNetwork(len(self.card.classes))
        load_weights(self.network, path)
        self.network.to(device).to(memory_format=torch.channels_last).eval()
        self.device = device

    @torch.inference_mode()
    def varied(self, cells: Sequence[LabelledCell], recipe: HybridRecipe) -> npt.NDArray[np.float32]:
        """Embeddings (V, N, 320) of varied views of the cells."""
        card, out = self.card, np.empty((recipe.views, len(cells), EMBEDDING), np.float32)
        for view in range(recipe.views):
            for first in range(0, len(cells), 64):
                pictures = [
                    varied_view(
                        np.asarray(cell.crop),
                        card.crop_px,
                        card.cover,
                        cell.stain if card.nucleus else None,
                        Variation(recipe.coarse),
                        np.random.default_rng([recipe.seed, view, first + number]),
                    )
                    for number, cell in enumerate(cells[first : first + 64])
                ]
                crops = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
                found = self.network.backbone(to_input(crops, self.device))
                out[view, first : first + len(pictures)] = found.cpu().numpy()
        return out

    @torch.inference_mode()
    def plain(self, cells: list[LabelledCell]) -> npt.NDArray[np.float32]:
        """Embeddings (N, 320) of the cells as the classifier sees them."""
        crops = plain_views(cells, self.card.crop_px, self.card.cover, self.card.nucleus)
        found = [embedded(self.network, part, DEFAULT_VIEWS).cpu() for part in torch.split(crops, 64)]
        return np.asarray(torch.cat(found).numpy())


class Scenes:
    """The graphs of labelled cells' fields, each built once."""

    def __init__(self, cells: Sequence[LabelledCell], builder: GraphBuilder) -> None:
        self.cells = cells
        self.data: dict[int, Data] = {}
        self.inside: dict[int, list[int]] = {}
        for number, cell in enumerate(cells):
            key = id(cell.field)
            if key not in self.data:
                self.data[key] = context_data(builder.build(cell.field.cells), cell.field.appearance)
                self.inside[key] = []
            self.inside[key].append(number)

    def batch(
        self, numbers: Sequence[int], embeddings: npt.NDArray[np.float32]
    ) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        """The graphs of some cells, one each, side by side.

        Args:
            numbers: positions of B cells.
            embeddings: (N, 320) float32 of all cells.

        Returns:
            The batch; (nodes, 320) embeddings, of every labelled cell in it; (B,) the cells' nodes.
        """
        keys = [id(self.cells[number].field) for number in numbers]
        batch = Batch.from_data_list([self.data[key] for key in keys])
        pictures = torch.zeros(batch.num_nodes, embeddings.shape[1])
        starts = batch.ptr[:-1].tolist()
        for key, start in zip(keys, starts, strict=True):
            for other in self.inside[key]:
                pictures[start + self.cells[other].node] = torch.from_numpy(embeddings[other])
        nodes = [start + self.cells[number].node for start, number in zip(starts, numbers, strict=True)]
        return batch, pictures, torch.tensor(nodes)


def start(recipe: HybridRecipe, scenes: Scenes, device: str = "cpu") -> TrainingState:
    """A graph network with its first weights, which knows the usual values of the features."""
    torch.manual_seed(recipe.seed)
    network = ContextNetwork(len(recipe.classes))
    features = torch.cat([data.x for data in scenes.data.values()])
    network.mean.copy_(features.mean(dim=0))
    network.deviation.copy_(features.std(dim=0, unbiased=False) + 1e-3)
    return TrainingState(network.to(device), recipe)


def fit(
    state: TrainingState,
    recipe: HybridRecipe,
    scenes: Scenes,
    embeddings: npt.NDArray[np.float32],
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Take the steps that are left; ``embeddings`` are (V, N, 320) float32 of the N cells."""
    device, cells = next(state.network.parameters()).device, scenes.cells
    chances = rarity(cells, recipe.balance)
    labels = torch.tensor([cell.label for cell in cells])
    progress = Progress(state, report)
    while state.step < recipe.steps:
        rng = np.random.default_rng([recipe.seed, state.step])
        torch.manual_seed(int(rng.integers(2**31)))
        drawn = rng.choice(len(cells), recipe.batch, p=chances)
        batch, pictures, nodes = scenes.batch(drawn.tolist(), embeddings[rng.integers(len(embeddings))])
        batch, pictures = batch.to(device), pictures.to(device)
        features = varied_features(batch, recipe, rng)
        logits = state.network(features, pictures, batch.edge_index, batch.edge_attr)
        progress.note(state.advance(logits[nodes], labels[drawn].to(device)))
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
def context_logits(
    network: torch.nn.Module, scenes: Scenes, embeddings: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Logits (N, C) of the labelled cells with their embeddings (N, 320)."""
    device, count = next(network.parameters()).device, len(scenes.cells)
    answers = []
    for first in range(0, count, 64):
        numbers = range(first, min(first + 64, count))
        batch, pictures, nodes = scenes.batch(numbers, embeddings)
        batch = batch.to(device)
        logits = network(batch.x, pictures.to(device), batch.edge_index, batch.edge_attr)
        answers.append(logits[nodes].cpu())
    return np.asarray(torch.cat(answers).numpy())
