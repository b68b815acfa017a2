"""The hybrid: its graph network, what it is trained on, and the CNN it stands on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit import weights
from leukokit.appearance import APPEARANCE
from leukokit.classifiers.context import CONTEXT_FEATURES
from leukokit.classifiers.networks import ContextNetwork
from leukokit.config import PipelineConfig, PluginChoice, load_settings
from leukokit.errors import ConfigError, WeightsError
from leukokit.evaluation.labelled import predict_seen
from leukokit.pipeline import Pipeline
from leukokit.pyg import Batch, Data
from leukokit.taxonomy import LEUKOCYTE
from leukokit.training.cells import load_seen
from leukokit.training.classifier import ClassifierRecipe
from leukokit.training.hybrid import HybridRecipe, Scenes, TrainedCnn, train_hybrid, varied_features
from leukokit.training.labelled import builder_of, training_cells
from leukokit.training.recipes import AnyClassifierRecipe
from leukokit.weights import ClassifierCard

CLASSES = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]


def recipe(folder: Path, **changes: object) -> HybridRecipe:
    values: dict[str, object] = {
        "name": "mine",
        "classifier": "hybrid",
        "cnn": "leukocyte-cnn",
        "cells": [folder],
        "train": [{"dataset": "txl-pbc"}],
        "views": 2,
        "steps": 4,
        "batch": 4,
        "check_every": 3,
        "held_back": 0.0,
    }
    return HybridRecipe.model_validate(values | changes)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_hybrid(recipe(folder), tmp_path_factory.mktemp("hybrid"), report=lambda _: None)


def pipeline_of(path: Path) -> Pipeline:
    return Pipeline(PipelineConfig.model_validate({"classifier": {"name": "hybrid", "weights": str(path)}}))


def test_a_trained_hybrid_is_loaded_and_names_leukocytes(folder: Path, trained: Path) -> None:
    card = weights.read_card(trained, ClassifierCard)
    assert card.cnn["name"] == "leukocyte-cnn"
    assert card.cnn["sha256"] == weights.sha256_of(weights.find("leukocyte-cnn"))
    pipeline = pipeline_of(trained)
    (field,) = load_seen(folder).fields
    smear = pipeline.read(field.source.image)
    labelling = pipeline.label(smear, pipeline.build(field.cells)).labelling
    assert labelling is not None
    leukocytes = field.cells.kinds == LEUKOCYTE
    np.testing.assert_allclose(labelling.probabilities[leukocytes].sum(axis=1), 1, atol=1e-5)
    assert not labelling.probabilities[~leukocytes].any()
    assert len(predict_seen(pipeline, [field]).labels) == leukocytes.sum()


def test_a_stopped_run_goes_on_to_the_same_weights(folder: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        train_hybrid(recipe(folder), tmp_path, resume=True, report=lambda _: None)
    train_hybrid(recipe(folder), tmp_path, report=lambda _: None)
    # Its last checkpoint was after the third of four steps.
    (tmp_path / "best.safetensors").unlink()
    again = train_hybrid(recipe(folder), tmp_path, resume=True, report=lambda _: None)
    assert again.read_bytes() == trained.read_bytes()


def test_the_cnn_must_be_the_one_it_was_trained_on(trained: Path, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(trained.with_suffix(suffix), tmp_path / f"mine{suffix}")
    mine = tmp_path / "mine.safetensors"
    pipeline_of(mine)
    beside = tmp_path / "leukocyte-cnn.safetensors"
    beside.write_bytes(b"another")
    with pytest.raises(WeightsError, match=r"not the CNN that mine\.safetensors was trained on"):
        pipeline_of(mine)
    beside.unlink()
    card = json.loads(mine.with_suffix(".json").read_text())
    for named, said in (({}, "names no CNN"), ({"name": "gone", "sha256": "0"}, "gone: no such weight file")):
        mine.with_suffix(".json").write_text(json.dumps(card | {"cnn": named}))
        with pytest.raises(WeightsError, match=said):
            pipeline_of(mine)


def test_a_cnn_of_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the recipe's"):
        train_hybrid(recipe(folder, classes=CLASSES[:3]), tmp_path, report=lambda _: None)


def random_graph(rng: np.random.Generator, nodes: int) -> Data:
    pairs = rng.integers(0, max(nodes, 1), (2, 2 * nodes if nodes > 1 else 0))
    pairs = pairs[:, pairs[0] != pairs[1]]
    edges = np.concatenate([pairs, pairs[::-1]], axis=1)
    return Data(
        x=torch.from_numpy(rng.normal(0, 1, (nodes, len(CONTEXT_FEATURES))).astype(np.float32)),
        edge_index=torch.from_numpy(edges),
        edge_attr=torch.from_numpy(rng.normal(0, 1, (edges.shape[1], 2)).astype(np.float32)),
    )


def answers(network: ContextNetwork, graph: Data, pictures: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = network(graph.x, pictures, graph.edge_index, graph.edge_attr)
    return found


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_the_order_of_the_cells_does_not_matter(seed: int, nodes: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed % 1000)
    network, graph = ContextNetwork(5).eval(), random_graph(rng, nodes)
    pictures = torch.from_numpy(rng.normal(0, 1, (nodes, 320)).astype(np.float32))
    order = torch.from_numpy(rng.permutation(nodes))
    place = torch.argsort(order)
    other = Data(x=graph.x[order], edge_index=place[graph.edge_index], edge_attr=graph.edge_attr)
    torch.testing.assert_close(
        answers(network, other, pictures[order]),
        answers(network, graph, pictures)[order],
        atol=1e-4,
        rtol=1e-4,
    )
    # Fields side by side know nothing of each other.
    both = Batch.from_data_list([graph, random_graph(rng, 3)])
    joined = answers(network, both, torch.cat([pictures, torch.zeros(3, 320)]))[:nodes]
    torch.testing.assert_close(joined, answers(network, graph, pictures), atol=1e-4, rtol=1e-4)


def test_messages_reach_two_links_and_no_further() -> None:
    torch.manual_seed(0)
    network = ContextNetwork(5).eval()
    path = torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])
    x, pictures = torch.randn(4, len(CONTEXT_FEATURES)), torch.zeros(4, 320)
    graph = Data(x=x, edge_index=path, edge_attr=torch.zeros(6, 2))
    before = answers(network, graph, pictures)[0]
    for changed, moves in ((3, False), (2, True), (1, True)):
        other = x.clone()
        other[changed] += 1
        after = answers(network, Data(x=other, edge_index=path, edge_attr=graph.edge_attr), pictures)[0]
        assert bool((after - before).abs().max() > 1e-6) is moves


def test_a_batch_holds_a_field_for_every_cell_drawn(folder: Path) -> None:
    cells, _ = training_cells(recipe(folder))
    scenes = Scenes(cells, builder_of(PluginChoice(name="knn")))
    embeddings = np.arange(1, len(cells) + 1, dtype=np.float32)[:, None] * np.ones(320, np.float32)
    batch, pictures, nodes = scenes.batch([2, 5, 2], embeddings)
    size = len(cells[0].field.cells)
    assert batch.num_nodes == 3 * size and batch.num_graphs == 3
    assert pictures[nodes, 0].tolist() == [3, 6, 3]
    assert (nodes // size).tolist() == [0, 1, 2]
    # All labelled cells of the field bring their picture, and no other cell has one.
    assert sorted(pictures[:size, 0][pictures[:size, 0] > 0].tolist()) == list(range(1, len(cells) + 1))


def test_colours_of_a_field_vary_together(folder: Path) -> None:
    cells, _ = training_cells(recipe(folder))
    scenes = Scenes(cells, builder_of(PluginChoice(name="knn")))
    batch, _, _ = scenes.batch([0, 1], np.zeros((len(cells), 320), np.float32))
    rng = np.random.default_rng(0)
    assert torch.equal(varied_features(batch, recipe(folder, stain=0, size=0), rng), batch.x)
    varied = varied_features(batch, recipe(folder, stain=0.3, size=0.2), rng).numpy()
    before = batch.x.numpy()
    of_field = batch.batch.numpy()
    coloured = [name for name in APPEARANCE if name != "nucleus_share"]
    factors = {}
    for column, name in enumerate(CONTEXT_FEATURES):
        known = np.abs(before[:, column]) > 1e-6
        for field in (0, 1):
            ratios = varied[known & (of_field == field), column] / before[known & (of_field == field), column]
            if not len(ratios):
                continue
            np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)
            factors[name, field] = ratios[0]
    for field in (0, 1):
        for channel in "rgb":
            same = [factors[name, field] for name in coloured if name.endswith(f"_{channel}")]
            np.testing.assert_allclose(same, same[0], rtol=1e-4)
            assert len(same) == 4 and same[0] != pytest.approx(1)
        assert factors["density_r", field] != pytest.approx(factors["density_g", field])
        assert factors["diameter", field] == pytest.approx(factors["mean_edge_length", field], rel=1e-4)
        assert factors["nucleus_share", field] == factors["degree", field] == 1
    assert factors["density_r", 0] != pytest.approx(factors["density_r", 1])


def test_views_are_the_seed_s(folder: Path) -> None:
    own = recipe(folder)
    cells, _ = training_cells(own)
    cnn = TrainedCnn(own, "cpu")
    first = cnn.varied(cells[:3], own)
    assert first.shape == (2, 3, 320) and np.array_equal(first, cnn.varied(cells[:3], own))
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first, cnn.varied(cells[:3], recipe(folder, seed=1)))


def test_a_recipe_says_which_classifier_it_is_of(tmp_path: Path) -> None:
    configs = Path(__file__).parents[2] / "configs"
    kinds = {"cnn": ClassifierRecipe, "altarawneh": ClassifierRecipe, "hybrid": HybridRecipe}
    for name, kind in kinds.items():
        assert type(load_settings(AnyClassifierRecipe, configs / f"{name}.yaml").root) is kind
    (tmp_path / "x.yaml").write_text("classifier: resnet\n")
    with pytest.raises(ConfigError, match="'cnn', 'altarawneh', 'hybrid'"):
        load_settings(AnyClassifierRecipe, tmp_path / "x.yaml")
