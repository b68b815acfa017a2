"""The YOLO network, whatever file it comes from, behind one call: pictures in, boxes and scores out.

Three kinds of file are read: safetensors with a card (ours), ONNX (run by onnxruntime), and, only where
the user trusts its origin, an ultralytics ``.pt``, which is a pickle and may run any code.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import yaml

from leukokit import weights
from leukokit.detectors.yolo.anchors import to_corners
from leukokit.errors import WeightsError
from leukokit.taxonomy import KINDS, kind_of
from leukokit.weights.files import load_weights


class Network(Protocol):
    """Pictures, uint8 (B, H, W, 3) RGB with sides divisible by 32, to float32 (B, A, 4 + K).

    Each of the A anchors gives a box, xyxy in pixels of the picture, and K class scores in 0..1.
    """

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network."""


@dataclass(frozen=True, slots=True)
class YoloModel:
    """A network ready to run, and what is known of it.

    ``kinds`` maps the network's classes to positions in ``taxonomy.KINDS``; diameters are in pixels of
    the picture it is shown; ``sha256`` is the weight file's.
    """

    network: Network
    kinds: npt.NDArray[np.int64]
    cell_diameter_px: float
    diameter_range_px: tuple[float, float]
    confidence: float
    name: str
    sha256: str


def quiet_ultralytics() -> None:
    """Switch off ultralytics' telemetry, package installation, network probe, log and settings file.

    Must run before its first import: it reads the environment once.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    # Its settings file is of no use here: it goes where nobody's home or run folder is touched.
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())


def load_yolo(path: Path, device: str, trust_pickle: bool) -> YoloModel:
    """Load weights by the kind of their file.

    Raises:
        WeightsError: missing, damaged or foreign file, unknown classes, or a pickle that is not trusted.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _from_safetensors(path, device)
    if suffix == ".onnx":
        from leukokit.detectors.yolo.onnx import OnnxNetwork

        onnx = OnnxNetwork(path, device)
        return _foreign(path, onnx, onnx.class_names)
    if suffix == ".pt":
        if not trust_pickle:
            raise WeightsError(
                f"{path}: a .pt file is a pickle, which can run any code; --trust-pickle if you trust it"
            )
        return _from_pickle(path, device)
    raise WeightsError(f"{path}: weights must be .safetensors with a card, .onnx or .pt")


def layout_of(architecture: str) -> dict[str, Any]:
    """The layers of an ultralytics architecture, e.g. ``yolo11n``, as its own package describes them.

    Asked by name, ultralytics takes a file of that name from the working directory first, and evaluates what
    is written in it.

    Raises:
        WeightsError: ultralytics knows no such architecture.
    """
    quiet_ultralytics()
    from ultralytics.nn.tasks import guess_model_scale
    from ultralytics.utils import ROOT

    # One file describes all sizes: yolo11.yaml those of yolo11n and of yolo11x.
    family = re.sub(r"(\d)[nslmx](?=-|$)", r"\1", architecture)
    known = {path.stem: path for path in (ROOT / "cfg" / "models").rglob("*.yaml")}
    path = known.get(architecture) or known.get(family)
    if path is None:
        raise WeightsError(f"'{architecture}': no such ultralytics detection architecture")
    layout: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    scale = guess_model_scale(architecture)  # type: ignore[no-untyped-call]  # ultralytics is untyped
    return layout | {"scale": scale, "yaml_file": f"{architecture}.yaml"}


def build_network(architecture: str, kinds: int = len(KINDS)) -> Any:
    """An untrained ultralytics ``DetectionModel`` of that name, e.g. ``yolo11n``.

    Raises:
        WeightsError: ultralytics knows no such architecture.
    """
    layout = layout_of(architecture)
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(layout, nc=kinds, verbose=False)  # type: ignore[no-untyped-call]


class TorchNetwork:
    """An ultralytics detection module on a torch device, in full precision, so that all count the same."""

    def __init__(self, module: Any, device: str) -> None:
        import torch

        module = module.float().eval().fuse(verbose=False).to(device, memory_format=torch.channels_last)
        head = module.model[-1]
        # The end-to-end heads of newer architectures keep at most 300 cells, silently.
        head.end2end = False
        for layer in module.modules():
            # A copy of every map for its activation costs a fifth of the time on a CPU.
            if isinstance(layer, torch.nn.SiLU):
                layer.inplace = True
        self.module, self.device = module, device

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network; see ``Network``."""
        import torch

        batch = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            output = self.module(batch.float() / 255)
        return to_corners((output[0] if isinstance(output, tuple) else output).cpu().numpy())


def _from_safetensors(path: Path, device: str) -> YoloModel:
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


def _from_pickle(path: Path, device: str) -> YoloModel:
    quiet_ultralytics()
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        module = checkpoint.get("ema") or checkpoint["model"]
        names = module.names
    except Exception as error:
        # Unpickling runs foreign code, which may raise anything.
        raise WeightsError(
            f"{path}: not an ultralytics checkpoint ({type(error).__name__}: {error})"
        ) from error
    ordered = [str(names[number]) for number in sorted(names)] if isinstance(names, dict) else list(names)
    return _foreign(path, TorchNetwork(module, device), ordered)


def _foreign(path: Path, network: Network, class_names: list[str]) -> YoloModel:
    # Nothing is known of the sizes such a network was trained on: the range is what YOLO's strides allow.
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
