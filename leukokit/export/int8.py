"""A detector's network in eight bits, kept only where it counts as the one in full precision does.

Post-training quantisation (ONNX Runtime, ``quantize_static``): weights and activations of the convolutions
become 8-bit numbers whose ranges are read off the user's own fields. The detection head stays in full
precision: boxes of hundreds of pixels and scores below one do not fit one scale, and boxes that move by a
pixel change the crops that classifiers see.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from leukokit._files import make_folder
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.engines.export import export_graph, save_graph
from leukokit.errors import DataError, LeukokitError, WeightsError, cause_of
from leukokit.export.targets import Target
from leukokit.images.inputs import find_images
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult
from leukokit.weights import sha256_of, write_card

CALIBRATED: Final = 100
"""Most pictures that ranges are read off."""
LEUKOCYTES: Final = 0.005
"""Largest change of the number of leukocytes, as a share of all."""
LABELS: Final = 0.01
"""Largest share of leukocytes whose label may change."""
SAME_CELL: Final = 0.5
"""Least intersection over union of a cell's two boxes."""


@dataclass(frozen=True, slots=True)
class Int8Change:
    """What eight bits change on the calibration fields.

    Attributes:
        fields: how many they are.
        leukocytes: their leukocytes in full precision.
        moved: change of each field's number of leukocytes, summed without signs.
        labels: leukocytes found by both whose labels differ.
        cells: cells of each kind, in full precision and in eight bits.
    """

    fields: int
    leukocytes: int
    moved: int
    labels: int
    cells: dict[str, tuple[int, int]]

    @property
    def is_allowed(self) -> bool:
        """Whether the network may be used."""
        few = self.moved <= LEUKOCYTES * self.leukocytes
        return few and self.labels <= LABELS * self.leukocytes


def export_int8(
    target: Target,
    folder: Path,
    out: Path,
    config: PipelineConfig | None = None,
    report: Callable[[str], None] = print,
) -> tuple[Path, Int8Change]:
    """Write a detector's network in eight bits, with its card.

    Args:
        target: the network.
        folder: the user's own fields, to read ranges off and to compare on; several hundred, of all stains.
        out: folder, made if it is not there.
        config: the pipeline in which both are compared; by default the default one.
        report: called with lines on the progress.

    Raises:
        DataError: there are no fields.
        WeightsError: it counts otherwise than in full precision; nothing is written.
    """
    images = [image.path for image in find_images([folder]).images]
    if not images:
        raise DataError(f"{folder}: there are no images to calibrate on")
    config = config or PipelineConfig()
    exact = _with_weights(config, target.path)
    report(f"full precision on {len(images)} fields")
    pictures: list[dict[str, Any]] = []
    before = [_result_of(exact, path, partial(_keep, pictures)) for path in images]
    make_folder(out)
    path = out / f"{target.card.name}-int8.onnx"
    _quantize(target, pictures, path)
    card = target.card.model_copy(update={"name": path.stem, "sha256": sha256_of(path), "onnx_sha256": ""})
    write_card(card, path)
    report("eight bits on the same")
    try:
        small = _with_weights(config, path)
        change = compare_results(before, [_result_of(small, image) for image in images])
    except LeukokitError:
        _remove(path)
        raise
    if not change.is_allowed:
        _remove(path)
        raise WeightsError(
            f"{target.path}: eight bits move {change.moved} of {change.leukocytes} leukocytes (allowed are "
            f"{LEUKOCYTES:.1%}) and {change.labels} labels ({LABELS:.0%}) on {change.fields} fields; "
            "nothing is written"
        )
    return path, change


def compare_results(before: Sequence[SmearResult], after: Sequence[SmearResult]) -> Int8Change:
    """What differs between the results of the same fields."""
    moved = labels = leukocytes = 0
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for first, second in zip(before, after, strict=True):
        for counted, result in zip(counts, (first, second), strict=True):
            counted.update(result.cells.counts)
        leukocytes += first.cells.counts["leukocyte"]
        moved += abs(first.cells.counts["leukocyte"] - second.cells.counts["leukocyte"])
        labels += _other_labels(first, second)
    cells = {kind: (counts[0][kind], counts[1][kind]) for kind in counts[0]}
    return Int8Change(len(before), leukocytes, moved, labels, cells)


def _other_labels(first: SmearResult, second: SmearResult) -> int:
    """Leukocytes at one place whose labels differ."""
    labels = [result.cells.labelling.labels if result.cells.labelling else [] for result in (first, second)]
    if not all(labels):
        return 0
    own, others = ([n for n, label in enumerate(found) if label] for found in labels)
    count = 0
    for number in own:
        box = first.cells.boxes[number]
        overlaps = [_box_overlap(box, second.cells.boxes[other]) for other in others]
        if overlaps and max(overlaps) >= SAME_CELL:
            count += labels[0][number] != labels[1][others[int(np.argmax(overlaps))]]
    return count


def _box_overlap(first: Any, second: Any) -> float:
    """Intersection over union of two boxes."""
    sides = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None)
    shared = float(sides.prod())
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / union if union > 0 else 0.0


def _with_weights(config: PipelineConfig, path: Path) -> Pipeline:
    detector = PluginChoice(
        name=config.detector.name, params={**config.detector.params, "weights": str(path)}
    )
    return Pipeline.from_config(config.model_copy(update={"detector": detector}), "cpu")


def _result_of(
    pipeline: Pipeline, path: Path, see: Callable[[Mapping[str, Any]], None] | None = None
) -> SmearResult:
    """A field's result without its pixels; ``see`` is given what the network is given."""
    detector: Any = pipeline.detector
    call = detector.model.network.run
    if see is not None:

        def seen(inputs: Mapping[str, Any]) -> Any:
            see(inputs)
            return call(inputs)

        detector.model.network.run = seen
    try:
        return pipeline.run(path)
    finally:
        detector.model.network.run = call


def _keep(pictures: list[dict[str, Any]], inputs: Mapping[str, Any]) -> None:
    if len(pictures) < CALIBRATED:
        pictures.append({name: np.array(values) for name, values in inputs.items()})


def _quantize(target: Target, pictures: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the network with its convolutions in eight bits."""
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise WeightsError(
            "an int8 export needs the package 'onnx'; pip install 'leukokit[export]'"
        ) from error

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library is untyped
        def __init__(self) -> None:
            self.left: Iterator[Mapping[str, Any]] = iter(pictures)

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.left, None)

    graph = export_graph(target.network.fused, target.network.inputs, target.network.outputs)
    head = _head_convolutions(graph)
    with tempfile.TemporaryDirectory() as folder:
        whole, ready = Path(folder) / "whole.onnx", Path(folder) / "ready.onnx"
        save_graph(graph, whole)
        try:
            quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=head,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:
            # It raises classes that share no public base.
            raise WeightsError(f"{target.path}: cannot be quantised ({cause_of(error)[:200]})") from error


def _head_convolutions(graph: Any) -> list[str]:
    """Names of the convolutions of the network's last layer, such as ``/network/model.23/...``."""
    names = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    layers = [re.search(r"/model\.(\d+)/", name) for name in names]
    last = max((int(layer[1]) for layer in layers if layer), default=-1)
    return [name for name, layer in zip(names, layers, strict=True) if layer and int(layer[1]) == last]


def _remove(path: Path) -> None:
    for file in (path, path.with_suffix(".json")):
        file.unlink(missing_ok=True)
