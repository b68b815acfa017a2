"""The engines on ONNX Runtime: ``onnxruntime`` on CPUs and CUDA, ``tensorrt`` on NVIDIA's compiler."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from leukokit.engines.base import Array, Engine, Model, Network, checked
from leukokit.engines.cpu import avx_problem, cores
from leukokit.errors import WeightsError, cause_of

QUIET: Final = 4
"""ONNX Runtime's log level that lets fatal errors through; what matters is raised."""


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime: full precision on the CPU, the default there; CUDA with ``onnxruntime-gpu``."""

    name = "onnxruntime"
    version = "1.0"
    summary = "ONNX Runtime, the default on a CPU"
    library = "onnxruntime"
    devices = ("cpu", "cuda")
    gpu_provider: ClassVar[str] = "CUDAExecutionProvider"

    @classmethod
    def problem(cls, device: str) -> str:
        """Why it cannot run here; see ``Engine.problem``."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "not installed; pip install onnxruntime"
        if problem := avx_problem():
            return problem
        if device == "cpu":
            return "" if "cpu" in cls.devices else "runs on NVIDIA GPUs only; --device cuda"
        import onnxruntime

        if cls.gpu_provider not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {cls.gpu_provider}; pip install 'leukokit[gpu]', or --device cpu"
        return ""

    def load(self, model: Model, device: str, threads: int) -> Network:
        """A session on exactly the device that was asked for; see ``Engine.load``."""
        graph = model.read_graph()
        try:
            import onnxruntime
        except Exception as error:
            # A broken installation fails in many ways.
            raise WeightsError(f"engine '{self.name}': does not import ({cause_of(error)})") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = threads or cores()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the cores from whatever else runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = self._provider(device)
        try:
            session = onnxruntime.InferenceSession(graph.data, options, providers=[wanted])
        except Exception as error:
            # It raises classes that share no public base.
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{model.graph}: {self.name} cannot run it ({reason})") from error
        name = wanted if isinstance(wanted, str) else wanted[0]
        if session.get_providers()[0] != name:
            raise WeightsError(
                f"{model.graph}: {self.name} fell back from {name} to {session.get_providers()[0]}; "
                "mend its CUDA installation, or use --device cpu"
            )
        return _Session(model, session)

    def _provider(self, device: str) -> str | tuple[str, dict[str, Any]]:
        if device == "cpu":
            return "CPUExecutionProvider"
        number = int(device.partition(":")[2] or 0)
        # All 24 bits of a float, as on the CPU: counts must not differ.
        exact = {"use_tf32": 0} if self.gpu_provider == "CUDAExecutionProvider" else {}
        return self.gpu_provider, {"device_id": number, **exact}


class TensorRtEngine(OnnxRuntimeEngine):
    """NVIDIA TensorRT through ONNX Runtime: compiles the network for the GPU, which takes minutes."""

    name = "tensorrt"
    version = "1.0"
    summary = "TensorRT through ONNX Runtime, for NVIDIA GPUs"
    library = "onnxruntime-gpu"
    devices = ("cuda",)
    gpu_provider = "TensorrtExecutionProvider"


class _Session:
    def __init__(self, model: Model, session: Any) -> None:
        self.model, self.session = model, session

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            found = self.session.run(list(self.model.outputs), dict(inputs))
        except Exception as error:
            if "Failed to allocate memory" in str(error):
                raise MemoryError(f"{self.model.weights}: not enough memory for this input") from error
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{self.model.graph}: the network does not take {shapes} ({reason})") from error
        return checked(self.model, dict(zip(self.model.outputs, found, strict=True)))
