"""The engine ``openvino``: Intel's library, fast on Intel CPUs and the first choice for int8 networks."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from leukokit.engines.base import Array, Engine, Model, Network, check_inputs, checked
from leukokit.engines.cpu import avx_problem, cores
from leukokit.engines.onnx_file import Port
from leukokit.errors import ConfigError, WeightsError, cause_of

CACHE: Final = "LEUKOKIT_OPENVINO_CACHE"
"""Environment variable that names a folder for compiled networks, which then start faster. Whoever can write
to that folder decides what runs: without the variable nothing is kept."""


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU, in full precision also where the CPU could compute with 16 bits."""

    name = "openvino"
    version = "1.0"
    summary = "OpenVINO, for Intel CPUs"
    library = "openvino"

    @classmethod
    def problem(cls, device: str) -> str:
        """Why it cannot run here; see ``Engine.problem``."""
        if device != "cpu":
            return "runs on the CPU only; --device cpu, or --engine torch"
        if importlib.util.find_spec("openvino") is None:
            return "not installed; pip install 'leukokit[openvino]'"
        return avx_problem()

    def load(self, model: Model, device: str, threads: int) -> Network:
        """A compiled network; see ``Engine.load``.

        Raises:
            ConfigError: the cache folder that the environment names cannot be written to.
        """
        stored, ports = _read(model)
        settings: dict[str, Any] = {
            # On CPUs with bfloat16 it would be chosen otherwise, and counts would differ.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads or cores(),
            "NUM_STREAMS": 1,
            **_cache(),
        }
        try:
            import openvino

            core = openvino.Core()
            compiled = core.compile_model(core.read_model(*stored), "CPU", settings)
        except Exception as error:
            # It raises classes that share no public base.
            raise WeightsError(f"{model.graph}: openvino cannot run it ({cause_of(error)[:200]})") from error
        return _Compiled(self, model, device, threads, ports, compiled)


def _read(model: Model) -> tuple[tuple[bytes, bytes], tuple[Port, ...]]:
    """A graph and its weights in memory; of OpenVINO's own files, an ``.xml`` beside a ``.bin``.

    Raises:
        WeightsError: a file cannot be read, or is another than its card says.
    """
    if model.graph is None or model.graph.suffix != ".xml":
        graph = model.read_graph()
        return (graph.data, b""), graph.inputs
    try:
        text, values = model.graph.read_bytes(), model.graph.with_suffix(".bin").read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{model.graph}: cannot be read with its .bin ({error.strerror}); keep the two together"
        ) from error
    for file, data, expected in (
        (model.graph, text, model.graph_sha256),
        (model.graph.with_suffix(".bin"), values, model.values_sha256),
    ):
        if expected and hashlib.sha256(data).hexdigest() != expected:
            raise WeightsError(f"{file}: SHA-256 is not the card's; export it again")
    return (text, values), ()


def _cache() -> dict[str, str]:
    named = os.environ.get(CACHE)
    if not named:
        return {}
    folder = Path(named)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{CACHE}: {folder} cannot be made ({error.strerror}); name another folder"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{CACHE}: {folder} cannot be written to; name another folder")
    return {"CACHE_DIR": str(folder)}


class _Compiled(Network):
    def __init__(
        self, engine: Engine, model: Model, device: str, threads: int, inputs: Sequence[Port], compiled: Any
    ) -> None:
        super().__init__(engine, model, device, threads)
        self.inputs, self.process = inputs, os.getpid()
        # A separate request: several pipelines may run at once.
        self.request = compiled.create_infer_request()
        self.ports = {name: compiled.output(name) for name in model.outputs}

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self.process != os.getpid():
            raise WeightsError(
                "openvino does not work in a forked process; start it with the method 'spawn', "
                "or use --engine onnxruntime"
            )
        check_inputs(self.model, self.inputs, inputs)
        try:
            found = self.request.infer(dict(inputs))
        except Exception as error:
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            reason = cause_of(error)[:200]
            raise WeightsError(
                f"{self.model.graph}: the network does not take {shapes} ({reason})"
            ) from error
        # Its memory is used again by the next call.
        return checked(self.model, {name: found[port].copy() for name, port in self.ports.items()})
