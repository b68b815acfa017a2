"""A YOLO network exported to ONNX, run by onnxruntime."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leukokit.detectors.yolo.anchors import to_corners
from leukokit.errors import WeightsError


class OnnxNetwork:
    """An ONNX file with ultralytics' layout: input (B, 3, H, W) in 0..1, output (B, 4 + K, A).

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
            raise WeightsError(f"{path}: not readable as ONNX ({str(error).splitlines()[0]})") from error
        self.input = self.session.get_inputs()[0]
        shape = self.input.shape
        if len(shape) != 4 or shape[1] != 3 or len(self.session.get_outputs()[0].shape) != 3:
            raise WeightsError(f"{path}: not a YOLO detection network (input {shape})")
        self.fixed = tuple(side if isinstance(side, int) else None for side in shape)
        metadata = self.session.get_modelmeta().custom_metadata_map
        try:
            names = ast.literal_eval(metadata["names"])
            self.class_names = [str(names[number]) for number in sorted(names)]
        except (KeyError, ValueError, SyntaxError, TypeError) as error:
            raise WeightsError(
                f"{path}: its metadata has no class 'names'; export it with ultralytics"
            ) from error

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network; a network of fixed size sees each picture padded to it, one by one if it must.

        Raises:
            WeightsError: a picture is larger than the network's fixed size.
        """
        count, height, width = pictures.shape[:3]
        fixed_batch, _, fixed_height, fixed_width = self.fixed
        padded_height, padded_width = fixed_height or height, fixed_width or width
        if height > padded_height or width > padded_width:
            limit = min(padded_height, padded_width)
            raise WeightsError(
                f"the ONNX network takes {limit} px at most; set --set detector.tile_px={limit}"
            )
        padding = ((0, 0), (0, padded_height - height), (0, padded_width - width), (0, 0))
        batch = np.pad(pictures, padding, constant_values=240).transpose(0, 3, 1, 2).astype(np.float32) / 255
        step = fixed_batch or count
        if count % step:
            batch = np.concatenate([batch, np.zeros((step - count % step, *batch.shape[1:]), np.float32)])
        outputs = [
            self.session.run(None, {self.input.name: batch[start : start + step]})[0]
            for start in range(0, len(batch), step)
        ]
        return to_corners(np.concatenate(outputs)[:count])
