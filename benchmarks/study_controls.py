"""What the hybrid is compared with in benchmarks/study.py, each with one thing taken away."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from leukokit.cells import Cells
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.classifiers.networks.modules import to_input
from leukokit.graph import EDGE_FEATURES, CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.taxonomy import LEUKOCYTE
from leukokit.training.cells import AnnotatedCell, builder_of, plain_views, training_cells
from leukokit.training.classifier import ClassifierRecipe
from leukokit.training.hybrid import (
    FieldGraphs,
    HybridRecipe,
    JointNetwork,
    context_logits,
    embeddings_of,
    fit_hybrid,
    head_logits,
    start_training,
)

Answers = dict[str, npt.NDArray[np.float32]]
TYPICAL_DIAMETER_PX: Final = 40.0
"""Erythrocyte diameter that lengths are divided by where a field's own is not to be known."""
ADAPTATION_CROPS: Final = 256
SHARE: Final = 0.5
"""Share of the unseen laboratory's statistics in those of ``adapted``."""


class _Unlinked(GraphBuilder):
    name, version, summary = "unlinked", "1.0", "no links"

    def build(self, cells: Cells) -> CellGraph:
        return CellGraph.unlinked(cells)

    def pairs(self, points: npt.NDArray[np.float64], unit: float) -> npt.NDArray[np.int64]:
        return np.empty((2, 0), np.int64)


def no_links(cells: Sequence[AnnotatedCell], _builder: GraphBuilder) -> FieldGraphs:
    """Every cell by itself, with its own numbers and its size in erythrocyte diameters."""
    return FieldGraphs(cells, _Unlinked())


def picture_alone(cells: Sequence[AnnotatedCell], _builder: GraphBuilder) -> FieldGraphs:
    """The CNN's embedding and nothing else: what another head trained on the same CNN would give."""
    graphs = FieldGraphs(cells, _Unlinked())
    for key, tensors in graphs.graphs.items():
        graphs.graphs[key] = tensors._replace(features=torch.zeros_like(tensors.features))
    return graphs


def shuffled_links(cells: Sequence[AnnotatedCell], builder: GraphBuilder) -> FieldGraphs:
    """The builder's links between cells of the same field drawn at random."""
    graphs = FieldGraphs(cells, builder)
    for number, (key, tensors) in enumerate(graphs.graphs.items()):
        places = np.random.default_rng(number).permutation(len(tensors.features))
        graphs.graphs[key] = tensors._replace(edges=torch.from_numpy(places)[tensors.edges])
    return graphs


def no_red_cells(cells: Sequence[AnnotatedCell], builder: GraphBuilder) -> FieldGraphs:
    """Leukocytes alone: neither red cells nor platelets, and no ruler but the leukocytes themselves."""
    reduced = {}
    for cell in cells:
        field = cell.field
        if id(field) not in reduced:
            kept = np.flatnonzero(field.cells.kinds == LEUKOCYTE)
            places = np.full(len(field.cells), -1)
            places[kept] = np.arange(len(kept))
            smaller = replace(
                field,
                cells=field.cells[kept],
                labels=tuple(field.labels[node] for node in kept),
                appearance=field.appearance[kept],
            )
            reduced[id(field)] = (smaller, places)
    alone = []
    for cell in cells:
        smaller, places = reduced[id(cell.field)]
        alone.append(replace(cell, field=smaller, node=int(places[cell.node])))
    return FieldGraphs(alone, builder)


def lengths_in_pixels(cells: Sequence[AnnotatedCell], builder: GraphBuilder) -> FieldGraphs:
    """No ruler: all lengths in pixels, of one typical red cell; colours and links as they are."""
    graphs = FieldGraphs(cells, builder)
    columns = [CONTEXT_FEATURES.index(name) for name in ("diameter", "mean_edge_length")]
    for key, field in {id(cell.field): cell.field for cell in cells}.items():
        factor = (field.cells.ruler_px or TYPICAL_DIAMETER_PX) / TYPICAL_DIAMETER_PX
        tensors = graphs.graphs[key]
        tensors.features[:, columns] *= factor
        tensors.edge_features[:, EDGE_FEATURES.index("length")] *= factor
    return graphs


CONTROLS: Final[dict[str, Callable[..., FieldGraphs]]] = {
    "picture alone": picture_alone,
    "without links": no_links,
    "links shuffled": shuffled_links,
    "without red cells": no_red_cells,
    "lengths in pixels": lengths_in_pixels,
}


@torch.no_grad()
def adapted(network: nn.Module, cells: list[AnnotatedCell], recipe: ClassifierRecipe) -> nn.Module:
    """The CNN with the statistics of batch normalisation drawn halfway to those of unlabelled crops.

    Li et al. 2018 (doi:10.1016/j.patcog.2018.03.005). It knows some crops of the laboratory, not their
    classes: neither a classifier of single smears nor one that never met the laboratory.
    """
    drawn = np.random.default_rng(0).permutation(len(cells))[:ADAPTATION_CROPS]
    crops = plain_views([cells[i] for i in drawn], recipe.crop_px, recipe.cover, recipe.nucleus)
    measured, out = copy.deepcopy(network), copy.deepcopy(network)
    for module in measured.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    for part in torch.split(crops, 64):
        measured(to_input(part, "cpu"))
    for mine, theirs in zip(out.modules(), measured.modules(), strict=True):
        if isinstance(mine, nn.BatchNorm2d) and isinstance(theirs, nn.BatchNorm2d):
            assert mine.running_mean is not None and theirs.running_mean is not None
            assert mine.running_var is not None and theirs.running_var is not None
            mine.running_mean.lerp_(theirs.running_mean, SHARE)
            mine.running_var.lerp_(theirs.running_var, SHARE)
    return out.eval()


@torch.no_grad()
def averaged(networks: Sequence[nn.Module]) -> nn.Module:
    """The mean of the weights of several networks (Wortsman et al. 2022, arXiv:2203.05482)."""
    mean, stored = copy.deepcopy(networks[0]), [network.state_dict() for network in networks]
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([one[name] for one in stored]).mean(dim=0))
    return mean.eval()


def end_to_end_answers(
    recipe: HybridRecipe,
    make_graphs: Callable[..., FieldGraphs],
    tests: dict[str, list[AnnotatedCell]],
    device: str,
) -> tuple[Answers, Answers]:
    """Logits (N, C) of a hybrid trained end to end, and of its CNN."""
    cells, _ = training_cells(recipe)
    builder = builder_of(recipe.graph)
    graphs = make_graphs(cells, builder)
    training = start_training(recipe, graphs, device)
    fit_hybrid(training, recipe, graphs, report=lambda _: None)
    kept = training.average
    assert isinstance(kept, JointNetwork)
    hybrid, alone = {}, {}
    for name, test in tests.items():
        seen = embeddings_of(kept.cnn, test, recipe)
        hybrid[name] = context_logits(kept.context, make_graphs(test, builder), seen)
        alone[name] = head_logits(kept.cnn, seen)
    return hybrid, alone
