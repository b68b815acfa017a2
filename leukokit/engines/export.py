"""Torch modules written as ONNX graphs that take their weights from the safetensors file beside them.

The weights are shipped once: a graph's initializers are ONNX external data, which name the file, the offset
and the length of each tensor in it. Any ONNX tool opens such a graph where the two files lie together.
"""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from leukokit._files import write_atomically
from leukokit.engines.base import Model
from leukokit.engines.choose import load
from leukokit.engines.onnxruntime import OnnxRuntimeEngine
from leukokit.errors import WeightsError, cause_of

OPSET: Final = 18
"""The first version of the operators that scatters with a maximum, which attention over links wants."""
TOLERANCE: Final = 1e-3
"""Largest difference of a graph's outputs from torch's, in units of 1 + |value|."""
PREFIX: Final = "network."
"""What the name of a weight begins with where a module wraps the network that the file holds."""


@dataclass(frozen=True, slots=True)
class Example:
    """An input that a module is traced with.

    Attributes:
        name: of the input.
        value: a torch tensor.
        open_sides: names of its sides that may have any length, by position.
    """

    name: str
    value: Any
    open_sides: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Exportable:
    """A network in the forms that an export needs.

    Attributes:
        module: a ``torch.nn.Module`` whose weights have the names of the weight file.
        fused: the same with normalisations worked into the convolutions, for files that hold their weights.
        inputs: what the module is traced with.
        outputs: names of what it returns, and of their open sides.
    """

    module: Any
    fused: Any
    inputs: Sequence[Example]
    outputs: Mapping[str, Mapping[int, str]]


def write_graph_beside(network: Exportable, path: Path) -> str:
    """Write the ONNX graph of a weight file beside it; returns its SHA-256.

    Raises:
        WeightsError: the network cannot be exported, or is not the file's.
    """
    graph = export_graph(network.module, network.inputs, network.outputs)
    share_weights(graph, path)
    target = path.with_suffix(".onnx")
    digest = save_graph(graph, target)
    try:
        _require_same(network, path, target)
    except WeightsError:
        target.unlink()
        raise
    return digest


def _require_same(network: Exportable, weights: Path, graph: Path) -> None:
    """Refuse a graph that returns other values than torch: what a module does outside torch is not traced.

    Raises:
        WeightsError: it does.
    """
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    inputs = {}
    for one in network.inputs:
        values = one.value.numpy()
        if values.dtype == np.uint8:
            values = rng.integers(0, 256, values.shape, np.uint8)
        elif values.dtype.kind == "f":
            values = rng.normal(size=values.shape).astype(values.dtype)
        inputs[one.name] = values
    with torch.inference_mode():
        found = network.module(*(torch.from_numpy(values) for values in inputs.values()))
    run = load(Model(weights, tuple(inputs), tuple(network.outputs), graph), OnnxRuntimeEngine)
    returned = run(inputs)
    parts = found if isinstance(found, tuple) else (found,)
    for name, part in zip(network.outputs, parts, strict=True):
        wanted = part.numpy()
        if not (np.abs(returned[name] - wanted) <= TOLERANCE * (1 + np.abs(wanted))).all():
            raise WeightsError(f"{weights}: cannot be exported to ONNX: '{name}' differs from torch's")


def export_graph(module: Any, inputs: Sequence[Example], outputs: Mapping[str, Mapping[int, str]]) -> Any:
    """A torch module in evaluation mode as an ONNX ``ModelProto``, its weights under their own names.

    Args:
        module: a ``torch.nn.Module``.
        inputs: what it is traced with.
        outputs: names of what it returns, and of their open sides.

    Raises:
        WeightsError: torch cannot export it, or the package ``onnx`` is missing.
    """
    import io

    import torch

    try:
        import onnx
    except ImportError as error:
        raise WeightsError("an export needs the package 'onnx'; pip install 'leukokit[export]'") from error
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                tuple(one.value for one in inputs),
                stream,  # type: ignore[arg-type]  # its types leave streams out
                opset_version=OPSET,
                # The exporter that keeps the names of the weights.
                dynamo=False,
                do_constant_folding=False,
                input_names=[one.name for one in inputs],
                output_names=list(outputs),
                dynamic_axes={
                    **{one.name: dict(one.open_sides) for one in inputs},
                    **{name: dict(sides) for name, sides in outputs.items()},
                },
            )
    except Exception as error:
        # Of operators without an ONNX form it raises classes of many kinds.
        raise WeightsError(f"torch cannot export this network to ONNX ({cause_of(error)[:200]})") from error
    model = onnx.load_model_from_string(stream.getvalue())
    # Shapes that it infers within are wrong where a size is open.
    del model.graph.value_info[:]
    for node in model.graph.node:
        # Paths of the machine that it was made on.
        node.doc_string = ""
    return model


def share_weights(model: Any, weights: Path) -> None:
    """Let a graph's initializers lie in the safetensors file that has them, whose precision they keep.

    Args:
        model: an ONNX ``ModelProto``, changed in place.
        weights: the file; the graph names it without its folder.

    Raises:
        WeightsError: the file has no tensor of an initializer's name and shape.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    header, start = read_safetensors_header(weights)
    data = weights.read_bytes()
    sizes = {"F16": np.float16, "F32": np.float32, "I64": np.int64}
    kinds = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT, "I64": TensorProto.INT64}
    casts = []
    stored = []
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix(PREFIX)
        entry = header.get(name)
        if entry is None or entry["shape"] != list(tensor.dims) or entry["dtype"] not in kinds:
            raise WeightsError(f"{weights}: has no tensor '{name}' of shape {tuple(tensor.dims)}")
        first, end = entry["data_offsets"]
        values = numpy_helper.to_array(tensor)
        # The exporter works some layers into others; these would not be the file's tensors any more.
        if not np.array_equal(
            np.frombuffer(data[start + first : start + end], sizes[entry["dtype"]]), values.ravel()
        ):
            raise WeightsError(f"{weights}: tensor '{name}' is not the one of the network to be exported")
        own = TensorProto(name=name, data_type=kinds[entry["dtype"]], dims=tensor.dims)
        own.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", start + first), ("length", end - first)):
            own.external_data.add(key=key, value=str(value))
        stored.append(own)
        wide = f"{name}/float" if own.data_type != tensor.data_type else name
        if wide != name:
            casts.append(helper.make_node("Cast", [name], [wide], to=tensor.data_type))
        for node in model.graph.node:
            for place, wanted in enumerate(node.input):
                if wanted == tensor.name:
                    node.input[place] = wide
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(stored)
    model.graph.node.extend([*casts, *nodes])


def read_safetensors_header(weights: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the position of its first tensor.

    Raises:
        WeightsError: not such a file.
    """
    try:
        with weights.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > weights.stat().st_size:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise WeightsError(f"{weights}: not readable as safetensors ({error})") from error
    header.pop("__metadata__", None)
    return header, 8 + length


def save_graph(model: Any, path: Path) -> str:
    """Write an ONNX ``ModelProto``, whole or not at all; returns the file's SHA-256."""
    data = model.SerializeToString(deterministic=True)
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()
