"""The classifiers and the transformer: what they take and give, their weights, and the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from leukokit import weights
from leukokit.classifiers.neural import CropClassifier
from leukokit.detectors.yolo.detector import DEFAULT_WEIGHTS
from leukokit.metrics.matching import partners
from leukokit.registry import classifiers
from leukokit.taxonomy import LEUKOCYTE
from leukokit.testing import run_checks

from leukokit_zoo import detr
from leukokit_zoo.detr import DetrDetector
from leukokit_zoo.weights import FOLDER

CLASSIFIERS = ("alexnet", "densenet", "se-cnn", "vgg-features", "wbcsnet")
SMEAR = Path(__file__).parents[3] / "examples" / "smear.png"


def plugin(name: str) -> type[CropClassifier]:
    found = classifiers.get(name)
    assert issubclass(found, CropClassifier)
    return found


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("px", [64, 80, 96])
def test_crops_become_logits_each_its_own(name: str, px: int) -> None:
    network = plugin(name).new_network(5).eval()
    crops = torch.rand(3, 3, px, px)
    with torch.inference_mode():
        logits = network(crops, torch.zeros(3, 64))
        alone = network(crops[1:2])
    assert logits.shape == (3, 5)
    assert torch.allclose(logits[1:2], alone, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_weights_are_shipped_with_their_card(name: str) -> None:
    path = FOLDER / f"{name}.safetensors"
    card = weights.read_card(path, weights.ClassifierCard)
    assert card.architecture == plugin(name).architecture
    assert path.stat().st_size < 5.5e6
    assert "chula" not in {entry["lab"] for entry in card.data}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_contract_of_a_classifier_is_kept(name: str) -> None:
    failed = [outcome.message for outcome in run_checks(plugin(name)).outcomes if not outcome.passed]
    assert failed == []


def test_the_contract_of_a_detector_is_kept_by_the_transformer() -> None:
    failed = [outcome.message for outcome in run_checks(DetrDetector).outcomes if not outcome.passed]
    assert failed == []


def test_the_transformer_reads_the_maps_of_yolo() -> None:
    from safetensors.torch import load_file

    network = detr.load(FOLDER / "detr.safetensors")
    stored = load_file(weights.find(DEFAULT_WEIGHTS))
    own = network.state_dict()
    name = "model.0.conv.weight"
    assert torch.equal(own[name], stored[name].float())
    decoder = f"model.{len(network.model) - 1}."
    trained = {key for key, value in network.named_parameters() if value.requires_grad}
    assert trained and all(key.startswith(decoder) for key in trained)


@pytest.mark.skipif(not SMEAR.exists(), reason="leukokit's examples/smear.png is not there")
def test_the_transformer_finds_leukocytes_that_yolo_finds() -> None:
    from leukokit.pipeline import Pipeline

    smear = Pipeline().read(SMEAR)
    expected = Pipeline().detect(smear)
    expected = expected[expected.kinds == LEUKOCYTE]
    (found,) = DetrDetector().detect([smear])
    assert (found.kinds == LEUKOCYTE).all()
    met = partners(found.boxes, found.scores, expected.boxes)
    assert np.unique(met[met >= 0]).size >= 0.7 * len(expected)
