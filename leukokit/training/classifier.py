"""Training the classifiers that use crops: ``cnn``, ``altarawneh``, and those of other packages.

Laboratories and classes are drawn by their rarity, views are varied beyond what one laboratory shows, and
what is kept is the running average of the weights: three things that decide how a classifier does on a
unseen laboratory. Photographs held back from training set the temperature of the
probabilities (Guo et al. 2017, arXiv:1706.04599) and the review threshold below which a cell is
left unclassified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field, field_validator, model_validator
from torch import nn
from torch.utils.data import Dataset

from leukokit.classifiers.networks.context import context_features, descriptors
from leukokit.classifiers.networks.modules import to_input, turned_tensor, write_crop_graph
from leukokit.classifiers.neural import DEFAULT_VIEWS, CropClassifier
from leukokit.config import PluginChoice
from leukokit.crops.cut import REACH, CropUnit
from leukokit.errors import ConfigError
from leukokit.registry import classifiers
from leukokit.taxonomy import UNKNOWN
from leukokit.training.calibration import UNCALIBRATED, calibration_of
from leukokit.training.cards import write_classifier_card, write_graph
from leukokit.training.cells import (
    AnnotatedCell,
    AnnotatedCellsRecipe,
    builder_of,
    plain_views,
    rarity,
    training_cells,
)
from leukokit.training.loop import Plan, Training, fit, warm_up_and_cosine
from leukokit.training.outliers import made_outlier
from leukokit.training.stain_transfer import StainTransfer
from leukokit.training.views import Variation, varied_view
from leukokit.weights.files import save_weights

CLASSIFIER_WARM_UP: Final = 40
"""Steps over which the learning rate rises."""


class NamedClassifier(BaseModel):
    """The one key of a recipe that decides what the others may be."""

    classifier: str = Field(description="a classifier plugin that uses crops, or 'hybrid'")

    @field_validator("classifier")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in classifiers.names():
            raise ValueError(f"no classifier is called '{name}'; there are: {', '.join(classifiers.names())}")
        return name


class ClassifierRecipe(AnnotatedCellsRecipe):
    """What ``leukokit train classifier --config`` reads for every classifier but ``hybrid``."""

    classifier: str = Field(description="a classifier plugin that uses crops")
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
    hue: float = Field(0.0, ge=0, description="spread of the rotation of the stain's hue, radians")
    edge: float = Field(
        0.0, ge=0, le=1, description="share of the crops that are cut off as at a field's edge"
    )
    stain_transfer: float = Field(
        0.0, ge=0, le=1, description="share of the crops shown in another laboratory's stain"
    )
    made_outliers: float = Field(
        0.0, ge=0, le=1, description="share of the crops made into outliers, of the class 'unknown'"
    )
    workers: int = Field(2, ge=0, description="processes that cut views")

    @model_validator(mode="after")
    def _unknown_is_learnt_from_outliers(self) -> Self:
        if bool(self.made_outliers) != (UNKNOWN in self.classes):
            raise ValueError(f"'made_outliers' and the class '{UNKNOWN}' go together: give both or neither")
        return self

    @property
    def plugin(self) -> type[CropClassifier]:
        """The classifier that is trained.

        Raises:
            PluginError: there is none of that name.  ConfigError: it does not use crops.
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
        self.transfer = StainTransfer(cells) if recipe.stain_transfer else None
        self.by_lab: dict[str, list[int]] = defaultdict(list)
        for number, cell in enumerate(cells):
            self.by_lab[cell.field.source.lab].append(number)

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
        crop, label, lab = np.asarray(cell.crop), cell.label, cell.field.source.lab
        if recipe.made_outliers and rng.random() < recipe.made_outliers:
            companions = self.by_lab[lab]
            other = self.cells[companions[rng.integers(len(companions))]]
            crop, label = made_outlier(crop, np.asarray(other.crop), rng), recipe.classes.index(UNKNOWN)
        stain = cell.stain if recipe.nucleus else None
        if self.transfer and rng.random() < recipe.stain_transfer:
            stain = self.transfer.matrix(lab, cell.label, rng)
        view = varied_view(
            crop,
            recipe.crop_px,
            cell.cover(recipe.cover, recipe.unit),
            stain,
            Variation(recipe.low_resolution, recipe.hue, recipe.edge),
            rng,
        )
        return torch.from_numpy(view).permute(2, 0, 1), torch.from_numpy(self.vectors[number]), label


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
    plugin.initialize(network, vectors)
    return network


def classifier_plan(recipe: AnnotatedCellsRecipe, workers: int = 0) -> Plan:
    """Return how a recipe's network is optimised."""
    return Plan(
        steps=recipe.steps,
        batch=recipe.batch,
        check_every=recipe.check_every,
        learning_rate=recipe.learning_rate,
        schedule=warm_up_and_cosine(recipe.steps, CLASSIFIER_WARM_UP, floor=0.02),
        weight_decay=recipe.weight_decay,
        max_norm=5.0,
        # The first steps, from a random head, are forgotten soon.
        average=lambda step: min(recipe.average, step / (step + 9)),
        workers=workers,
    )


def train_classifier(
    recipe: ClassifierRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train a classifier on crops; returns the path of the weights, with their card beside.

    Args:
        recipe: what is trained on what, and how.
        out: folder for checkpoints and weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        resume: continue from the last checkpoint in ``out``.
        report: called with each line of progress.
        command: what makes these weights again, for the card.

    Raises:
        DataError: no cell is selected.  ConfigError: nothing to resume.  WeightsError: no ImageNet weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells, held = training_cells(recipe)
    report(f"{len(cells)} cells to train on, {len(held)} held back to calibrate")
    vectors = cell_descriptors(cells, recipe.graph)
    network = build(recipe, vectors).to(device).to(memory_format=torch.channels_last)
    frozen = recipe.plugin.frozen_parts(network, recipe.frozen_blocks)
    training = Training(network, recipe, classifier_plan(recipe, recipe.workers), frozen)
    if resume:
        training.load(out / "state.pt")
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        crops, descriptors, labels = batch
        logits = network(to_input(crops, device), descriptors.to(device))
        loss: torch.Tensor = cross_entropy(logits, labels.to(device))
        return loss

    fit(training, ViewDataset(cells, vectors, recipe), loss_of, out / "state.pt", report)
    path = out / "best.safetensors"
    save_weights(training.average, path)
    calibration = UNCALIBRATED
    if held:
        logits = plain_logits(training.average, held, recipe, device)
        labels = np.array([cell.label for cell in held])
        calibration = calibration_of(logits, labels, recipe.target_accuracy, report)
    architecture = recipe.plugin.architecture
    write_classifier_card(
        recipe, path, command, cells + held, calibration, architecture=architecture, **crop_entries(recipe)
    )
    write_graph(lambda: write_crop_graph(recipe.plugin, path), report)
    return path


def crop_entries(recipe: ClassifierRecipe) -> dict[str, Any]:
    """Return what a card says of the crops and graphs that a network was trained on."""
    return {
        "crop_px": recipe.crop_px,
        "cover": recipe.cover,
        "unit": recipe.unit,
        "nucleus": recipe.nucleus,
        "graph": {"name": recipe.graph.name, **recipe.graph.params},
    }


@torch.inference_mode()
def plain_logits(
    network: nn.Module, cells: list[AnnotatedCell], recipe: ClassifierRecipe, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Logits (N, C) of the kept crops, the mean over the views that a classifier uses by default."""
    crops = plain_views(cells, recipe.crop_px, recipe.cover, recipe.nucleus, recipe.unit)
    vectors = torch.from_numpy(cell_descriptors(cells, recipe.graph))
    logits_of_parts = []
    for crop, vector in zip(torch.split(crops, 64), torch.split(vectors, 64), strict=True):
        pictures, beside = to_input(crop, device), vector.to(device)
        views = [network(turned_tensor(pictures, view), beside) for view in range(DEFAULT_VIEWS)]
        logits_of_parts.append(torch.stack(views).mean(dim=0).cpu())
    return np.asarray(torch.cat(logits_of_parts).numpy())
