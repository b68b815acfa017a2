"""Which engine runs a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from leukokit.engines.base import Engine, Model, Network
from leukokit.errors import ConfigError

AUTO: Final = "auto"
"""What a user writes for the best engine that is installed."""


@dataclass(frozen=True, slots=True)
class EngineRow:
    """A line of ``leukokit doctor``.

    Attributes:
        name: the engine's.
        version: of its library; empty where it is not installed.
        devices: where it can be used here.
        problem: why it cannot be used at all; empty where it can.
    """

    name: str
    version: str
    devices: tuple[str, ...]
    problem: str


def require_engine(engine: type[Engine], device: str) -> None:
    """Refuse an engine that cannot run here, before any work is done.

    Raises:
        ConfigError: it cannot run on the device; one line that says why.
    """
    if problem := _problem(engine, device):
        raise ConfigError(f"engine '{engine.name}': {problem}")


def choose_engine(model: Model, device: str) -> type[Engine]:
    """Return the engine that ``auto`` stands for.

    That is ONNX Runtime for a model with a graph on a CPU, and torch otherwise. A foreign ONNX file, which
    torch cannot run, is ONNX Runtime's on every device.
    """
    from leukokit.engines.onnxruntime import OnnxRuntimeEngine
    from leukokit.engines.openvino import OpenVinoEngine
    from leukokit.engines.torch import TorchEngine

    if model.graph is not None and model.graph.suffix == ".xml":
        return OpenVinoEngine
    if model.module is None:
        return OnnxRuntimeEngine
    if device == "cpu" and model.graph is not None and not _problem(OnnxRuntimeEngine, device):
        return OnnxRuntimeEngine
    return TorchEngine


def load(model: Model, engine: type[Engine] | None = None, device: str = "cpu", threads: int = 0) -> Network:
    """Return a network ready to run.

    Args:
        model: the network.
        engine: None for the one that ``choose_engine`` finds.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: that a call may use on a CPU; 0 for all cores.

    Raises:
        ConfigError: the engine cannot run here.
        WeightsError: it cannot run this network.
    """
    engine = engine or choose_engine(model, device)
    require_engine(engine, device)
    return engine().load(model, device, threads)


def list_engines(engines: Iterable[type[Engine]], devices: Iterable[str]) -> list[EngineRow]:
    """Return a row per engine, with the devices of those here that it can be used on."""
    found = []
    for engine in engines:
        problems = {device: _problem(engine, device) for device in devices}
        usable = tuple(device for device, problem in problems.items() if not problem)
        problem = "" if usable else next(iter(problems.values()))
        found.append(EngineRow(engine.name, engine.library_version(), usable, problem))
    return found


def _problem(engine: type[Engine], device: str) -> str:
    kind = device.partition(":")[0]
    if kind not in engine.devices:
        return f"does not run on {kind}; it runs on {', '.join(engine.devices)}"
    return engine.problem(device)
