"""What limits the figures on txl-pbc val: annotations that the image contradicts.

    python benchmarks/label_errors.py --fields fields.jsonl [--cells cells]

Prints leukocyte AP50 of laboratories pbc and raabin as published, and with five boxes corrected; and with
``--cells`` how many leukocytes of raabin are named rightly, as published, and with one class corrected.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from leukokit.config import PipelineConfig, PluginChoice
from leukokit.datasets.detected import load_detected
from leukokit.datasets.fields import AnnotatedField, read_fields
from leukokit.evaluation.classification import predict_detected
from leukokit.evaluation.detection import evaluate_detector
from leukokit.metrics.intervals import wilson
from leukokit.pipeline import Pipeline

ERYTHROCYTES_BOXED_AS_LEUKOCYTES = {
    "027b917d-c172-5be9-8dba-6bd4ef20d22d": (1, 1, 64, 141),
    "3e08ca80-08dd-5b2c-b91e-60539d5b6a04": (1, 142, 138, 277),
    "666561c9-bbd8-5434-ad54-fc0e5edd8186": (432, 166, 537, 288),
    "8eb4116f-d294-568b-b716-95f15bb218e8": (534, 238, 575, 376),
}
LEUKOCYTES_WITHOUT_A_BOX = {"d17b8459-f618-58ef-9fad-f8f95dd66cc6": (110, 132, 426, 441)}
LABELLED_MONOCYTE_WITH_THREE_LOBES = "b8aa811e-6389-57cf-a9cc-905a01c64aae"
"""Its nucleus has three lobes, joined by threads: a segmented neutrophil."""


def corrected(field: AnnotatedField) -> AnnotatedField:
    """The field with its wrong label, if it has one, put right."""
    kinds, boxes, labels = list(field.kinds), list(field.boxes), list(field.labels)
    wrong = ERYTHROCYTES_BOXED_AS_LEUKOCYTES.get(field.image.stem)
    if wrong:
        distances = [sum(abs(a - b) for a, b in zip(box, wrong, strict=True)) for box in boxes]
        kinds[distances.index(min(distances))] = "erythrocyte"
    missing = LEUKOCYTES_WITHOUT_A_BOX.get(field.image.stem)
    if missing:
        boxes.append([float(side) for side in missing])
        kinds.append("leukocyte")
        labels.append("")
    return replace(field, kinds=kinds, boxes=boxes, labels=labels)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=Path, default=Path("fields.jsonl"))
    parser.add_argument("--cells", type=Path, help="folder of 'leukokit data cells'")
    options = parser.parse_args()
    console = Console()
    measure_boxes(options.fields, console)
    if options.cells:
        measure_classes(options.cells, console)


def measure_boxes(path: Path, console: Console) -> None:
    """Leukocyte AP50, before and after."""
    fields = [
        field
        for field in read_fields(path)
        if field.dataset == "txl-pbc" and field.split == "val" and field.lab in ("pbc", "raabin")
    ]
    pipeline = Pipeline.from_config(PipelineConfig(), "cpu")
    for name, chosen in (("as published", fields), ("corrected", [corrected(field) for field in fields])):
        row = evaluate_detector(pipeline, chosen)["kinds"]["leukocyte"]
        low, high = row["ap50_interval"]
        console.print(
            f"{name}: leukocyte AP50 {row['ap50']:.4f} ({low:.3f}-{high:.3f}), {row['cells']} leukocytes"
        )


def measure_classes(folder: Path, console: Console) -> None:
    """Leukocytes of raabin named rightly, before and after."""
    published = [
        field
        for field in load_detected(folder).fields
        if field.source.dataset == "txl-pbc" and field.source.split == "val" and field.source.lab == "raabin"
    ]
    stems = [field.source.image.stem for field in published]
    wrong = published[stems.index(LABELLED_MONOCYTE_WITH_THREE_LOBES)]
    assert [label for label in wrong.labels if label] == ["monocyte"]
    mended = replace(wrong, labels=tuple(label and "neutrophil" for label in wrong.labels))
    put_right = [mended if field is wrong else field for field in published]
    for classifier in ("hybrid", "cnn", "altarawneh"):
        pipeline = Pipeline.from_config(PipelineConfig(classifier=PluginChoice(name=classifier)), "cpu")
        for name, chosen in (("as published", published), ("corrected", put_right)):
            right = predict_detected(pipeline, chosen).correct
            low, high = wilson(float(right.sum()), len(right))
            share = f"{right.mean():.3f} ({low:.3f}-{high:.3f})"
            console.print(f"{classifier}, {name}: {right.sum()} of {len(right)}, {share}")


if __name__ == "__main__":
    main()
