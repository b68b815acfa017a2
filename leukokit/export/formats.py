"""Files of exported networks: ONNX, OpenVINO and TorchScript, each with a card and checked against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from leukokit._files import make_folder
from leukokit.engines.base import Engine, Model
from leukokit.engines.choose import load
from leukokit.engines.export import TOLERANCE, Exportable, export_graph, save_graph
from leukokit.engines.onnxruntime import OnnxRuntimeEngine
from leukokit.engines.openvino import OpenVinoEngine
from leukokit.errors import ConfigError, WeightsError, cause_of
from leukokit.export.targets import Arrays, Target
from leukokit.weights import sha256_of, write_card


def export(target: Target, kind: str, out: Path) -> tuple[Path, float]:
    """Write a network as a file that holds its weights, with its card.

    Args:
        target: the network.
        kind: ``onnx``, ``openvino`` or ``torchscript``.
        out: folder, made if it is not there.

    Returns:
        The file, and the largest difference of its outputs from torch's (see ``TOLERANCE``).

    Raises:
        ConfigError: no such format.
        WeightsError: the network cannot be written so, or the file returns other values than torch.
    """
    if kind not in FORMATS:
        raise ConfigError(f"--format {kind}: must be {', '.join(FORMATS)}")
    make_folder(out)
    suffix, write, engine = FORMATS[kind]
    path = out / f"{target.card.name}{suffix}"
    if path.exists() and path.samefile(target.path):
        raise ConfigError(f"{path}: is the weight file itself; choose another --out")
    write(target.network, path)
    try:
        apart = difference(target, path, engine)
    except WeightsError:
        _remove_file(path)
        raise
    if apart > TOLERANCE:
        _remove_file(path)
        raise WeightsError(
            f"{target.path}: as {kind} it returns other values than in torch (by {apart:.2g}, allowed are "
            f"{TOLERANCE:g}); nothing is written"
        )
    values = path.with_suffix(".bin")
    beside = sha256_of(values) if suffix == ".xml" else ""
    write_card(target.card.model_copy(update={"sha256": sha256_of(path), "onnx_sha256": beside}), path)
    return path, apart


def difference(target: Target, path: Path, engine: type[Engine] | None) -> float:
    """Largest difference of a file's outputs from torch's over the target's samples.

    Raises:
        WeightsError: the file does not run.
    """
    import torch

    names, outputs = tuple(one.name for one in target.network.inputs), tuple(target.network.outputs)
    if engine is None:
        run: Callable[[Arrays], dict[str, Any]] = _scripted(path, names, outputs)
    else:
        run = load(Model.exported(path, ("", ""), names, outputs), engine)
    largest = 0.0
    for sample in target.samples:
        with torch.inference_mode():
            found = target.network.fused(*(torch.from_numpy(sample[name]) for name in names))
        expected = found if isinstance(found, tuple) else (found,)
        returned = run(sample)
        for name, values in zip(outputs, expected, strict=True):
            wanted = values.numpy()
            if returned[name].shape != wanted.shape:
                raise WeightsError(f"{path}: returns '{name}' of shape {returned[name].shape}")
            apart = np.abs(returned[name] - wanted) / (1 + np.abs(wanted))
            largest = max(largest, float(apart.max(initial=0)))
    return largest


def _write_onnx(network: Exportable, path: Path) -> None:
    save_graph(export_graph(network.fused, network.inputs, network.outputs), path)


def _write_openvino(network: Exportable, path: Path) -> None:
    try:
        import openvino
    except ImportError as error:
        raise WeightsError("needs OpenVINO; pip install 'leukokit[openvino]'") from error
    data = export_graph(network.fused, network.inputs, network.outputs).SerializeToString()
    try:
        model = openvino.Core().read_model(model=data, weights=b"")
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except Exception as error:
        # It raises classes that share no public base.
        raise WeightsError(
            f"{path}: OpenVINO cannot convert the network ({cause_of(error)[:200]})"
        ) from error


def _write_torchscript(network: Exportable, path: Path) -> None:
    import warnings

    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        example = tuple(one.value for one in network.inputs)
        traced: Any = torch.jit.trace(network.fused, example)  # type: ignore[no-untyped-call]  # as torch is
        traced.save(str(path))


def _scripted(
    path: Path, names: tuple[str, ...], outputs: tuple[str, ...]
) -> Callable[[Arrays], dict[str, Any]]:
    import torch

    # Written a moment ago by this process.
    module: Any = torch.jit.load(str(path))  # type: ignore[no-untyped-call]  # torch's own is untyped

    def run(sample: Arrays) -> dict[str, Any]:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(sample[name]) for name in names))
        parts = found if isinstance(found, tuple) else (found,)
        return {name: part.numpy() for name, part in zip(outputs, parts, strict=True)}

    return run


def _remove_file(path: Path) -> None:
    for file in (path, path.with_suffix(".bin")):
        file.unlink(missing_ok=True)


FORMATS: Final[dict[str, tuple[str, Callable[[Exportable, Path], None], type[Engine] | None]]] = {
    "onnx": (".onnx", _write_onnx, OnnxRuntimeEngine),
    "openvino": (".xml", _write_openvino, OpenVinoEngine),
    "torchscript": (".torchscript", _write_torchscript, None),
}
"""Suffix, what writes the file, and the engine that it is checked on; None for torch itself."""
