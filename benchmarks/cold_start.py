"""A first command's wall time and peak memory: ``leukokit detect`` against ``yolo detect predict``.

Each run is a fresh process on one image, so what is measured is start, load, detection and saving. Both
sides run the same network with the same weights: the shipped ones, put into an ultralytics checkpoint in a
temporary folder. The two take turns, and each is run once beforehand for its cells to be counted and the
files to be in the disk's cache. They do not do the same work: ``leukokit`` standardises light and stain and
looks for the right scale, ``yolo`` looks once at the raw image reduced to ``--imgsz``.

    python benchmarks/cold_start.py [IMAGE] [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from harness import ENVIRONMENT, Measured, console_script, measure, print_table, write_figures

EXAMPLE = Path(__file__).parents[1] / "examples" / "smear.png"
SHIPPED = "smear-yolo11n"


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("image", type=Path, nargs="?", default=EXAMPLE, help="default: examples/smear.png")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each command (default: 5)")
    parser.add_argument("--imgsz", type=int, default=640, help="side that yolo reduces the image to")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for both (default: cpu)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.runs < 1 or not args.image.is_file():
        parser.error("needs at least one run and an image that exists")
    with tempfile.TemporaryDirectory() as folder:
        figures = _compare(args.image, args.runs, args.imgsz, args.device, Path(folder))
    print_table(
        ["command", "cells", "seconds", "CPU seconds", "MiB"],
        [
            [
                name,
                f"{row['cells']}",
                f"{row['seconds']:.2f}",
                f"{row['cpu_seconds']:.2f}",
                f"{row['peak_mib']:.0f}",
            ]
            for name, row in figures.items()
        ],
    )
    ratios = {}
    for saving in ("no files", "default files"):
        ours, theirs = figures[f"leukokit, {saving}"], figures[f"yolo, {saving}"]
        ratios[saving] = {key: ours[key] / theirs[key] for key in ("seconds", "cpu_seconds", "peak_mib")}
        print(
            f"leukokit / yolo, {saving}: {ratios[saving]['seconds']:.2f} of the time, "
            f"{ratios[saving]['cpu_seconds']:.2f} of the CPU time, "
            f"{ratios[saving]['peak_mib']:.2f} of the memory"
        )
    write_figures(
        args.json,
        {"runs": args.runs, "imgsz": args.imgsz, "device": args.device, "medians": figures, "ratios": ratios},
    )


def _compare(image: Path, runs: int, imgsz: int, device: str, folder: Path) -> dict[str, dict[str, float]]:
    checkpoint = folder / "same-weights.pt"
    save_checkpoint(checkpoint)
    # One environment for both; ultralytics' settings go to the temporary folder instead of the home.
    environment = {**ENVIRONMENT, "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder)}
    leukokit: list[str | Path] = [console_script("leukokit"), "detect", image, "--device", device]
    yolo: list[str | Path] = [
        *(console_script("yolo"), "detect", "predict", f"model={checkpoint}", f"source={image}"),
        *(f"imgsz={imgsz}", f"device={device}", f"project={folder}", "name=predictions", "exist_ok=True"),
    ]
    document = json.loads(measure([*leukokit, "--json"], environment).stdout)
    measure([*yolo, "save_txt=True", "save=False"], environment)
    labels = (folder / "predictions" / "labels" / f"{image.stem}.txt").read_text().splitlines()
    cells = {"leukokit": len(document["cells"]), "yolo": len(labels)}
    commands = {
        "leukokit, no files": [*leukokit, "--save", "none", "--quiet"],
        "yolo, no files": [*yolo, "save=False"],
        "leukokit, default files": [*leukokit, "--out", folder / "results", "--quiet"],
        "yolo, default files": yolo,
    }
    measured: dict[str, list[Measured]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            one = measure(command, environment)
            if number:  # the first of each warms up
                measured[name].append(one)
    return {
        name: {
            "cells": cells[name.partition(",")[0]],
            "seconds": median(one.seconds for one in rows),
            "cpu_seconds": median(one.cpu_seconds for one in rows),
            "peak_mib": median(one.peak_mib for one in rows),
        }
        for name, rows in measured.items()
    }


def save_checkpoint(path: Path) -> None:
    """Put the shipped weights into a checkpoint as ultralytics' own training would leave it."""
    from leukokit import weights
    from leukokit.detectors.yolo.network import build_network
    from leukokit.weights.files import load_weights

    shipped = weights.find(SHIPPED)
    card = weights.read_card(shipped, weights.DetectorCard)
    network = build_network(card.architecture, len(card.kinds))
    load_weights(network, shipped)

    import torch
    import ultralytics

    network.names = dict(enumerate(card.kinds))
    network.args = {"task": "detect", "imgsz": 640}
    torch.save(
        {
            "model": network.half(),
            "train_args": network.args,
            "date": None,
            "version": ultralytics.__version__,
        },
        path,
    )


if __name__ == "__main__":
    main()
