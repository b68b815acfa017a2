"""YOLO networks: pictures in, boxes and scores out."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import yaml

from leukokit.engines import base as engines
from leukokit.errors import WeightsError
from leukokit.taxonomy import KINDS

LARGEST_COORDINATE: Final = 1e6
"""Largest box coordinate, in pixels of the picture, that a working network gives."""


class DetectionNetwork(Protocol):
    """Pictures, uint8 (B, H, W, 3) RGB with sides divisible by 32, to float32 (B, A, 4 + K).

    Each of the A anchors has a box, xyxy in pixels of the picture, and K class scores in 0..1.
    """

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network."""


@dataclass(frozen=True, slots=True)
class YoloModel:
    """A network that is ready to run, and its properties.

    Attributes:
        network: the network.
        kinds: (K,) int64, position in ``taxonomy.KINDS`` of each of the network's classes.
        cell_diameter_px: erythrocyte diameter, in pixels of the picture, at which the network works best.
        diameter_range_px: smallest and largest diameter that it was trained on.
        confidence: its own confidence threshold.
        name: name of the weights.
        sha256: hexadecimal SHA-256 of the weight file.
        engine: name and version of what runs it.
    """

    network: DetectionNetwork
    kinds: npt.NDArray[np.int64]
    cell_diameter_px: float
    diameter_range_px: tuple[float, float]
    confidence: float
    name: str
    sha256: str
    engine: str = "torch"

    def run(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network and check its output; see ``Network``.

        Raises:
            WeightsError: the output has another shape, or holds values that no trained network gives: a
                field would be counted as empty.
        """
        outputs = np.asarray(self.network(pictures))
        columns = 4 + len(self.kinds)
        if outputs.ndim != 3 or outputs.shape[0] != len(pictures) or outputs.shape[2] != columns:
            raise WeightsError(
                f"weights '{self.name}': the output has the shape {outputs.shape}, not "
                f"({len(pictures)}, anchors, {columns}): box and {len(self.kinds)} scores; get other weights"
            )
        scores = outputs[..., 4:]
        valid = np.isfinite(outputs).all() and (np.abs(outputs[..., :4]) <= LARGEST_COORDINATE).all()
        if not valid or scores.min(initial=0.0) < -1e-3 or scores.max(initial=0.0) > 1 + 1e-3:
            raise WeightsError(
                f"weights '{self.name}': the output is not finite or out of range; the file is damaged or "
                "holds another kind of network; get the weights again"
            )
        return outputs


def to_corners(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return YOLO's (B, 4 + K, A) with centre, width and height as (B, A, 4 + K) with xyxy."""
    anchors = output.transpose(0, 2, 1).copy()
    half = anchors[..., 2:4] / 2
    anchors[..., 2:4] = anchors[..., :2] + half
    anchors[..., :2] -= half
    return anchors


def quiet_ultralytics() -> None:
    """Switch off ultralytics' telemetry, package installation, network probe, log and settings file.

    Must run before ultralytics is imported for the first time: it reads the environment once.

    Raises:
        WeightsError: there is no temporary folder for its settings file.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    if "YOLO_CONFIG_DIR" in os.environ:
        return
    # It insists on a settings file. A new folder that only this user can enter keeps it apart from the
    # user's own settings, and from files that another user of the machine may have prepared.
    try:
        folder = tempfile.mkdtemp(prefix="leukokit-")
    except OSError as error:
        raise WeightsError(
            f"no temporary folder can be written ({error.strerror}); set TMPDIR to a folder that can"
        ) from error
    os.environ["YOLO_CONFIG_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def layout_of(architecture: str) -> dict[str, Any]:
    """Return the layers of an ultralytics architecture, e.g. ``yolo11n``, from ultralytics' own package.

    Given a name, ultralytics itself would first read a file of that name in the working directory, and
    evaluate what is written there.

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
    """Return an untrained ultralytics ``DetectionModel`` by name, e.g. ``yolo11n``.

    Raises:
        WeightsError: ultralytics knows no such architecture.
    """
    layout = layout_of(architecture)
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(layout, nc=kinds, verbose=False)  # type: ignore[no-untyped-call]


class EngineNetwork:
    """A network on an engine, with inputs and outputs as ``torch_network.PictureModule``; see ``Network``."""

    def __init__(self, run: engines.Network) -> None:
        self.run = run

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network."""
        return to_corners(self.run({"pictures": np.ascontiguousarray(pictures)})["anchors"])
