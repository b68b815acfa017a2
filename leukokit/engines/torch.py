"""The engine ``torch``: the default on CUDA, and for weights that have no ONNX graph."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from leukokit.engines.base import Array, Engine, Model, Network, checked
from leukokit.errors import WeightsError


class TorchEngine(Engine):
    """PyTorch, in full precision."""

    name = "torch"
    version = "1.0"
    summary = "PyTorch, the default on CUDA and for weights without an ONNX graph"
    library = "torch"
    devices = ("cpu", "cuda")
    wants_graph = False

    @classmethod
    def problem(cls, device: str) -> str:
        """Why it cannot run here; see ``Engine.problem``."""
        if importlib.util.find_spec("torch") is None:
            return "not installed; pip install torch"
        return ""

    def load(self, model: Model, device: str, threads: int) -> Network:
        """The module on its device; see ``Engine.load``."""
        if model.module is None:
            raise WeightsError(
                f"{model.weights}: an ONNX file, which torch does not run; --engine onnxruntime"
            )
        import torch

        if threads and device == "cpu":
            torch.set_num_threads(threads)
        return _Module(self, model, device, threads, model.module().to(device))


class _Module(Network):
    def __init__(self, engine: Engine, model: Model, device: str, threads: int, module: Any) -> None:
        super().__init__(engine, model, device, threads)
        self.module = module

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        tensors = [torch.from_numpy(inputs[name]).to(self.device) for name in self.model.inputs]
        with torch.inference_mode():
            found = self.module(*tensors)
        parts = found if isinstance(found, tuple) else (found,)
        named = zip(self.model.outputs, parts, strict=True)
        return checked(self.model, {name: part.cpu().numpy() for name, part in named})
