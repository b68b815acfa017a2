"""Which engine runs a network."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Final

from leukokit.engines.base import Engine, Model, Network
from leukokit.errors import ConfigError
from leukokit.registry import engines

AUTO: Final = "auto"
BUILT_IN: Final = {
    "onnxruntime": "leukokit.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "leukokit.engines.openvino:OpenVinoEngine",
    "tensorrt": "leukokit.engines.onnxruntime:TensorRtEngine",
    "torch": "leukokit.engines.torch:TorchEngine",
}
"""Found without a look at the installed packages' metadata, which takes longer than the import."""


@dataclass(frozen=True, slots=True)
class EngineRow:
    """A line of ``leukokit doctor``: an engine, its library's version, its use here, or why it has none."""

    name: str
    version: str
    use: str
    problem: str


def get_engine(name: str) -> type[Engine]:
    """An engine's class by its name.

    Raises:
        PluginError: unknown, or a plugin that is broken.
    """
    if name not in BUILT_IN:
        return engines.get(name)
    module, _, attribute = BUILT_IN[name].partition(":")
    found: type[Engine] = getattr(importlib.import_module(module), attribute)
    return found


def require_engine(name: str, device: str) -> None:
    """Refuse an engine that cannot run here, before any work is done.

    Raises:
        ConfigError: it cannot run on the device; one line that says why.  PluginError: unknown.
    """
    if name == AUTO:
        return
    engine = get_engine(name)
    kind = device.partition(":")[0]
    problem = engine.problem(device) if kind in engine.devices else f"does not run on {kind}"
    if problem:
        raise ConfigError(f"--engine {name}: {problem}")


def choose(name: str, device: str, model: Model) -> type[Engine]:
    """The engine that runs a model: the one named, or for ``auto`` the best that is here.

    ``auto`` is ONNX Runtime for a model with a graph on a CPU, and torch otherwise; a foreign ONNX file, which
    torch cannot run, is ONNX Runtime's on every device.

    Raises:
        ConfigError: the engine named, or the only one that could run the model, cannot run here.
    """
    if name == AUTO:
        on_cpu = device == "cpu" and model.graph is not None
        name = "onnxruntime" if on_cpu or model.module is None else "torch"
        if name == "onnxruntime" and model.module is not None and get_engine(name).problem(device):
            name = "torch"
    require_engine(name, device)
    return get_engine(name)


def load(model: Model, engine: str = AUTO, device: str = "cpu", threads: int = 0) -> Network:
    """A network ready to run.

    Args:
        model: the network.
        engine: ``auto``, or an engine's name.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: that a call may use on a CPU; 0 for all cores.

    Raises:
        ConfigError: the engine cannot run here.  WeightsError: it cannot run this network.
    """
    return choose(engine, device, model)().load(model, device, threads)


def version_of(engine: type[Engine]) -> str:
    """The version of the library behind an engine; empty where it is not installed."""
    try:
        return importlib.metadata.version(engine.library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def rows(devices: tuple[str, ...] = ("cpu",)) -> list[EngineRow]:
    """All engines, with what each would be used for on the devices that are here."""
    found = []
    for name in sorted({*BUILT_IN, *engines.names()}):
        engine = get_engine(name)
        usable = [device for device in devices if device in engine.devices and not engine.problem(device)]
        problem = "" if usable else engine.problem(devices[-1] if "cpu" not in engine.devices else "cpu")
        found.append(EngineRow(name, version_of(engine), ", ".join(usable), problem))
    return found
