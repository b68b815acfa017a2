from pathlib import Path

import numpy as np
import pytest
import torch
from leukokit.errors import WeightsError

from leukokit_classic.sift_cnn import SiftCnn, SiftCnnClassifier
from leukokit_classic.sift_words import LENGTH, WORDS, fit_words, histogram, load_words, save_words, sift


def _grain(seed: int, side: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_descriptors_have_length_one_and_a_plain_crop_has_none() -> None:
    found = sift(_grain(0))
    assert found.shape[1] == LENGTH and len(found) > 5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    assert sift(np.full((80, 80, 3), 200, np.uint8)).shape == (0, LENGTH)


def test_keypoints_outside_the_middle_do_not_count() -> None:
    corner, middle = np.full((2, 80, 80, 3), 200, np.uint8)
    corner[:14, :14] = middle[33:47, 33:47] = _grain(1, 14)
    assert len(sift(corner)) == 0 < len(sift(middle))


def test_a_histogram_counts_nearest_words() -> None:
    words = np.eye(WORDS, LENGTH, dtype=np.float32)
    bag = histogram(words[[3, 3, 3, 7]] * 0.9, words)
    assert bag[3] == pytest.approx(0.75**0.5) and bag[7] == pytest.approx(0.5)
    assert np.linalg.norm(bag) == pytest.approx(1)
    assert not histogram(np.empty((0, LENGTH), np.float32), words).any()


def test_words_are_fitted_stored_and_read(tmp_path: Path) -> None:
    words = fit_words([_grain(seed) for seed in range(8)])
    save_words(words, tmp_path / "words.safetensors")
    assert np.array_equal(load_words(tmp_path / "words.safetensors"), words)
    with pytest.raises(WeightsError, match="not readable"):
        load_words(tmp_path / "absent.safetensors")


def test_training_begins_with_the_shipped_words() -> None:
    network = SiftCnnClassifier.new_network(5)
    SiftCnnClassifier.initialize(network, np.zeros((1, 64), np.float32))
    assert np.array_equal(network.words.numpy(), load_words())
    assert "words" not in dict(network.named_parameters())


def test_the_answer_depends_on_the_words() -> None:
    torch.manual_seed(0)
    network = SiftCnn(5).eval()
    crops = torch.from_numpy(np.stack([_grain(0), _grain(1)])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        SiftCnnClassifier.initialize(network, np.zeros((1, 64), np.float32))
        first = network(crops)
        network.words.copy_(network.words.flip(0))
        second = network(crops)
    assert first.shape == (2, 5)
    assert not torch.allclose(first, second, atol=1e-4)
