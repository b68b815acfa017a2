"""The contract of an engine: a library that runs networks."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from leukokit.engines.cpu import cores
from leukokit.engines.onnx_file import OnnxFile, Port, read_onnx
from leukokit.errors import WeightsError
from leukokit.plugin import P_co, Plugin

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network as an engine gets it: an ONNX graph, a torch module, or both.

    Attributes:
        weights: the weight file, which messages name.
        inputs: names of what the network takes, in the order of the module's arguments.
        outputs: names of what it returns.
        graph: the ONNX file; None where there is none.
        graph_sha256: what its hash must be; empty for a foreign file.
        module: makes the torch module with its weights, on the CPU, in evaluation mode; it takes and
            returns tensors of the shapes and types of the graph. None for a foreign ONNX file.
        values_sha256: what the hash of OpenVINO's .bin must be; empty where nothing is known of it.
    """

    weights: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graph: Path | None = None
    graph_sha256: str = ""
    module: Callable[[], Any] | None = None
    values_sha256: str = ""

    @classmethod
    def exported(
        cls, path: Path, hashes: tuple[str, str], inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Model:
        """A file that ``leukokit export`` wrote, with graph and weights: ONNX, or OpenVINO's with its .bin.

        Args:
            path: the file.
            hashes: what the SHA-256 of the file and of its .bin must be; empty where nothing is known.
            inputs: names of what the network takes.
            outputs: names of what it returns.
        """
        return cls(path, inputs, outputs, path, hashes[0], values_sha256=hashes[1])

    def read_graph(self) -> OnnxFile:
        """The graph with its weights, checked.

        Raises:
            WeightsError: there is none, or it does not pass the checks of ``onnx_file.read_onnx``.
        """
        if self.graph is None:
            raise WeightsError(
                f"{self.weights}: there is no ONNX graph beside it; make one with 'leukokit export', "
                "or use --engine torch"
            )
        if self.graph.suffix != ".onnx":
            raise WeightsError(f"{self.graph}: only OpenVINO reads this file; use --engine openvino")
        own = self.weights if self.weights != self.graph else None
        found = read_onnx(self.graph, own, self.graph_sha256)
        names = {port.name for port in found.inputs}, {port.name for port in found.outputs}
        if not names[0] == set(self.inputs) or not names[1] >= set(self.outputs):
            raise WeightsError(
                f"{self.graph}: takes {', '.join(sorted(names[0]))} and returns "
                f"{', '.join(sorted(names[1]))}; this network takes {', '.join(self.inputs)} and returns "
                f"{', '.join(self.outputs)}"
            )
        return found


class Network(ABC):
    """A network that is loaded: arrays by name in, arrays by name out. It pickles, and is then loaded again.

    Args:
        engine: what runs it.
        model: the network.
        device: where it runs.
        threads: that a call may use on a CPU; 0 for all cores.

    Attributes:
        engine: the engine's name and its library's version, for the record.
        model: the network.
        device: where it runs.
        threads: that a call may use on a CPU, at least 1.
    """

    def __init__(self, engine: Engine, model: Model, device: str, threads: int) -> None:
        self._origin = (type(engine), model, device, threads)
        self.engine, self.model, self.device = engine.described(), model, device
        self.threads = threads or cores()

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network; the outputs are those that the ``Model`` names."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, self._origin


def _load_again(engine: type[Engine], model: Model, device: str, threads: int) -> Network:
    return engine().load(model, device, threads)


class Engine(Plugin[P_co], ABC):
    """Runs networks.

    Examples:
        An engine is chosen by ``leukokit.engines.choose.load``; it rarely is called by hand.

    Attributes:
        library: the package that does the work, as ``importlib.metadata`` knows it.
        devices: kinds of device that it runs on: ``cpu``, ``cuda``.
        wants_graph: whether it runs the ONNX graph; else it runs the torch module.
    """

    library: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    wants_graph: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def problem(cls, device: str) -> str:
        """Why it cannot run on a device here, and what to do about it; empty where it can.

        Looks only, and imports nothing heavy.
        """

    @classmethod
    def library_version(cls) -> str:
        """Return the version of the library; empty where it is not installed."""
        try:
            return importlib.metadata.version(cls.library)
        except importlib.metadata.PackageNotFoundError:
            return ""

    @classmethod
    def described(cls) -> str:
        """Return its name and its library's version, e.g. ``onnxruntime 1.22.0``."""
        return f"{cls.name} {cls.library_version()}".strip()

    @abstractmethod
    def load(self, model: Model, device: str, threads: int) -> Network:
        """Make a network ready to run.

        Args:
            model: the network.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            threads: that one call may use on a CPU; 0 for all cores.

        Raises:
            WeightsError: the network cannot be run by this engine; one line that says why.
        """


def check_inputs(model: Model, ports: Sequence[Port], inputs: Mapping[str, Array]) -> None:
    """Refuse inputs whose shape the graph does not take: not every library checks all sides.

    Raises:
        WeightsError: another number of sides, or another length of one that is fixed.
    """
    for port in ports:
        shape = inputs[port.name].shape
        fits = len(shape) == len(port.shape) and all(
            wanted in (None, given) for wanted, given in zip(port.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if side is None else str(side) for side in port.shape)
            raise WeightsError(
                f"{model.graph}: the network takes '{port.name}' of shape ({wanted}), not {shape}"
            )


def checked(model: Model, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of a network, refused where a number is no number.

    Raises:
        WeightsError: an output holds NaN or infinities.
    """
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise WeightsError(
                f"{model.weights}: the network returns NaN or infinite values as '{name}': "
                "the weights are broken; get them again"
            )
    return dict(outputs)
