"""What can be exported: the networks of detectors and classifiers, with their cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leukokit import weights
from leukokit.classifiers.hybrid import HybridClassifier
from leukokit.classifiers.neural import CropClassifier, NeuralParams
from leukokit.engines.export import Exportable
from leukokit.errors import ConfigError, WeightsError
from leukokit.images.standardize import standardize
from leukokit.registry import classifiers
from leukokit.synthetic.smear import draw_smear
from leukokit.taxonomy import kind_of
from leukokit.weights import Card, ClassifierCard, DetectorCard

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Target:
    """A network to be exported.

    Attributes:
        path: its weight file.
        card: what its card will say, but for the hash.
        network: the network.
        samples: inputs on which the exported file must return what torch returns.
    """

    path: Path
    card: Card
    network: Exportable
    samples: tuple[Arrays, ...]


def detector_targets(path: Path, trust_pickle: bool) -> list[Target]:
    """The network of a detector's weights: safetensors with a card, or an ultralytics ``.pt``.

    Raises:
        WeightsError: missing, damaged, unknown classes, or a pickle that is not trusted.
    """
    from leukokit.detectors.yolo import torch_network

    if path.suffix == ".pt":
        if not trust_pickle:
            raise WeightsError(
                f"{path}: a .pt file is a pickle, which can run any code; --trust-pickle if you trust it"
            )
        names = torch_network.from_pickle(path)[1]
        kinds = [kind_of(name) for name in names]
        if None in kinds:
            raise WeightsError(f"{path}: classes {', '.join(names)} are not all kinds of blood cell")
        card = DetectorCard(
            name=path.stem,
            architecture="ultralytics",
            sha256="",
            kinds=[kind for kind in kinds if kind],
            cell_diameter_px=48.0,
            diameter_range_px=(16.0, 160.0),
        )
        network = torch_network.exportable(lambda: torch_network.from_pickle(path)[0])
    else:
        card = weights.read_card(path, DetectorCard)
        made = partial(torch_network.from_safetensors, path, card.architecture, len(card.kinds))
        network = torch_network.exportable(made)
    return [Target(path, card, network, _pictures())]


def classifier_targets(name: str, path: Path | None) -> list[Target]:
    """The networks of a classifier: one, or for a hybrid its graph network and its CNN.

    Args:
        name: of the plugin.
        path: weight file; None for the plugin's own.

    Raises:
        ConfigError: a classifier without such a network.  WeightsError: the weights do not fit.
    """
    from leukokit.classifiers.networks.modules import context_exportable, crop_exportable

    plugin = classifiers.get(name)
    if issubclass(plugin, CropClassifier):
        made = plugin(plugin.parse({} if path is None else {"weights": str(path)}))
        network = crop_exportable(plugin, made.path, made.card)
        return [Target(made.path, made.card, network, _crops(plugin, made.card))]
    if issubclass(plugin, HybridClassifier):
        hybrid = plugin(plugin.parse({} if path is None else {"weights": str(path)}))
        network = context_exportable(hybrid.path, hybrid.card)
        samples = tuple(_graph(network, count) for count in (1, 40))
        cnn = classifier_targets("cnn", hybrid.cnn_path)
        return [*cnn, Target(hybrid.path, hybrid.card, network, samples)]
    raise ConfigError(f"classifier '{name}' has no network that can be exported; name a CropClassifier")


def _pictures() -> tuple[Arrays, ...]:
    """Drawn smears of two shapes, standardised, sides divisible by 32."""
    fields = (draw_smear(3, 320, 256, 2, 44.0), draw_smear(4, 224, 320, 1, 44.0))
    return tuple({"pictures": standardize(field.image)[None]} for field in fields)


def _crops(plugin: type[CropClassifier[NeuralParams]], card: ClassifierCard) -> tuple[Arrays, ...]:
    rng = np.random.default_rng(0)
    side = card.crop_px
    image = standardize(draw_smear(5, 4 * side, 4 * side, 3, side / 2).image)
    parts = [image[y : y + side, x : x + side] for y in (0, side) for x in (0, side, 2 * side)]
    inputs: dict[str, npt.NDArray[Any]] = {"crops": np.stack(parts)}
    if plugin.takes_descriptors:
        inputs["descriptors"] = rng.normal(size=(len(parts), 64)).astype(np.float32)
    return (inputs,)


def _graph(network: Exportable, cells: int) -> Arrays:
    """Random features and links of so many cells."""
    rng = np.random.default_rng(cells)
    edges = rng.integers(0, cells, (2, 6 * (cells - 1)))
    sizes = {one.name: one.value.shape[-1] for one in network.inputs}
    return {
        "features": rng.normal(size=(cells, sizes["features"])).astype(np.float32),
        "embeddings": rng.normal(size=(cells, sizes["embeddings"])).astype(np.float32),
        "edges": edges,
        "edge_features": rng.normal(size=(edges.shape[1], sizes["edge_features"])).astype(np.float32),
    }
