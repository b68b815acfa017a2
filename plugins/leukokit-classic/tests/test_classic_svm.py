from pathlib import Path

import numpy as np
import pytest
from leukokit.errors import WeightsError
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from leukokit_classic.features import NAMES, features, regions
from leukokit_classic.svm import SupportVectorMachine

COVER = 1.3


def _fitted(classes: int) -> tuple[StandardScaler, SVC, np.ndarray]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 300)
    table = rng.normal(size=(300, 12)) * 3 + rng.normal(size=(classes, 12))[labels] * 4 + 50
    scaler = StandardScaler().fit(table)
    machine = SVC(C=5, gamma=0.05, decision_function_shape="ovr").fit(scaler.transform(table), labels)
    return scaler, machine, rng.normal(size=(80, 12)) * 4 + 50


@pytest.mark.parametrize("classes", [3, 5, 6])
def test_decisions_are_those_of_scikit_learn(classes: int) -> None:
    scaler, machine, table = _fitted(classes)
    stored = SupportVectorMachine.of(scaler, machine)
    scaled = scaler.transform(table)
    assert np.allclose(stored.decision(table), machine.decision_function(scaled), atol=1e-3)
    machine.set_params(decision_function_shape="ovo")
    assert np.allclose(stored.pairwise(table), machine.decision_function(scaled), atol=1e-3)


def test_a_stored_machine_decides_as_before(tmp_path: Path) -> None:
    scaler, machine, table = _fitted(4)
    stored = SupportVectorMachine.of(scaler, machine)
    stored.save(tmp_path / "machine.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["machine.safetensors"]
    again = SupportVectorMachine.load(tmp_path / "machine.safetensors")
    assert np.array_equal(again.decision(table), stored.decision(table))


def test_other_files_are_refused_in_a_line(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    for content in ({"words": np.zeros((2, 3), np.float32)}, {}):
        save_file(content, path)
        with pytest.raises(WeightsError, match="no support vector machine"):
            SupportVectorMachine.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="not readable"):
        SupportVectorMachine.load(path)


def _crop(*lobes: tuple[int, int, int]) -> np.ndarray:
    """A leukocyte of 96 px: pale cytoplasm, and discs (x, y, radius) of nucleus."""
    y, x = np.mgrid[:96, :96]
    crop = np.full((96, 96, 3), 240, np.uint8)
    crop[(x - 47.5) ** 2 + (y - 47.5) ** 2 < 35**2] = (205, 170, 205)
    for left, top, radius in lobes:
        crop[(x - left) ** 2 + (y - top) ** 2 < radius**2] = (100, 50, 140)
    return crop


def _named(crop: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, features(crop, COVER).tolist(), strict=True))


def test_nucleus_and_cytoplasm_are_parted() -> None:
    nucleus, cytoplasm, _ = regions(_crop((48, 48, 20)), COVER)
    assert nucleus.sum() == pytest.approx(np.pi * 20**2, rel=0.08)
    assert cytoplasm.sum() == pytest.approx(np.pi * (35**2 - 20**2), rel=0.08)
    assert not (nucleus & cytoplasm).any()


def test_shapes_tell_a_round_nucleus_from_three_lobes() -> None:
    round_one = _named(_crop((48, 48, 22)))
    lobed = _named(_crop((34, 40, 10), (62, 40, 10), (48, 66, 10)))
    assert (round_one["lobes"], lobed["lobes"]) == (1, 3)
    assert round_one["solidity"] > 0.95 > 0.8 > lobed["solidity"]
    assert round_one["compactness"] > 0.8 > lobed["compactness"]
    assert round_one["eccentricity"] < 0.2
    assert round_one["nucleus share"] > lobed["nucleus share"]


def test_colours_are_those_of_the_regions() -> None:
    found = _named(_crop((48, 48, 20)))
    assert found["mean R nucleus"] == pytest.approx(100 / 255, abs=0.03)
    assert found["mean R cytoplasm"] == pytest.approx(205 / 255, abs=0.03)


def test_grain_is_texture() -> None:
    plain, grainy = _crop((48, 48, 24)), _crop((48, 48, 24))
    rng = np.random.default_rng(0)
    spots = rng.random((96, 96)) < 0.5
    nucleus = (plain == (100, 50, 140)).all(axis=2)
    grainy[spots & nucleus] = (140, 110, 180)
    assert _named(grainy)["contrast 1 nucleus"] > _named(plain)["contrast 1 nucleus"] + 1
    assert _named(grainy)["energy 1 nucleus"] < _named(plain)["energy 1 nucleus"]


@pytest.mark.parametrize("grey", [0, 128, 240, 255])
def test_a_crop_of_one_colour_has_finite_features(grey: int) -> None:
    found = features(np.full((96, 96, 3), grey, np.uint8), COVER)
    assert found.shape == (len(NAMES),) and np.isfinite(found).all()


def test_features_do_not_depend_on_how_the_cell_lies() -> None:
    crop = _crop((34, 40, 12), (62, 44, 10))
    turned = np.ascontiguousarray(np.rot90(crop))
    assert np.allclose(features(crop, COVER), features(turned, COVER), atol=1e-3)
