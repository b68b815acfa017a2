"""Training the classifiers that look at crops: ``cnn``, ``altarawneh``, and those of other packages.

Laboratories and classes are drawn by their rarity, views are varied beyond what one laboratory shows, and
what is kept is the running average of the weights: three things that decide how a classifier does on a
laboratory that it never saw. Photographs held back from training set the temperature of the
probabilities (Guo et al. 2017, arXiv:1706.04599) and the review threshold below which a cell is
left unclassified.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from leukokit.classifiers.networks.context import context_features, descriptors
from leukokit.classifiers.neural import DEFAULT_VIEWS, CropClassifier, to_input, turned
from leukokit.config import PluginChoice
from leukokit.crops.cut import REACH, CropUnit
from leukokit.errors import ConfigError
from leukokit.registry import classifiers
from leukokit.training.calibration import UNCALIBRATED, calibration_of
from leukokit.training.cards import write_card
from leukokit.training.cells import (
    AnnotatedCell,
    AnnotatedCellsRecipe,
    builder_of,
    plain_views,
    rarity,
    training_cells,
)
from leukokit.training.loop import TrainingState
from leukokit.training.views import Variation, varied_view
from leukokit.weights.files import save_weights


class ClassifierRecipe(AnnotatedCellsRecipe):
    """What ``leukokit train classifier --config`` reads for every classifier but ``hybrid``."""

    classifier: str = Field(description="a classifier plugin that looks at crops")
    graph: PluginChoice = Field(default_factory=lambda: PluginChoice(name="knn"))
    crop_px: int = Field(80, ge=32, le=512, description="side of a crop; 64 for altarawneh")
    cover: float = Field(1.3, ge=0.5, le=REACH, description="side of a crop in units")
    unit: CropUnit = Field(
        "box", description="the longer side of the cell's box, or 'erythrocyte': see crops.crop_sides"
    )
    nucleus: bool = Field(False, description="bring nuclei to one stain")
    frozen_blocks: int = Field(
        3, ge=0, description="first blocks of the backbone that keep their ImageNet weights"
    )
    hue: float = Field(0.0, ge=0, description="spread of the turn of the stain about grey, radians")
    edge: float = Field(0.0, ge=0, le=1, description="share of the crops cut off as by a picture's edge")
    workers: int = Field(2, ge=0, description="processes that cut views")

    @property
    def plugin(self) -> type[CropClassifier]:
        """The classifier that is trained.

        Raises:
            PluginError: there is none of that name.  ConfigError: it is none that looks at crops.
        """
        plugin = classifiers.get(self.classifier)
        if not issubclass(plugin, CropClassifier):
            raise ConfigError(
                f"classifier '{self.classifier}' is no leukokit.classifiers.neural.CropClassifier: "
                "this command cannot train it"
            )
        return plugin


def cell_descriptors(cells: list[AnnotatedCell], graph: PluginChoice) -> npt.NDArray[np.float32]:
    """(N, 64) float32: the context descriptor of every cell, on graphs of the given builder."""
    builder, found = builder_of(graph), {}
    for field in {id(cell.field): cell.field for cell in cells}.values():
        built = builder.build(field.cells)
        found[id(field)] = descriptors(built, context_features(built, field.appearance))
    return np.stack([found[id(cell.field)][cell.node] for cell in cells])


class ViewDataset(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """A seeded supply of views with their cells' vectors: item ``i`` depends on the seed and ``i`` alone."""

    def __init__(
        self,
        cells: list[AnnotatedCell],
        vectors: npt.NDArray[Any],
        recipe: ClassifierRecipe,
    ):
        self.cells, self.vectors, self.recipe = cells, vectors, recipe
        self.cumulative = np.cumsum(rarity(cells, recipe.balance))

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def drawn(self, index: int) -> int:
        """The number of the cell that item ``index`` shows."""
        rng = np.random.default_rng([self.recipe.seed, index, 0])
        return min(int(np.searchsorted(self.cumulative, rng.random())), len(self.cells) - 1)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        recipe, number = self.recipe, self.drawn(index)
        cell = self.cells[number]
        rng = np.random.default_rng([recipe.seed, index, 1])
        view = varied_view(
            np.asarray(cell.crop),
            recipe.crop_px,
            cell.cover(recipe.cover, recipe.unit),
            cell.stain if recipe.nucleus else None,
            Variation(recipe.low_resolution, recipe.hue, recipe.edge),
            rng,
        )
        return torch.from_numpy(view).permute(2, 0, 1), torch.from_numpy(self.vectors[number]), cell.label


def build(recipe: ClassifierRecipe, vectors: npt.NDArray[np.float32]) -> nn.Module:
    """The recipe's network with its first weights, which the recipe's seed and nothing else decides.

    Args:
        recipe: the network's kind and size.
        vectors: (N, 64) float32, descriptors of the training cells.

    Raises:
        ConfigError: a crop size that the network does not take.  WeightsError: no ImageNet weights.
    """
    plugin = recipe.plugin
    if plugin.required_crop_px not in (None, recipe.crop_px):
        raise ConfigError(
            f"crop_px: {recipe.crop_px}: the network of '{plugin.name}' takes {plugin.required_crop_px}"
        )
    torch.manual_seed(recipe.seed)
    network = plugin.new_network(len(recipe.classes))
    plugin.begin(network, vectors)
    return network


def train_classifier(
    recipe: ClassifierRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train, writing checkpoints to ``out``; returns the path of the weights, with their card beside.

    A run that was stopped goes on from its last checkpoint with ``resume``. ``command`` is recorded in
    the card as what makes these weights again.

    Raises:
        DataError: no cell is selected.  ConfigError: nothing to resume.  WeightsError: no ImageNet weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells, held = training_cells(recipe)
    report(f"{len(cells)} cells to train on, {len(held)} held back to calibrate")
    vectors = cell_descriptors(cells, recipe.graph)
    network = build(recipe, vectors).to(device).to(memory_format=torch.channels_last)
    state = TrainingState(network, recipe, recipe.plugin.frozen_parts(network, recipe.frozen_blocks))
    if resume:
        state.load(out / "state.pt")
    supply = ViewDataset(cells, vectors, recipe)
    views = Subset(supply, range(state.step * recipe.batch, len(supply)))
    progress = Progress(state, report)
    for crops, descriptor, labels in DataLoader(views, recipe.batch, num_workers=recipe.workers):
        logits = network(to_input(crops, device), descriptor.to(device))
        progress.note(state.advance(logits, labels.to(device)))
        if state.step % recipe.check_every == 0:
            state.save(out / "state.pt")
    path = out / "best.safetensors"
    save_weights(state.average, path)
    calibration = UNCALIBRATED
    if held:
        logits = plain_logits(state.average, held, recipe, device)
        calibration = calibration_of(
            logits, np.array([c.label for c in held]), recipe.target_accuracy, report
        )
    write_card(
        recipe,
        path,
        command,
        cells + held,
        calibration,
        architecture=recipe.plugin.architecture,
        crop_px=recipe.crop_px,
        cover=recipe.cover,
        unit=recipe.unit,
        nucleus=recipe.nucleus,
        graph={"name": recipe.graph.name, **recipe.graph.params},
    )
    return path


class Progress:
    """Says every 50 steps how a training goes."""

    def __init__(self, state: TrainingState, report: Callable[[str], None]) -> None:
        self.state, self.report = state, report
        self.first, self.started, self.running = state.step, time.monotonic(), 0.0

    def note(self, loss: float) -> None:
        """Take up the loss of the step just made."""
        step, steps = self.state.step, self.state.recipe.steps
        self.running += (loss - self.running) / min(step - self.first, 50)
        if step % 50 == 0:
            pace = (time.monotonic() - self.started) / (step - self.first)
            left = pace * (steps - step) / 60
            self.report(f"step {step}/{steps}  loss {self.running:.3f}  {pace:.2f} s each, {left:.0f} min")


@torch.inference_mode()
def plain_logits(
    network: nn.Module, cells: list[AnnotatedCell], recipe: ClassifierRecipe, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Logits (N, C) of the kept crops, the mean over the views that a classifier looks at by default."""
    crops = plain_views(cells, recipe.crop_px, recipe.cover, recipe.nucleus, recipe.unit)
    vectors = torch.from_numpy(cell_descriptors(cells, recipe.graph))
    answers = []
    for crop, vector in zip(torch.split(crops, 64), torch.split(vectors, 64), strict=True):
        pictures, beside = to_input(crop, device), vector.to(device)
        views = [network(turned(pictures, view), beside) for view in range(DEFAULT_VIEWS)]
        answers.append(torch.stack(views).mean(dim=0).cpu())
    return np.asarray(torch.cat(answers).numpy())
