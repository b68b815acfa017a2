"""A YOLO network that ultralytics exported to ONNX."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leukokit.detectors.yolo.network import to_corners
from leukokit.engines.base import Model
from leukokit.engines.base import Network as EngineCall
from leukokit.engines.onnx_file import read_onnx
from leukokit.errors import WeightsError

PADDED_GREY: Final = 240
LARGEST_SIDE: Final = 8192
"""Largest fixed side, in pixels, of a network that is accepted."""
_FLOAT_TYPES: Final = {1: np.float32, 10: np.float16}
"""By ONNX's number of the type."""


class OnnxNetwork:
    """An ONNX file as ultralytics exports it: input (B, 3, H, W) in 0..1, output (B, 4 + K, A).

    Attributes:
        class_names: names of the K classes.

    Raises:
        WeightsError: the file is not such a network, or reaches beyond itself.
        ConfigError: the engine cannot run here.
    """

    def __init__(self, path: Path, start: Callable[[Model], EngineCall]) -> None:
        file = read_onnx(path)
        self.path, self.input, self.output = path, file.inputs[0], file.outputs[0]
        shape, known = self.input.shape, self.input.kind in _FLOAT_TYPES
        if len(file.inputs) != 1 or not known or len(shape) != 4 or shape[1] != 3:
            raise WeightsError(f"{path}: not a YOLO detection network (input {shape})")
        if len(self.output.shape) != 3:
            raise WeightsError(f"{path}: not a YOLO detection network (output {self.output.shape})")
        self.fixed = shape
        if any(not 1 <= side <= LARGEST_SIDE for side in self.fixed if side is not None):
            raise WeightsError(
                f"{path}: input {shape} is too large; export it with at most {LARGEST_SIDE} px"
            )
        self.class_names = self._class_names(file.metadata)
        self.run = start(Model(path, (self.input.name,), (self.output.name,), path, file.sha256))

    def _class_names(self, metadata: dict[str, str]) -> list[str]:
        try:
            names = ast.literal_eval(metadata["names"])
            return [str(names[number]) for number in sorted(names)]
        except (KeyError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise WeightsError(
                f"{self.path}: its metadata has no class 'names'; export it with ultralytics"
            ) from error

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network; one of fixed size gets each picture padded, one of fixed batch so many at once.

        Raises:
            WeightsError: a picture is larger than the network's fixed size, or the network fails.
        """
        count, height, width = pictures.shape[:3]
        fixed_batch, _, fixed_height, fixed_width = self.fixed
        padded_height, padded_width = fixed_height or height, fixed_width or width
        if height > padded_height or width > padded_width:
            largest = min(padded_height, padded_width)
            raise WeightsError(
                f"the ONNX network takes {largest} px at most; set --set detector.tile_px={largest}"
            )
        padding = ((0, 0), (0, padded_height - height), (0, padded_width - width), (0, 0))
        padded = np.pad(pictures, padding, constant_values=PADDED_GREY).transpose(0, 3, 1, 2)
        batch = (padded.astype(np.float32) / 255).astype(_FLOAT_TYPES[self.input.kind])
        step = fixed_batch or count
        if count % step:
            batch = np.concatenate([batch, np.zeros((step - count % step, *batch.shape[1:]), batch.dtype)])
        outputs = [self._run(batch[start : start + step]) for start in range(0, len(batch), step)]
        return to_corners(np.concatenate(outputs)[:count])

    def _run(self, batch: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        output = self.run({self.input.name: np.ascontiguousarray(batch)})[self.output.name]
        if output.ndim != 3 or output.shape[0] != len(batch):
            raise WeightsError(f"{self.path}: not a YOLO detection network (output {output.shape})")
        return np.asarray(output, np.float32)
