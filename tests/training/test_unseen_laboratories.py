"""What keeps a class that one laboratory shows from being learnt as that laboratory's look."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leukokit.crops.cut import optical_density
from leukokit.crops.stain import mix_stain
from leukokit.datasets.detected import CROP_PX, DetectedField, load_detected
from leukokit.errors import ConfigError
from leukokit.images.standardize import WHITE
from leukokit.training.cells import AnnotatedCell, absence_offsets, builder_of, training_cells
from leukokit.training.classifier import ViewDataset
from leukokit.training.hybrid import (
    FieldGraphs,
    HybridRecipe,
    JointNetwork,
    foreign_hosts,
    start_training,
    train_hybrid,
)
from leukokit.training.outliers import beside, made_outlier, pair, smudge
from leukokit.training.stain_transfer import StainTransfer, optimal_map

CLASSES = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]
EIGHT = [*CLASSES, "immature granulocyte", "erythroblast", "unknown"]


def recipe(folder: Path, **changes: object) -> HybridRecipe:
    values: dict[str, object] = {
        "name": "mine",
        "classifier": "hybrid",
        "cnn": "own-cnn",
        "cells": [folder],
        "train": [{"dataset": "txl-pbc"}],
        "workers": 0,
        "crop_px": 32,
        "steps": 2,
        "batch": 4,
        "held_back": 0.0,
    }
    return HybridRecipe.model_validate(values | changes)


def cell_image(dye: tuple[float, float, float]) -> np.ndarray:
    """A kept crop: a nucleus of one optical density on white."""
    axis = np.arange(CROP_PX) - CROP_PX / 2
    disc = np.hypot(axis[:, None], axis[None, :]) < 32
    density = np.where(disc[..., None], np.array(dye), 0.0)
    return np.clip(WHITE * np.exp(-density), 0, 255).astype(np.uint8)


def of_lab(field: DetectedField, lab: str) -> DetectedField:
    return replace(field, source=replace(field.source, lab=lab, photo=lab))


@pytest.fixture
def two_labs(folder: Path) -> list[AnnotatedCell]:
    """Ten lymphocytes of each of two laboratories, one blue and one red; the red one has monocytes, too."""
    (field,) = load_detected(folder).fields
    one, two = of_lab(field, "blue"), of_lab(field, "red")
    node = int(field.annotated[0])
    blue, red = cell_image((1.2, 0.9, 0.2)), cell_image((0.5, 1.2, 0.7))
    return [
        *(AnnotatedCell(one, node, 1, blue) for _ in range(10)),
        *(AnnotatedCell(two, node, 1, red) for _ in range(10)),
        *(AnnotatedCell(two, node, 2, red) for _ in range(10)),
    ]


@given(
    st.lists(st.floats(0.1, 3), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 3), min_size=3, max_size=3),
    st.integers(0, 99),
)
def test_the_map_takes_one_second_moment_to_the_other(
    first: list[float], second: list[float], seed: int
) -> None:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    source, target = np.diag(first), turn @ np.diag(second) @ turn.T
    found = optimal_map(source, target)
    np.testing.assert_allclose(found @ source @ found.T, target, atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-8)


def test_a_cell_takes_the_stain_of_the_other_laboratory(two_labs: list[AnnotatedCell]) -> None:
    transfer = StainTransfer(two_labs)
    blue, red = two_labs[0].crop, two_labs[10].crop
    middle = (CROP_PX // 2, CROP_PX // 2)
    rng = np.random.default_rng(0)
    for label in (1, 2, 6):  # 2 and 6 are shown by one laboratory or none: the map of 1 stands in
        matrix = transfer.matrix("blue", label, rng)
        assert matrix is not None
        mixed = mix_stain(blue, matrix)
        before, after = (
            np.linalg.norm(optical_density(x)[middle] - optical_density(red)[middle]) for x in (blue, mixed)
        )
        assert after < 0.8 * before
        assert (mixed[0, 0] == blue[0, 0]).all(), "the background stays white"


def test_a_laboratory_alone_has_no_other_stain(two_labs: list[AnnotatedCell]) -> None:
    assert StainTransfer(two_labs[:10]).matrix("blue", 1, np.random.default_rng(0)) is None


def test_made_outliers_are_crops_and_differ_from_their_cell() -> None:
    crop, other = cell_image((1.2, 0.9, 0.2)), cell_image((0.5, 1.2, 0.7))
    rng = np.random.default_rng(0)
    for made in (
        smudge(crop, rng),
        beside(crop, rng),
        pair(crop, other, rng),
        made_outlier(crop, other, rng),
    ):
        assert made is not None and made.shape == crop.shape and made.dtype == np.uint8
        assert np.abs(made.astype(int) - crop).mean() > 2
    assert smudge(np.full_like(crop, int(WHITE)), rng) is None, "without a nucleus there is no smudge"


def test_outliers_are_drawn_as_often_as_asked_for(folder: Path) -> None:
    own = recipe(folder, classes=EIGHT, made_outliers=0.25, steps=100)
    cells, _ = training_cells(own)
    supply = ViewDataset(cells, np.arange(len(cells))[:, None], own)
    drawn = Counter(supply[index][2] == EIGHT.index("unknown") for index in range(200))
    assert 30 < drawn[True] < 70
    assert supply[7][2] == supply[7][2] and torch.equal(supply[7][0], supply[7][0])


def test_unknown_and_made_outliers_go_together(folder: Path) -> None:
    with pytest.raises(ValidationError, match="go together"):
        recipe(folder, classes=EIGHT)
    with pytest.raises(ValidationError, match="go together"):
        recipe(folder, made_outliers=0.1)


def test_a_class_that_a_laboratory_never_shows_counts_less_there(two_labs: list[AnnotatedCell]) -> None:
    offsets = absence_offsets(two_labs, EIGHT, 0.25)
    less = math.log(0.25)
    np.testing.assert_allclose(offsets[0], [less, 0, less, less, less, less, less, 0], rtol=1e-6)
    np.testing.assert_allclose(offsets[-1], [less, 0, 0, less, less, less, less, 0], rtol=1e-6)
    assert not absence_offsets(two_labs, EIGHT, 1.0).any()


def test_a_foreign_host_is_of_the_class_or_of_one_that_several_laboratories_show(
    two_labs: list[AnnotatedCell], folder: Path
) -> None:
    own = recipe(folder, foreign_context=1.0)
    graphs = FieldGraphs(two_labs, builder_of(own.graph))
    rng = np.random.default_rng(0)
    for number in (0, 15, 25):
        hosts = {foreign_hosts([number], graphs, own, rng)[0] for _ in range(200)}
        # Monocytes are one laboratory's alone: they are shown among lymphocytes, which both have.
        assert hosts == set(range(20))
    assert foreign_hosts([3, 25], graphs, recipe(folder), rng) == [3, 25]


def test_a_transplanted_cell_keeps_its_size_and_colours(folder: Path) -> None:
    own = recipe(folder)
    cells, _ = training_cells(own)
    graphs = FieldGraphs(cells, builder_of(own.graph))
    plain, nodes = graphs.batch([0])
    guest, host_nodes = graphs.transplanted([0], [1])
    host, _ = graphs.batch([1])
    changed = (guest.tensors.features != host.tensors.features).any(dim=1)
    assert not changed[torch.arange(len(changed)) != host_nodes[0]].any()
    same = guest.tensors.features[host_nodes[0]] == plain.tensors.features[nodes[0]]
    assert same.sum() >= len(same) - 2, "all but what the links say"
    assert torch.equal(graphs.batch([1])[0].tensors.features, host.tensors.features), (
        "the field itself is left as it was"
    )


def test_a_training_goes_on_with_more_classes(folder: Path, tmp_path: Path) -> None:
    first = train_hybrid(recipe(folder), tmp_path / "first", report=lambda _: None)
    second = recipe(folder, classes=EIGHT, made_outliers=0.1, start_from=first)
    cells, _ = training_cells(second)
    network = start_training(second, FieldGraphs(cells, builder_of(second.graph))).network
    assert isinstance(network, JointNetwork)
    from safetensors.torch import load_file

    before = load_file(first.with_name("own-cnn.safetensors"))
    head: Any = network.cnn.head[1]
    weight = head.weight
    assert weight.shape[0] == 8
    torch.testing.assert_close(weight[:5], before["head.1.weight"].float())
    torch.testing.assert_close(weight[7], before["head.1.weight"].float().mean(dim=0))
    bias, earlier = head.bias, before["head.1.bias"].float()
    assert (bias[5:] < earlier.mean()).all(), "what is not learnt yet is not answered"


def test_photographs_are_trained_on_if_they_are_listed(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "photographs.txt"
    listed.write_text("a\nb\n", encoding="utf-8")
    everything, _ = training_cells(recipe(folder))
    assert len(training_cells(recipe(folder, photographs={"txl-pbc": listed}))[0]) == len(everything)
    with pytest.raises(ConfigError, match="cannot read the photographs"):
        training_cells(recipe(folder, photographs={"txl-pbc": tmp_path / "none.txt"}))


def test_members_are_trained_one_by_one_and_averaged(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    single = [
        load_file(train_hybrid(recipe(folder, seed=seed), tmp_path / str(seed), report=lambda _: None))
        for seed in (3, 4)
    ]
    both = load_file(
        train_hybrid(recipe(folder, seed=3, members=2), tmp_path / "both", report=lambda _: None)
    )
    assert {path.name for path in (tmp_path / "both").glob("state*")} <= {"state-3.pt", "state-4.pt"}
    for name, value in both.items():
        mean = (single[0][name].float() + single[1][name].float()) / 2
        torch.testing.assert_close(value.float(), mean, atol=2e-3, rtol=2e-3)
