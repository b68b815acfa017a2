"""Weights of a detector, loaded by the kind of their file.

Three kinds are read: safetensors with a card (leukokit's own, with their ONNX graph where they have one),
ONNX, and, only where the user trusts its origin, an ultralytics ``.pt``, which is a pickle and may run any
code. An engine runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leukokit import weights
from leukokit.detectors.yolo.network import DetectionNetwork, EngineNetwork, YoloModel
from leukokit.engines.base import Engine, Model, Network
from leukokit.engines.choose import load
from leukokit.errors import WeightsError
from leukokit.taxonomy import KINDS, kind_of

YOLO_INPUTS: Final = ("pictures",)
YOLO_OUTPUTS: Final = ("anchors",)
CARDED: Final = (".safetensors", ".onnx", ".xml")
"""Suffixes of files that may lie beside a card; ``leukokit export`` writes the latter two."""


def load_yolo(
    path: Path, device: str, trust_pickle: bool, engine: type[Engine] | None = None, threads: int = 0
) -> YoloModel:
    """Load a network with its properties.

    Args:
        path: a ``.safetensors`` file beside its card, an ``.onnx`` or a ``.pt`` file.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        trust_pickle: whether a ``.pt`` file may be read.
        engine: what runs the network; None for the best that is installed.
        threads: that one call may use on a CPU; 0 for all cores.

    Raises:
        WeightsError: missing, damaged or foreign file, unknown classes, or a pickle that is not trusted.
        ConfigError: the engine cannot run here.
    """
    suffix = path.suffix.lower()
    start = partial(load, engine=engine, device=device, threads=threads)
    if suffix in CARDED and (suffix == ".safetensors" or path.with_suffix(".json").is_file()):
        return _load_with_card(path, start)
    if suffix == ".onnx":
        from leukokit.detectors.yolo.onnx import OnnxNetwork

        onnx = OnnxNetwork(path, start)
        return _without_card(path, onnx, onnx.class_names, onnx.run.engine)
    if suffix == ".pt":
        if not trust_pickle:
            raise WeightsError(
                f"{path}: a .pt file is a pickle, which can run any code; --trust-pickle if you trust it"
            )
        return _load_pickle(path, start)
    raise WeightsError(f"{path}: weights must be .safetensors with a card, .onnx or .pt")


def model_of(path: Path, card: weights.DetectorCard) -> Model:
    """Return what an engine needs to know of a weight file with a card."""
    if path.suffix != ".safetensors":
        return Model.exported(path, (card.sha256, card.onnx_sha256), YOLO_INPUTS, YOLO_OUTPUTS)
    module = partial(_yolo_module, path, card.architecture, len(card.kinds))
    return Model(path, YOLO_INPUTS, YOLO_OUTPUTS, weights.graph_of(path, card), card.onnx_sha256, module)


def _yolo_module(path: Path, architecture: str, kinds: int) -> Any:
    from leukokit.detectors.yolo import torch_network

    return torch_network.from_safetensors(path, architecture, kinds).for_speed()


def _load_with_card(path: Path, start: Callable[[Model], Network]) -> YoloModel:
    card = weights.read_card(path, weights.DetectorCard)
    call = start(model_of(path, card))
    return YoloModel(
        network=EngineNetwork(call),
        kinds=_kinds_of(path, card.kinds),
        cell_diameter_px=card.cell_diameter_px,
        diameter_range_px=card.diameter_range_px,
        confidence=card.confidence,
        name=card.name,
        sha256=card.sha256,
        engine=call.engine,
    )


def _load_pickle(path: Path, start: Callable[[Model], Network]) -> YoloModel:
    from leukokit.detectors.yolo import torch_network

    module, names = torch_network.from_pickle(path)
    model = Model(path, YOLO_INPUTS, YOLO_OUTPUTS, module=module.for_speed)
    call = start(model)
    return _without_card(path, EngineNetwork(call), names, call.engine)


def _without_card(path: Path, network: DetectionNetwork, class_names: list[str], engine: str) -> YoloModel:
    # The sizes that such a network was trained on are not known: the range is what YOLO's strides allow.
    return YoloModel(
        network=network,
        kinds=_kinds_of(path, class_names),
        cell_diameter_px=48.0,
        diameter_range_px=(16.0, 160.0),
        confidence=0.25,
        name=path.stem,
        sha256=weights.sha256_of(path),
        engine=engine,
    )


def _kinds_of(path: Path, class_names: list[str]) -> npt.NDArray[np.int64]:
    kinds = [kind_of(name) for name in class_names]
    unknown = [name for name, kind in zip(class_names, kinds, strict=True) if kind is None]
    if unknown or not kinds:
        raise WeightsError(
            f"{path}: classes {', '.join(unknown) or 'none'} are no kind of blood cell; "
            f"name them {', '.join(KINDS)} (or WBC, RBC, platelet)"
        )
    return np.array([KINDS.index(kind) for kind in kinds if kind is not None], dtype=np.int64)
