"""Weights of a detector, loaded by the kind of their file.

Three kinds are read: safetensors with a card (leukokit's own), ONNX (run by onnxruntime), and, only where the
user trusts its origin, an ultralytics ``.pt``, which is a pickle and may run any code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from leukokit import weights
from leukokit.detectors.yolo.network import Network, TorchNetwork, YoloModel, build_network, quiet_ultralytics
from leukokit.errors import WeightsError, cause_of
from leukokit.taxonomy import KINDS, kind_of
from leukokit.weights.files import load_weights


def load_yolo(path: Path, device: str, trust_pickle: bool) -> YoloModel:
    """Load a network with its properties.

    Args:
        path: a ``.safetensors`` file beside its card, an ``.onnx`` or a ``.pt`` file.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        trust_pickle: whether a ``.pt`` file may be read.

    Raises:
        WeightsError: missing, damaged or foreign file, unknown classes, or a pickle that is not trusted.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _load_safetensors(path, device)
    if suffix == ".onnx":
        from leukokit.detectors.yolo.onnx import OnnxNetwork

        onnx = OnnxNetwork(path, device)
        return _without_card(path, onnx, onnx.class_names)
    if suffix == ".pt":
        if not trust_pickle:
            raise WeightsError(
                f"{path}: a .pt file is a pickle, which can run any code; --trust-pickle if you trust it"
            )
        return _load_pickle(path, device)
    raise WeightsError(f"{path}: weights must be .safetensors with a card, .onnx or .pt")


def _load_safetensors(path: Path, device: str) -> YoloModel:
    card = weights.read_card(path, weights.DetectorCard)
    module = build_network(card.architecture, len(card.kinds))
    load_weights(module, path)
    return YoloModel(
        network=TorchNetwork(module, device),
        kinds=_kinds_of(path, card.kinds),
        cell_diameter_px=card.cell_diameter_px,
        diameter_range_px=card.diameter_range_px,
        confidence=card.confidence,
        name=card.name,
        sha256=card.sha256,
    )


def _load_pickle(path: Path, device: str) -> YoloModel:
    quiet_ultralytics()
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        module = checkpoint.get("ema") or checkpoint["model"]
        names = module.names
    except Exception as error:
        # Unpickling runs foreign code, which may raise anything.
        raise WeightsError(f"{path}: not an ultralytics checkpoint ({cause_of(error)})") from error
    ordered = [str(names[number]) for number in sorted(names)] if isinstance(names, dict) else list(names)
    return _without_card(path, TorchNetwork(module, device), ordered)


def _without_card(path: Path, network: Network, class_names: list[str]) -> YoloModel:
    # The sizes that such a network was trained on are not known: the range is what YOLO's strides allow.
    return YoloModel(
        network=network,
        kinds=_kinds_of(path, class_names),
        cell_diameter_px=48.0,
        diameter_range_px=(16.0, 160.0),
        confidence=0.25,
        name=path.stem,
        sha256=weights.sha256_of(path),
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
