"""A folder through ``leukokit batch`` against ``yolo detect predict``, and where the time goes.

Both get the same folder of drawn smears, 640 x 480 pixels, and the same weights; ``leukokit`` also links the
cells, names the leukocytes and writes tables, ``yolo`` saves its labels. They take turns; the first of each
warms up. ``--many`` repeats the batch, once each, on folders of those sizes: time an image and peak memory
should stay. "Going" is the pace of the second half of the images, when all processes have long started, by
which the figures for many thousands follow. The stages are timed one after the other, in one thread.

    python benchmarks/batch.py [--images 100] [--runs 3] [--many 200 2000 5000] [--device cpu]
        [--processes N] [--json FILE]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from cold_start import save_checkpoint
from harness import ENVIRONMENT, Measured, console_script, measure, print_table, write_figures

DISTINCT = 20
"""Drawn smears, of which a folder holds copies."""


def main() -> None:
    """Measure, print the tables, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--images", type=int, default=100, help="images in the folder (default: 100)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each (default: 3)")
    parser.add_argument("--many", type=int, nargs="*", default=[], help="images of further folders")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for both (default: cpu)")
    parser.add_argument("--processes", type=int, help="of leukokit batch (default: its own choice)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.images < 1 or args.runs < 1:
        parser.error("needs at least one image and one run")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        drawn = drawn_smears(work / "drawn")
        folder = copies(drawn, work / "smears", args.images)
        more = ["--processes", str(args.processes)] if args.processes else []
        rows = compare(folder, args.runs, args.device, more, work)
        for many in args.many:
            larger = copies(drawn, work / f"{many} smears", many)
            rows[f"leukokit batch, {many} images"] = once(larger, many, args.device, more, work)
        spent = stages(folder, args.device)
    print_table(
        ["command", "images/s", "going", "MiB"],
        [
            [name, *(f"{row[key]:.2f}" for key in ("images_per_second", "going")), f"{row['peak_mib']:.0f}"]
            for name, row in rows.items()
        ],
    )
    print()
    print_table(["stage", "ms an image"], [[name, f"{1e3 * s:.1f}"] for name, s in spent.items()])
    write_figures(args.json, {"images": args.images, "device": args.device, "medians": rows, "stages": spent})


def drawn_smears(folder: Path) -> list[Path]:
    """Files of smears that are all different."""
    from leukokit.synthetic.smear import draw_smear, save_smear

    folder.mkdir()
    paths = [folder / f"{number:02}.png" for number in range(DISTINCT)]
    for number, path in enumerate(paths):
        save_smear(draw_smear(number, 640, 480, 2, 40.0), path)
    return paths


def copies(drawn: list[Path], folder: Path, count: int) -> Path:
    """A folder of ``count`` smears."""
    folder.mkdir()
    for number in range(count):
        shutil.copyfile(drawn[number % len(drawn)], folder / f"smear{number:05}.png")
    return folder


def compare(folder: Path, runs: int, device: str, more: list[str], work: Path) -> dict[str, dict[str, float]]:
    """Medians of both commands."""
    checkpoint = work / "same-weights.pt"
    save_checkpoint(checkpoint)
    environment = {**ENVIRONMENT, "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(work)}
    images = len(list(folder.glob("*.png")))
    yolo: list[str | Path] = [
        *(console_script("yolo"), "detect", "predict", f"model={checkpoint}", f"source={folder}"),
        *("imgsz=640", f"device={device}", f"project={work}", "name=predictions", "exist_ok=True"),
        *("save=False", "save_txt=True", "verbose=False"),
    ]
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(runs + 1):
        rows = {"leukokit batch": once(folder, images, device, more, work)}
        shutil.rmtree(work / "predictions", ignore_errors=True)
        measured = measure(yolo, environment)
        written = [path.stat().st_mtime for path in (work / "predictions").rglob("*.txt")]
        rows["yolo detect predict"] = row_of("yolo detect predict", measured, images, written)
        if number:
            for name, row in rows.items():
                found[name].append(row)
    return {name: {key: median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def once(folder: Path, images: int, device: str, more: list[str], work: Path) -> dict[str, float]:
    """One batch from nothing."""
    out, log = work / "results", work / "batch.log"
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    command: list[str | Path] = [console_script("leukokit"), "batch", folder, "--out", out]
    measured = measure([*command, "--device", device, "--quiet", "--log", log, *more])
    lines = [line for line in log.read_text().splitlines() if line.endswith(": done")]
    through = [datetime.fromisoformat(line[:23]).timestamp() for line in lines]
    return row_of("leukokit batch", measured, images, through)


def row_of(name: str, measured: Measured, images: int, through: list[float]) -> dict[str, float]:
    """The figures of a run, said at once; ``through`` are the times, in seconds, of images that were done."""
    times = sorted(through)[len(through) // 2 :]
    row = {
        "seconds": measured.seconds,
        "images_per_second": images / measured.seconds,
        "going": (len(times) - 1) / max(times[-1] - times[0], 1e-6),
        "peak_mib": measured.peak_mib,
    }
    said = ", ".join(f"{key} {value:.1f}" for key, value in row.items())
    # A benchmark that is cut short has printed what it measured.
    print(f"{name}, {images} images: {said}", file=sys.stderr, flush=True)
    return row


def stages(folder: Path, device: str) -> dict[str, float]:
    """Seconds an image of each stage, one after the other in this process."""
    import torch

    from leukokit.batch.manifest import Manifest
    from leukokit.batch.outputs.tables import write_tables
    from leukokit.batch.processing import RecordMaker
    from leukokit.batch.records import stamp_of
    from leukokit.images.inputs import find_images
    from leukokit.pipeline import Pipeline
    from leukokit.smear import read_smear

    torch.set_num_threads(1)
    pipeline = Pipeline(device=device)
    images = find_images([folder]).images[:DISTINCT]
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, call: Any) -> Any:
        started = time.perf_counter()
        answer = call()
        spent[name] += time.perf_counter() - started
        return answer

    pipeline.run(images[0].path)
    classes = pipeline.classifier.classes if pipeline.classifier else ()
    with tempfile.TemporaryDirectory() as out, Manifest(Path(out), {}) as manifest:
        maker = RecordMaker([], Path(out), 0)
        manifest.plan(enumerate(images))
        for image in images:
            plain = timed("read", lambda image=image: read_smear(image.path))
            smear = timed("standardise", lambda plain=plain: pipeline.prepare(plain))
            cells = timed("detect", lambda smear=smear: pipeline.detect(smear))
            graph = timed("link", lambda cells=cells: pipeline.build(cells))
            named = timed("name", lambda smear=smear, graph=graph: pipeline.label(smear, graph))
            result = pipeline.make_result(smear, replace(graph, cells=named), image.stem_path, 0.0)
            stamp = stamp_of(image.path)
            record = timed(
                "pack", lambda image=image, stamp=stamp, result=result: maker.make(image, stamp, result)
            )
            timed("record", lambda record=record: manifest.record([record]))
        entries = ((entry, "") for entry in manifest.entries())
        timed("tables", lambda: write_tables(Path(out), entries, classes, None))
    return {name: seconds / len(images) for name, seconds in spent.items()}


if __name__ == "__main__":
    main()
