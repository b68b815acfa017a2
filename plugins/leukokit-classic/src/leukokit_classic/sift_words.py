"""SIFT descriptors of crops as histograms of visual words (Lowe 2004; Csurka et al. 2004)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from leukokit.errors import WeightsError
from leukokit.images import RGBImage

from leukokit_classic.weights import FOLDER

Floats = npt.NDArray[np.float32]

WORDS: Final = 64
LENGTH: Final = 128
"""Values of a SIFT descriptor."""
CENTRE: Final = 0.45
"""Radius of the disc about a crop's middle whose keypoints count, in sides of the crop."""
CONTRAST: Final = 0.02
"""Least contrast of a keypoint; OpenCV's 0.04 leaves pale cells with hardly any."""
WORDS_FILE: Final = FOLDER / "sift-words.safetensors"


def sift(crop: RGBImage) -> Floats:
    """SIFT descriptors of a crop, (N, 128) float32 of length one; N may be 0.

    Args:
        crop: RGB uint8 (S, S, 3), the leukocyte in the middle.
    """
    side = crop.shape[0]
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), round(CENTRE * side), 255, -1)
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    finder = cv2.SIFT.create(contrastThreshold=CONTRAST)
    _, found = finder.detectAndCompute(grey, mask)
    if found is None or not len(found):
        return np.empty((0, LENGTH), np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, 1e-6), dtype=np.float32)


def histogram(descriptors: Floats, words: Floats) -> Floats:
    """How often each word is the nearest, (WORDS,) float32: square roots of shares; zero without descriptors.

    Args:
        descriptors: (N, 128).
        words: (WORDS, 128).
    """
    if not len(descriptors):
        return np.zeros(len(words), np.float32)
    distances = (words**2).sum(axis=1)[None, :] - 2 * descriptors @ words.T
    counts = np.bincount(distances.argmin(axis=1), minlength=len(words))
    return np.asarray(np.sqrt(counts / counts.sum()), dtype=np.float32)


def fit_words(crops: Iterable[RGBImage], seed: int = 0) -> Floats:
    """Words (WORDS, 128) float32: the centres of k-means on the descriptors of crops.

    Raises:
        ValueError: fewer descriptors than words.
    """
    from sklearn.cluster import MiniBatchKMeans

    descriptors = np.concatenate([sift(crop) for crop in crops])
    if len(descriptors) < WORDS:
        raise ValueError(f"{len(descriptors)} descriptors are too few for {WORDS} words")
    means = MiniBatchKMeans(WORDS, random_state=seed, n_init=3, batch_size=4096).fit(descriptors)
    return np.asarray(means.cluster_centers_, dtype=np.float32)


def save_words(words: Floats, path: Path) -> None:
    """Write words as safetensors, whole or not at all."""
    from safetensors.numpy import save_file

    partial = path.with_name(path.name + ".part")
    save_file({"words": np.ascontiguousarray(words, dtype=np.float32)}, partial)
    partial.replace(path)
    path.chmod(0o644)


def load_words(path: Path = WORDS_FILE) -> Floats:
    """Read words.

    Raises:
        WeightsError: missing or damaged file, or no words in it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        words = load_file(path).get("words", np.empty(0))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not readable as safetensors ({error})") from error
    if words.shape != (WORDS, LENGTH):
        raise WeightsError(
            f"{path}: no visual words; 'python -m leukokit_classic.train sift-words' makes them"
        )
    return np.asarray(words, dtype=np.float32)
