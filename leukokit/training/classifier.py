"""Training the classifiers that look at crops: ``cnn`` and ``altarawneh``.

Laboratories and classes are drawn by their rarity, views are varied beyond what one laboratory shows, and
what is kept is the running average of the weights: three things that decide how a classifier does on a
laboratory that it never saw. Photographs held back from training set the temperature of the
probabilities (Guo et al. 2017, arXiv:1706.04599) and the limit below which a cell is left unclassified.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from leukokit.classifiers.context import context_features, descriptors
from leukokit.classifiers.loaded import to_input
from leukokit.classifiers.networks import ALTARAWNEH_PX, AltarawnehNetwork, CropNetwork
from leukokit.config import PluginChoice
from leukokit.data.catalogue import licence_of
from leukokit.errors import ConfigError, DataError
from leukokit.evaluation.calibration import choose_limit, fit_temperature
from leukokit.registry import graph_builders
from leukokit.stain import mix_stain, nucleus_map
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE_CLASSES
from leukokit.training.cells import CROP_PX, REACH, SeenField, load_seen
from leukokit.training.crops import Variation, plain_view, varied_view
from leukokit.training.fields import Selection, is_held_back
from leukokit.weights import ClassifierCard, sha256_of
from leukokit.weights.files import save_weights


class LabelledCellsRecipe(BaseModel):
    """Which labelled cells a classifier is trained on, and how its answers are calibrated."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(description="name of the weights, and of their folder under the output folder")
    cells: list[Path] = Field(description="folders of 'leukokit data cells'")
    train: list[Selection] = Field(description="cells to train on")
    leave_out: list[str] = Field([], description="laboratories of which nothing is trained on")
    classes: list[str] = Field(list(LEUKOCYTE_CLASSES), description="classes, in the order of the outputs")
    held_back: float = Field(0.08, description="share of the photographs kept for calibration")
    sure: float = Field(0.98, description="accuracy on them that the limit of 'unclassified' is to give")
    seed: int = 0


class ClassifierRecipe(LabelledCellsRecipe):
    """What ``leukokit train classifier --config`` reads for ``cnn`` and ``altarawneh``."""

    classifier: Literal["cnn", "altarawneh"]
    graph: PluginChoice = Field(default_factory=lambda: PluginChoice(name="knn"))
    crop_px: int = Field(80, description="side of a crop; 64 for altarawneh")
    cover: float = Field(1.3, le=REACH, description="side of a crop in longer sides of the cell's box")
    nucleus: bool = Field(False, description="bring nuclei to one stain")
    frozen_blocks: int = Field(3, description="first blocks of the backbone that keep their ImageNet weights")
    steps: int = Field(1000, description="optimiser steps")
    batch: int = Field(32, description="crops a step")
    learning_rate: float = Field(1e-3, description="peak, after a warm-up of 40 steps; cosine to 2% of it")
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    balance: float = Field(0.5, description="power of the rarity of class and laboratory in the sampling")
    average: float = Field(0.99, description="decay of the running average of the weights")
    coarse: float = Field(0.3, description="share of the crops that lose resolution")
    hue: float = Field(0.0, description="spread of the turn of the stain about grey, radians")
    check_every: int = Field(200, description="steps between checkpoints")
    workers: int = Field(2, description="processes that cut views")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCell:
    """A labelled leukocyte: its kept crop, its field, and its number among the field's cells."""

    field: SeenField
    node: int
    label: int
    crop: npt.NDArray[np.uint8]

    @property
    def stain(self) -> npt.NDArray[np.float32]:
        """``nucleus_map`` of the cell, (3, 3) float32."""
        return nucleus_map(np.asarray(self.crop), CROP_PX / REACH, erythrocyte_density(self.field))


def erythrocyte_density(field: SeenField) -> npt.NDArray[np.float32] | None:
    """(3,) median optical density of the field's erythrocytes; None with fewer than three."""
    found = field.appearance[field.cells.kinds == ERYTHROCYTE, :3]
    return np.median(found, axis=0) if len(found) >= 3 else None


def labelled_cells(
    folders: Iterable[Path], classes: list[str], accepts: Callable[[SeenField], bool]
) -> list[LabelledCell]:
    """Labelled cells of the fields that are wanted; a label that is none of the classes is -1."""
    cells = []
    for folder in folders:
        seen = load_seen(folder)
        for field in filter(accepts, seen.fields):
            for place, node in enumerate(field.labelled):
                name = field.labels[node]
                label = classes.index(name) if name in classes else -1
                cells.append(LabelledCell(field, int(node), label, seen.crops[field.first_crop + place]))
    return cells


def training_cells(recipe: LabelledCellsRecipe) -> tuple[list[LabelledCell], list[LabelledCell]]:
    """The recipe's cells to train on, and those of photographs held back for calibration.

    Raises:
        DataError: none is selected.
    """

    def accepts(field: SeenField) -> bool:
        source = field.source
        return source.lab not in recipe.leave_out and any(s.accepts(source) for s in recipe.train)

    cells = [cell for cell in labelled_cells(recipe.cells, recipe.classes, accepts) if cell.label >= 0]
    if not cells:
        raise DataError(f"recipe '{recipe.name}': its 'train' selects no labelled leukocyte")
    held = [is_held_back(cell.field.source.photo, recipe.held_back) for cell in cells]
    return (
        [cell for cell, back in zip(cells, held, strict=True) if not back],
        [cell for cell, back in zip(cells, held, strict=True) if back],
    )


def rarity(cells: list[LabelledCell], power: float) -> npt.NDArray[np.float64]:
    """(N,) chances of being drawn: cells of a laboratory and class by their number to ``-power``."""
    groups = [(cell.field.source.lab, cell.label) for cell in cells]
    counts = Counter(groups)
    weights = np.array([counts[group] ** -power for group in groups])
    return np.asarray(weights / weights.sum())


def cell_descriptors(cells: list[LabelledCell], graph: PluginChoice) -> npt.NDArray[np.float32]:
    """(N, 64) float32: the context descriptor of every cell, on graphs of the given builder."""
    plugin = graph_builders.get(graph.name)
    builder = plugin(plugin.parse(graph.params))
    found = {}
    for field in {id(cell.field): cell.field for cell in cells}.values():
        built = builder.build(field.cells)
        found[id(field)] = descriptors(built, context_features(built, field.appearance))
    return np.stack([found[id(cell.field)][cell.node] for cell in cells])


class ViewDataset(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """An endless, seeded supply of views: item ``i`` depends on the seed and ``i`` alone."""

    def __init__(
        self,
        cells: list[LabelledCell],
        vectors: npt.NDArray[np.float32],
        recipe: ClassifierRecipe,
    ):
        self.cells, self.vectors, self.recipe = cells, vectors, recipe
        self.cumulative = np.cumsum(rarity(cells, recipe.balance))

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, index])
        number = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.cells) - 1)
        cell = self.cells[number]
        view = varied_view(
            np.asarray(cell.crop),
            recipe.crop_px,
            recipe.cover,
            cell.stain if recipe.nucleus else None,
            Variation(recipe.coarse, recipe.hue),
            rng,
        )
        return torch.from_numpy(view).permute(2, 0, 1), torch.from_numpy(self.vectors[number]), cell.label


def plain_views(cells: list[LabelledCell], px: int, cover: float, nucleus: bool) -> torch.Tensor:
    """(N, 3, px, px) uint8: the cells as a classifier sees them."""
    views = []
    for cell in cells:
        view = plain_view(np.asarray(cell.crop), px, cover)
        views.append(mix_stain(view, cell.stain) if nucleus else view)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


class TrainingState:
    """Network, its running average and the optimiser: all that a run needs to go on after a stop."""

    _PARTS = ("network", "average", "optimizer")

    def __init__(self, recipe: ClassifierRecipe, device: str) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        torch.manual_seed(recipe.seed)
        self.network = build(recipe)
        self.average = build(recipe)
        if isinstance(self.network, CropNetwork):
            self.network.backbone.load_imagenet()
        self.average.load_state_dict(self.network.state_dict())
        self.average.eval()
        for network in (self.network, self.average):
            network.to(self.device).to(memory_format=torch.channels_last)
        self.frozen = frozen_parts(self.network, recipe.frozen_blocks)
        for part in self.frozen:
            part.requires_grad_(False)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.step = 0

    def set_scale(self, vectors: npt.NDArray[np.float32]) -> None:
        """Let a network that takes descriptors know their usual values."""
        for network in (self.network, self.average):
            if isinstance(network, AltarawnehNetwork):
                network.mean.copy_(torch.from_numpy(vectors.mean(axis=0)))
                network.deviation.copy_(torch.from_numpy(vectors.std(axis=0) + 1e-3))

    def advance(self, crops: torch.Tensor, vectors: torch.Tensor, labels: torch.Tensor) -> float:
        """One optimiser step; returns the loss a crop."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * _rate(self.step, self.recipe.steps)
        self.network.train()
        for part in self.frozen:
            part.eval()
        logits = self.network(to_input(crops, self.device), vectors.to(self.device))
        loss: torch.Tensor = self.loss(logits, labels.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._average()
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        # The first steps, from a random head, are forgotten soon.
        decay = min(self.recipe.average, self.step / (self.step + 9))
        pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
        for kept, current in pairs:
            if kept.is_floating_point():
                kept.lerp_(current, 1 - decay)
            else:
                kept.copy_(current)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in self._PARTS}
        torch.save(parts | {"step": self.step}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: there is none.
        """
        if not path.exists():
            raise ConfigError(f"{path.parent}: nothing to resume; leave out --resume to start anew")
        stored = torch.load(path, weights_only=True, map_location=self.device)
        for name in self._PARTS:
            getattr(self, name).load_state_dict(stored[name])
        self.step = stored["step"]


def build(recipe: ClassifierRecipe) -> CropNetwork | AltarawnehNetwork:
    """The recipe's network, with random weights.

    Raises:
        ConfigError: a crop size that the network does not take.
    """
    if recipe.classifier == "cnn":
        return CropNetwork(len(recipe.classes))
    if recipe.crop_px != ALTARAWNEH_PX:
        raise ConfigError(f"crop_px: {recipe.crop_px}: the network of 'altarawneh' takes {ALTARAWNEH_PX}")
    return AltarawnehNetwork(len(recipe.classes))


def frozen_parts(network: nn.Module, blocks: int) -> list[nn.Module]:
    """The stem and first blocks that keep their weights and statistics; none for 0."""
    if not isinstance(network, CropNetwork) or not blocks:
        return []
    return [network.backbone.stem, *network.backbone.blocks[:blocks]]


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
    state = TrainingState(recipe, device)
    state.set_scale(vectors)
    if resume:
        state.load(out / "state.pt")
    supply = ViewDataset(cells, vectors, recipe)
    views = Subset(supply, range(state.step * recipe.batch, len(supply)))
    loader = DataLoader(views, recipe.batch, num_workers=recipe.workers)
    started, first, running = time.monotonic(), state.step, 0.0
    for crops, descriptor, labels in loader:
        loss = state.advance(crops, descriptor, labels)
        running += (loss - running) / min(state.step - first, 50)
        if state.step % 50 == 0:
            pace = (time.monotonic() - started) / (state.step - first)
            left = pace * (recipe.steps - state.step) / 60
            report(f"step {state.step}/{recipe.steps}  loss {running:.3f}  {pace:.2f} s each, {left:.0f} min")
        if state.step % recipe.check_every == 0:
            state.save(out / "state.pt")
    path = out / "best.safetensors"
    save_weights(state.average, path)
    temperature, limit = calibrate(state, held, report)
    write_card(recipe, path, command, cells + held, temperature, limit)
    return path


def calibrate(
    state: TrainingState, held: list[LabelledCell], report: Callable[[str], None]
) -> tuple[float, float]:
    """Temperature, and limit of 'unclassified', on held-back cells; 1 and 0 where there are none."""
    recipe = state.recipe
    if not held:
        return 1.0, 0.0
    crops = plain_views(held, recipe.crop_px, recipe.cover, recipe.nucleus)
    vectors = torch.from_numpy(cell_descriptors(held, recipe.graph))
    with torch.no_grad():
        logits = torch.cat(
            [
                state.average(to_input(c, state.device), v.to(state.device)).cpu()
                for c, v in zip(torch.split(crops, 64), torch.split(vectors, 64), strict=True)
            ]
        ).numpy()
    return calibration_of(logits, np.array([cell.label for cell in held]), recipe.sure, report)


def calibration_of(
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    sure: float,
    report: Callable[[str], None],
) -> tuple[float, float]:
    """Temperature of (N, C) logits, and the limit above which a share ``sure`` of the cells is right."""
    temperature = fit_temperature(logits, labels)
    scaled = logits / temperature
    chances = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chosen = choose_limit(chances, labels, sure)
    limit = chosen.value if chosen else 0.0
    right = float((chances.argmax(axis=1) == labels).mean())
    report(
        f"held back: accuracy {right:.3f} of {len(labels)}, temperature {temperature:.2f}, limit {limit:.2f}"
    )
    return temperature, limit


def write_card(
    recipe: LabelledCellsRecipe,
    path: Path,
    command: str,
    cells: list[LabelledCell],
    temperature: float,
    limit: float,
    **particulars: Any,
) -> None:
    """Write the card beside the weights at ``path``."""
    used = Counter((cell.field.source.dataset, cell.field.source.lab) for cell in cells)
    if isinstance(recipe, ClassifierRecipe):
        particulars = {
            "architecture": "efficientnet-lite0" if recipe.classifier == "cnn" else "altarawneh",
            "crop_px": recipe.crop_px,
            "cover": recipe.cover,
            "nucleus": recipe.nucleus,
            "graph": {"name": recipe.graph.name, **recipe.graph.params},
        }
    card = ClassifierCard(
        name=recipe.name,
        sha256=sha256_of(path),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        data=[
            {"dataset": dataset, "lab": lab, "leukocytes": count, "licence": licence_of(dataset)}
            for (dataset, lab), count in sorted(used.items())
        ],
        classes=recipe.classes,
        temperature=round(temperature, 4),
        limit=round(limit, 4),
        **particulars,
    )
    path.with_suffix(".json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _rate(step: int, steps: int) -> float:
    rise = min(1.0, (step + 1) / 40)
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
