"""The engines on ONNX Runtime: ``onnxruntime`` on CPUs and CUDA, ``tensorrt`` on NVIDIA's compiler."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from weakref import WeakSet

from leukokit.engines.base import Array, Engine, Model, Network, check_inputs, checked
from leukokit.engines.cpu import avx_problem
from leukokit.errors import WeightsError

QUIET: Final = 4
"""ONNX Runtime's log level that lets fatal errors through; what matters is raised."""


_LIVE: Final = WeakSet[Any]()
"""Sessions of this process."""
_FORKED: Final[list[Any]] = []
"""Sessions of the process that this one was forked from; their end would wait for threads that are gone."""


def _keep_sessions() -> None:
    """In a forked process: let no session end, be it garbage already."""
    _FORKED.extend(_LIVE)
    _LIVE.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime: full precision on the CPU, the default there; CUDA with ``onnxruntime-gpu``."""

    name = "onnxruntime"
    version = "1.0"
    summary = "ONNX Runtime, the default on a CPU"
    library = "onnxruntime"
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    gpu_provider: ClassVar[str] = "CUDAExecutionProvider"

    @classmethod
    def problem(cls, device: str) -> str:
        """Why it cannot run here; see ``Engine.problem``."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "not installed; pip install onnxruntime"
        if problem := avx_problem():
            return problem
        if device == "cpu":
            return ""
        import onnxruntime

        if cls.gpu_provider not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {cls.gpu_provider}; pip install 'leukokit[gpu]', or --device cpu"
        return ""

    def load(self, model: Model, device: str, threads: int) -> Network:
        """A session on exactly the device that was asked for; see ``Engine.load``."""
        return _Session(self, model, device, threads, self._provider(device))

    def _provider(self, device: str) -> tuple[str, dict[str, Any]]:
        if device == "cpu":
            return "CPUExecutionProvider", {}
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


class _Session(Network):
    """A session, made again in a forked process, where the threads of the first are gone."""

    def __init__(
        self, engine: Engine, model: Model, device: str, threads: int, provider: tuple[str, dict[str, Any]]
    ) -> None:
        super().__init__(engine, model, device, threads)
        self.file, self.provider = model.read_graph(), provider
        self.session, self.process = self._start(self.threads), os.getpid()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self.process != os.getpid():
            self.session, self.process = self._start(1), os.getpid()
        check_inputs(self.model, self.file.inputs, inputs)
        try:
            found = self.session.run(list(self.model.outputs), dict(inputs))
        except Exception as error:
            # It raises classes that share no public base.
            if "Failed to allocate memory" in str(error):
                raise MemoryError(f"{self.model.weights}: not enough memory for this input") from error
            raise WeightsError(f"{self.model.graph}: the network fails ({_one_line(error)})") from error
        return checked(self.model, dict(zip(self.model.outputs, found, strict=True)))

    def _start(self, threads: int) -> Any:
        graph, (provider, settings) = self.model.graph, self.provider
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = QUIET
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            # Threads that spin while they wait take the cores from whatever else runs.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(self.file.data, options, providers=[(provider, settings)])
        except Exception as error:
            raise WeightsError(f"{graph}: onnxruntime cannot run it ({_one_line(error)})") from error
        _LIVE.add(session)
        if (used := session.get_providers()[0]) != provider:
            raise WeightsError(
                f"{graph}: onnxruntime fell back from {provider} to {used}; "
                "mend its CUDA installation, or use --device cpu"
            )
        return session


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
