"""A YOLO network exported to ONNX, run by onnxruntime."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from leukokit._text import one_line
from leukokit.detectors.yolo.network import to_corners
from leukokit.errors import WeightsError

PADDING_GREY: Final = 240
LARGEST_SIDE: Final = 8192
"""Largest fixed side, in pixels, of a network that is accepted."""
_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork:
    """An ONNX file as ultralytics exports it: input (B, 3, H, W) in 0..1, output (B, 4 + K, A).

    Attributes:
        class_names: names of the K classes.

    Raises:
        WeightsError: onnxruntime is missing, or the file is not such a network.
    """

    def __init__(self, path: Path, device: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise WeightsError(f"{path}: needs onnxruntime; pip install 'leukokit[onnx]'") from error
        providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            available = set(onnxruntime.get_available_providers())
            chosen = [name for name in providers if name in available]
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=[*chosen, "CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime raises classes of its own that share no public base.
            raise WeightsError(f"{path}: not readable as ONNX ({_first_line(error)})") from error
        self.path = path
        self.input = self.session.get_inputs()[0]
        shape, outputs = self.input.shape, self.session.get_outputs()
        if (
            len(self.session.get_inputs()) != 1
            or self.input.type not in _TYPES
            or len(shape) != 4
            or shape[1] != 3
            or len(outputs[0].shape) != 3
        ):
            raise WeightsError(f"{path}: not a YOLO detection network (input {shape}, {self.input.type})")
        self.fixed = tuple(side if isinstance(side, int) else None for side in shape)
        if any(not 1 <= side <= LARGEST_SIDE for side in self.fixed if side is not None):
            raise WeightsError(
                f"{path}: input {shape} is too large; export it with at most {LARGEST_SIDE} px"
            )
        self.class_names = self._class_names()

    def _class_names(self) -> list[str]:
        metadata = self.session.get_modelmeta().custom_metadata_map
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
        padded = np.pad(pictures, padding, constant_values=PADDING_GREY).transpose(0, 3, 1, 2)
        batch = (padded.astype(np.float32) / 255).astype(_TYPES[self.input.type])
        step = fixed_batch or count
        if count % step:
            batch = np.concatenate([batch, np.zeros((step - count % step, *batch.shape[1:]), batch.dtype)])
        outputs = [self._run(batch[start : start + step]) for start in range(0, len(batch), step)]
        return to_corners(np.concatenate(outputs)[:count])

    def _run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            output = np.asarray(self.session.run(None, {self.input.name: batch})[0], np.float32)
        except Exception as error:
            # See above.
            raise WeightsError(f"{self.path}: the network fails ({_first_line(error)})") from error
        if output.ndim != 3 or output.shape[0] != len(batch):
            raise WeightsError(f"{self.path}: not a YOLO detection network (output {output.shape})")
        return output


def _first_line(error: Exception) -> str:
    return one_line((str(error).splitlines() or [type(error).__name__])[0])[:200]
