"""Training the hybrid: what its graph network is shown, the CNN it leaves beside, going on after a stop."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit import weights
from leukokit.classifiers.hybrid import HybridClassifier
from leukokit.classifiers.networks.context import CONTEXT_FEATURES
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.classifiers.networks.graph_batch import GraphTensors, context_tensors, side_by_side
from leukokit.classifiers.networks.modules import load_context_network
from leukokit.classifiers.neural import GraphedField
from leukokit.cli import main
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.crops.appearance import APPEARANCE
from leukokit.datasets.detected import load_detected
from leukokit.datasets.fields import is_held_back
from leukokit.errors import ConfigError, WeightsError
from leukokit.evaluation.classification import predict_detected
from leukokit.pipeline import Pipeline
from leukokit.taxonomy import LEUKOCYTE
from leukokit.training import calibration, load_classifier_recipe
from leukokit.training.cells import AnnotatedCell, builder_of, training_cells
from leukokit.training.classifier import ClassifierRecipe, plain_logits
from leukokit.training.hybrid import (
    _COLOURS,
    _LENGTHS,
    FieldGraphs,
    HybridRecipe,
    JointNetwork,
    context_logits,
    embeddings_of,
    fit_hybrid,
    head_logits,
    start_training,
    train_hybrid,
    varied_features,
)
from leukokit.training.loop import Training
from leukokit.weights import ClassifierCard
from leukokit.weights.files import load_weights

SMEAR = Path(__file__).parents[2] / "examples" / "smear.png"
CLASSES = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]


def recipe(folder: Path, **changes: object) -> HybridRecipe:
    values: dict[str, object] = {
        "name": "mine",
        "classifier": "hybrid",
        "cnn": "own-cnn",
        "cells": [folder],
        "train": [{"dataset": "txl-pbc"}],
        "workers": 0,
        "crop_px": 32,
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
    return Pipeline.from_config(
        PipelineConfig.model_validate({"classifier": {"name": "hybrid", "weights": str(path)}})
    )


def test_a_trained_hybrid_is_loaded_and_names_leukocytes(folder: Path, trained: Path) -> None:
    card = weights.read_card(trained, ClassifierCard)
    cnn = trained.with_name("own-cnn.safetensors")
    assert card.cnn == {"name": "own-cnn", "sha256": weights.sha256_of(cnn)}
    pipeline = pipeline_of(trained)
    (field,) = load_detected(folder).fields
    smear = pipeline.read(field.source.image)
    labelling = pipeline.label(smear, pipeline.build(field.cells)).labelling
    assert labelling is not None
    leukocytes = field.cells.kinds == LEUKOCYTE
    np.testing.assert_allclose(labelling.probabilities[leukocytes].sum(axis=1), 1, atol=1e-5)
    assert not labelling.probabilities[~leukocytes].any()
    assert len(predict_detected(pipeline, [field]).labels) == leukocytes.sum()
    result = pipeline.run(SMEAR)
    assert card.sha256 in result.provenance["classifier"]["weights"].values()
    assert result.cells.labelling is not None
    rows = result.cells.labelling.probabilities.sum(axis=1)
    np.testing.assert_allclose(rows, result.cells.kinds == LEUKOCYTE, atol=1e-5)


def test_photographs_held_back_set_temperature_and_limit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "FEWEST_HELD", 5)
    row = json.loads((folder / "fields.jsonl").read_text())
    names = ["a", next(name for name in map(str, range(99)) if is_held_back(name, 0.1))]
    assert not is_held_back("a", 0.1)
    lines = [json.dumps({**row, "photo": name, "image": str(SMEAR)}) for name in names]
    (tmp_path / "fields.jsonl").write_text("\n".join(lines))
    looks = np.load(folder / "appearance.npy")
    np.save(tmp_path / "appearance.npy", np.concatenate([looks, looks]))
    shutil.copy(folder / "crops.npy", tmp_path)
    said: list[str] = []
    own = recipe(tmp_path, held_back=0.1)
    path = train_hybrid(own, tmp_path / "out", report=said.append)
    count = len(training_cells(own)[0])
    assert said[0] == f"{count} cells to train on, {count} held back to calibrate"
    assert any(line.startswith("held back: accuracy") and f"of {count}," in line for line in said)
    card = weights.read_card(path, ClassifierCard)
    assert card.temperature != 1 and card.data[0]["leukocytes"] == 2 * count
    assert weights.read_card(path.with_name("own-cnn.safetensors"), ClassifierCard).temperature != 1


def test_training_and_classifying_see_the_same(folder: Path, trained: Path) -> None:
    own = recipe(folder)
    cells, _ = training_cells(own)
    classifier = pipeline_of(trained).classifier
    assert isinstance(classifier, HybridClassifier)
    cnn = CropNetwork(len(CLASSES))
    load_weights(cnn, classifier.cnn_path)
    builder = builder_of(own.graph)
    seen = embeddings_of(cnn.eval(), cells, own)
    network = load_context_network(trained, len(CLASSES))
    known = context_logits(network, FieldGraphs(cells, builder), seen)
    field, nodes = cells[0].field, np.array([cell.node for cell in cells])
    smear = Pipeline.from_config(PipelineConfig(classifier=None)).read(SMEAR)
    found = classifier.logits([GraphedField(smear, builder.build(field.cells), nodes)])
    # Crops are kept at another resolution, boxes rounded.
    assert np.abs(found - known).max() < 0.2 * known.std(axis=0).mean()


@pytest.mark.parametrize(("stop", "left"), [(3, [3])])
def test_a_stopped_run_goes_on_to_the_same_weights(
    stop: int, left: list[int], folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, advance, taken = recipe(folder), Training.advance, list[int]()

    def counted(training: Training, loss: torch.Tensor) -> float:
        if len(taken) == stop:
            raise KeyboardInterrupt
        taken.append(training.step)
        return advance(training, loss)

    monkeypatch.setattr(Training, "advance", counted)
    with pytest.raises(KeyboardInterrupt):
        train_hybrid(own, tmp_path, report=lambda _: None)
    assert not (tmp_path / "best.safetensors").exists()
    # A checkpoint is written after the third of four steps.
    taken[:], stop = [], -1
    again = train_hybrid(own, tmp_path, resume=True, report=lambda _: None)
    assert taken == left
    assert again.read_bytes() == trained.read_bytes()


def test_another_seed_gives_other_weights(folder: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        train_hybrid(recipe(folder), tmp_path, resume=True, report=lambda _: None)
    other = train_hybrid(recipe(folder, seed=1), tmp_path, report=lambda _: None)
    assert other.read_bytes() != trained.read_bytes()


def test_the_cnn_is_a_classifier_and_stays_with_its_hybrid(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    cnn = trained.with_name("own-cnn.safetensors")
    card = weights.read_card(cnn, ClassifierCard)
    assert (card.name, card.architecture, card.crop_px) == ("own-cnn", "efficientnet-lite0", 32)
    config = PipelineConfig.model_validate({"classifier": {"name": "cnn", "weights": str(cnn)}})
    labelling = Pipeline.from_config(config).run(SMEAR).cells.labelling
    assert labelling is not None
    assert labelling.probabilities.sum() == pytest.approx(labelling.probabilities.any(axis=1).sum(), abs=1e-3)
    # What it answers with in training and here is the same.
    own = recipe(folder)
    cells, _ = training_cells(own)
    network = CropNetwork(len(CLASSES))
    load_weights(network, cnn)
    found = head_logits(network.eval(), embeddings_of(network, cells, own))
    np.testing.assert_allclose(found, plain_logits(network, cells, own), atol=1e-4)
    for name in ("best.safetensors", "best.json"):
        shutil.copy(trained.with_name(name), tmp_path)
    with pytest.raises(WeightsError, match="needs the CNN 'own-cnn', which is not shipped"):
        pipeline_of(tmp_path / "best.safetensors")
    # Of the same name, but not the file that it was trained with.
    shutil.copy(weights.find("leukocyte-altarawneh"), tmp_path / cnn.name)
    with pytest.raises(WeightsError, match=r"not the CNN that best\.safetensors was trained on"):
        pipeline_of(tmp_path / "best.safetensors")


def test_the_cnn_learns_to_answer_too(folder: Path) -> None:
    own = recipe(folder, steps=2)
    cells, _ = training_cells(own)
    graphs = FieldGraphs(cells, builder_of(own.graph))
    training = start_training(own, graphs)
    assert isinstance(training.network, JointNetwork)
    head: Any = training.network.cnn.head[1]
    before = head.bias.detach().clone()
    fit_hybrid(training, own, graphs, report=lambda _: None)
    assert (head.bias != before).any()


def test_a_batch_holds_a_field_for_every_cell_drawn(folder: Path) -> None:
    cells, _ = training_cells(recipe(folder))
    (whole,) = load_detected(folder).fields
    # Another field, whose only annotated cell is its last.
    size, other = len(whole.cells), replace(whole, cells=whole.cells[:7], appearance=whole.appearance[:7])
    cells = [*cells, AnnotatedCell(other, 6, 0, cells[0].crop)]
    last = len(cells) - 1
    embeddings = np.arange(1, len(cells) + 1, dtype=np.float32)[:, None] * np.ones(320, np.float32)
    graphs = FieldGraphs(cells, builder_of(PluginChoice(name="knn")))
    batch, nodes = graphs.batch([2, last, 5, 2])
    pictures = graphs.node_embeddings([2, last, 5, 2], batch, embeddings)
    starts = [0, size, size + 7, 2 * size + 7]
    assert batch.starts == starts and len(batch.tensors.features) == 3 * size + 7
    assert nodes.tolist() == [first + cells[n].node for first, n in zip(starts, [2, last, 5, 2], strict=True)]
    assert pictures[nodes, 0].tolist() == [3, last + 1, 6, 3]
    expected = np.zeros((3 * size + 7, 320), np.float32)
    for first in (starts[0], *starts[2:]):
        for number, cell in enumerate(cells[:-1]):
            expected[first + cell.node] = number + 1
    expected[size + 6] = last + 1
    np.testing.assert_array_equal(pictures.numpy(), expected)
    graph = builder_of(PluginChoice(name="knn")).build(other.cells)
    features, edges, edge_features = context_tensors(graph, other.appearance)
    assert torch.equal(batch.tensors.features[size : size + 7], features)
    first = int((batch.tensors.edges[0] < size).sum())
    own = slice(first, first + edges.shape[1])
    assert torch.equal(batch.tensors.edges[:, own], edges + size)
    assert torch.equal(batch.tensors.edge_features[own], edge_features)


def test_twelve_columns_are_optical_densities() -> None:
    parts = ("density", "texture", "nucleus_density", "cytoplasm_density")
    assert [CONTEXT_FEATURES[number] for number in _COLOURS] == [f"{p}_{c}" for p in parts for c in "rgb"]
    assert {CONTEXT_FEATURES[number] for number in _COLOURS} == set(APPEARANCE) - {"nucleus_share"}
    assert [CONTEXT_FEATURES[number] for number in _LENGTHS] == ["diameter", "mean_edge_length"]


def unlinked(features: torch.Tensor) -> GraphTensors:
    return GraphTensors(features, torch.empty(2, 0, dtype=torch.int64), torch.empty(0, 2))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.5), st.floats(0.01, 0.3), st.integers(1, 4))
def test_a_field_has_one_factor_a_channel_and_one_of_size(
    seed: int, stain: float, size: float, fields: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = [torch.from_numpy(rng.uniform(0.5, 1, (n + 1, 21)).astype(np.float32)) for n in range(fields)]
    batch = side_by_side([unlinked(features) for features in drawn])
    own = HybridRecipe(name="x", classifier="hybrid", cells=[], train=[], stain=stain, size=size)
    ratios = (varied_features(batch, own, rng) / batch.tensors.features).split([len(x) for x in drawn])
    firsts = torch.stack([ratio[0] for ratio in ratios])
    for ratio in ratios:
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    by_name = dict(zip(CONTEXT_FEATURES, firsts.T, strict=True))
    for name, factor in by_name.items():
        channel = name[-1] if name[-2:] in ("_r", "_g", "_b") else ""
        like = f"density_{channel}" if channel else "diameter" if "length" in name else name
        torch.testing.assert_close(factor, by_name[like])
        if not channel and name not in ("diameter", "mean_edge_length"):
            assert (factor == 1).all()
    drawn_once = torch.cat([by_name[name] for name in ("density_r", "density_g", "density_b", "diameter")])
    assert len(drawn_once.unique()) == 4 * fields


def test_factors_have_the_spread_asked_for(folder: Path) -> None:
    batch = side_by_side([unlinked(torch.ones(1, len(CONTEXT_FEATURES)))] * 2000)
    own = recipe(folder, stain=0.2, size=0.05)
    logs = varied_features(batch, own, np.random.default_rng(0)).log()
    np.testing.assert_allclose(logs[:, _COLOURS].std(dim=0), 0.2, rtol=0.1)
    np.testing.assert_allclose(logs[:, _LENGTHS].std(dim=0), 0.05, rtol=0.1)
    np.testing.assert_allclose(logs.mean(dim=0), 0, atol=0.02)


def test_colours_of_a_field_vary_together(folder: Path) -> None:
    cells, _ = training_cells(recipe(folder))
    batch, _ = FieldGraphs(cells, builder_of(PluginChoice(name="knn"))).batch([0, 1])
    rng = np.random.default_rng(0)
    assert torch.equal(varied_features(batch, recipe(folder, stain=0, size=0), rng), batch.tensors.features)
    varied = varied_features(batch, recipe(folder, stain=0.3, size=0.2), rng).numpy()
    before = batch.tensors.features.numpy()
    of_field = batch.owners.numpy()
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


def test_a_recipe_says_which_classifier_it_is_of(tmp_path: Path) -> None:
    configs = Path(__file__).parents[2] / "configs"
    kinds = {"cnn": ClassifierRecipe, "altarawneh": ClassifierRecipe, "hybrid": HybridRecipe}
    for name, kind in kinds.items():
        assert type(load_classifier_recipe(configs / f"{name}.yaml")) is kind
    for assigned, said in (
        ("classifier=resnet", "classifier: no classifier is called 'resnet'; there are: "),
        ("classifier=cnn", "cnn: no such setting"),
        ("steps=0", "steps: input should be greater than or equal to 1"),
        ("name=../evil", "name: string should match pattern"),
        ("steps=many", "steps: input should be a valid integer, unable to parse string as an integer"),
    ):
        with pytest.raises(ConfigError) as error:
            load_classifier_recipe(configs / "hybrid.yaml", [assigned])
        assert str(error.value).startswith(f"{configs / 'hybrid.yaml'}: {said}")
    (tmp_path / "x.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: classifier: field required"):
        load_classifier_recipe(tmp_path / "x.yaml")


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``leukokit train classifier`` in this process."""
    capfd.readouterr()
    config = Path(__file__).parents[2] / "configs" / "hybrid-five.yaml"
    with pytest.MonkeyPatch.context() as patch:
        words = ["leukokit", "train", "classifier", "--config", config, "--device", "cpu", *arguments]
        patch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as stop:
            main()
    out, err = capfd.readouterr()
    return int(stop.value.code or 0), out, err


def test_the_command_trains_it_and_goes_on(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = (
        "train=[{dataset: txl-pbc}]",
        "steps=2",
        "batch=4",
        "workers=0",
        "crop_px=32",
        "held_back=0",
        "check_every=1",
    )
    sets = [word for value in (f"cells=['{folder}']", *small) for word in ("--set", value)]
    code, said, err = run(capfd, "--out", tmp_path, *sets)
    path = tmp_path / "hybrid-five" / "best.safetensors"
    assert (code, err) == (0, "") and f"wrote {path} and its card" in said
    first, card = path.read_bytes(), weights.read_card(path, ClassifierCard)
    assert card.command.startswith("leukokit train classifier --config") and card.recipe["steps"] == 2
    path.unlink()
    code, said, err = run(capfd, "--out", tmp_path, *sets, "--resume")
    assert (code, err) == (0, "") and "step 50" not in said and path.read_bytes() == first
    code, said, err = run(capfd, "--out", tmp_path, "--set", "classifier=resnet")
    assert (code, said) == (2, "") and err.count("\n") == 1 and "no classifier is called 'resnet'" in err
