"""Does detection hold at every magnification? Fields resized to given erythrocyte diameters and measured.

    python benchmarks/scales.py --fields fields.jsonl --dataset txl-pbc --split val --lab pbc --lab raabin

Enlarging invents no detail: the columns say how well size is handled, not what a better lens would show.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from leukokit.config import load_config
from leukokit.datasets.fields import AnnotatedField, read_fields
from leukokit.evaluation.detection import evaluate_detector
from leukokit.images.pixels import scale_image
from leukokit.pipeline import Pipeline
from leukokit.smear import read_image


def resize_image(field: AnnotatedField, diameter: float, folder: Path) -> AnnotatedField:
    """The field with erythrocytes of about ``diameter`` pixels, its picture written to ``folder``."""
    factor = diameter / (field.cell_diameter_px() or diameter)
    path = folder / f"{field.image.stem}.png"
    Image.fromarray(scale_image(read_image(field.image), factor)).save(path, compress_level=1)
    return replace(field, image=path, boxes=(field.box_array() * factor).tolist())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=Path, default=Path("fields.jsonl"))
    parser.add_argument("--dataset", default="txl-pbc")
    parser.add_argument("--split", default="val")
    parser.add_argument("--lab", action="append", default=[])
    parser.add_argument("--every", type=int, default=2, help="take every n-th field")
    parser.add_argument("--diameters", type=float, nargs="+", default=[25, 50, 100, 175, 250])
    parser.add_argument("--set", action="append", default=[], dest="assign")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    fields = [
        field
        for field in read_fields(options.fields)
        if field.dataset == options.dataset
        and field.split == options.split
        and (not options.lab or field.lab in options.lab)
    ][:: options.every]
    pipeline, console = Pipeline.from_config(load_config(None, options.assign), "cpu"), Console()
    table, rows = Table(title=f"{len(fields)} fields"), []
    for column in ("erythrocyte px", "leukocyte AP50", "erythrocyte AP50", "platelet AP50"):
        table.add_column(column, justify="right")
    for diameter in options.diameters:
        with tempfile.TemporaryDirectory() as folder:
            figures = evaluate_detector(pipeline, [resize_image(f, diameter, Path(folder)) for f in fields])
        rows.append({"diameter_px": diameter, "fields": len(fields), "kinds": figures["kinds"]})
        ap50 = [f"{kind['ap50']:.3f}" for kind in figures["kinds"].values()]
        table.add_row(f"{diameter:g}", *ap50)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
