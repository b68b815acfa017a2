"""A folder through ``leukokit batch`` against ``yolo detect predict``, and where the time goes.

Both get the same folder of fields and the same weights; ``leukokit`` also links the cells, names the
leukocytes and writes tables, ``yolo`` saves its labels. The fields are drawn, 640 x 480 pixels and as full as
real ones, or real (``--fields bionet`` or ``chula``, where ../shared/data is). The commands take turns; the
first of each warms up. Beside the images per second by the clock stand those by CPU time, which other work on
the machine hardly changes. ``--exports`` also runs ``yolo`` on its own ONNX and OpenVINO exports.

``--many`` repeats the batch, once each, on folders of those sizes: time per image and peak memory should
stay. "Going" is the pace of the second half of the images, when all processes have long started, by which the
figures for many thousands follow. The stages are timed one after the other, in one thread.

    python benchmarks/batch.py [--images 100] [--runs 3] [--many 200 2000 5000] [--device cpu]
        [--fields drawn|bionet|chula] [--exports] [--processes N] [--json FILE]
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
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
ERYTHROCYTE_PX = 52.0
"""Erythrocyte diameter of drawn smears: some 60 cells in 640 x 480 pixels, as on real fields."""


def main() -> None:
    """Measure, print the tables, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--images", type=int, default=100, help="images in the folder (default: 100)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each (default: 3)")
    parser.add_argument("--many", type=int, nargs="*", default=[], help="images of further folders")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for both (default: cpu)")
    parser.add_argument("--fields", choices=["drawn", "bionet", "chula"], default="drawn")
    parser.add_argument("--exports", action="store_true", help="also yolo's own ONNX and OpenVINO")
    parser.add_argument("--processes", type=int, help="of leukokit batch (default: its own choice)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.images < 1 or args.runs < 1:
        parser.error("needs at least one image and one run")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        drawn = real_fields(args.fields) if args.fields != "drawn" else drawn_smears(work / "drawn")
        folder = copies(drawn, work / "smears", args.images)
        more = ["--processes", str(args.processes)] if args.processes else []
        rows = compare(folder, args.runs, args.device, more, work, args.exports)
        for many in args.many:
            larger = copies(drawn, work / f"{many} smears", many)
            rows[f"leukokit batch, {many} images"] = once(larger, many, args.device, more, work)
        spent = stages(folder, args.device)
    print_table(
        ["command", "images/s", "by CPU", "going", "MiB"],
        [
            [
                name,
                *(f"{row[key]:.2f}" for key in ("images_per_second", "images_per_cpu_second", "going")),
                f"{row['peak_mib']:.0f}",
            ]
            for name, row in rows.items()
        ],
    )
    print()
    print_table(["stage", "ms an image"], [[name, f"{1e3 * s:.1f}"] for name, s in spent.items()])
    write_figures(args.json, {"images": args.images, "device": args.device, "medians": rows, "stages": spent})


def real_fields(name: str) -> list[Path]:
    """The first fields of a laboratory, all different.

    Raises:
        SystemExit: they are not here.
    """
    found = sorted((REAL / name / "images").rglob("*.*"))
    if not found:
        raise SystemExit(f"{REAL / name}: not here; --fields drawn")
    # Over all slides.
    return found[:: max(1, len(found) // 100)][:100]


def drawn_smears(folder: Path) -> list[Path]:
    """Files of smears that are all different."""
    from leukokit.synthetic.smear import draw_smear, save_smear

    folder.mkdir()
    paths = [folder / f"{number:02}.png" for number in range(DISTINCT)]
    for number, path in enumerate(paths):
        save_smear(draw_smear(number, 640, 480, 2, ERYTHROCYTE_PX), path)
    return paths


def copies(drawn: list[Path], folder: Path, count: int) -> Path:
    """A folder of ``count`` smears."""
    folder.mkdir()
    for number in range(count):
        source = drawn[number % len(drawn)]
        shutil.copyfile(source, folder / f"smear{number:05}{source.suffix}")
    return folder


def compare(
    folder: Path, runs: int, device: str, more: list[str], work: Path, exports: bool = False
) -> dict[str, dict[str, float]]:
    """Medians of both commands, and of ``yolo`` on its exports."""
    checkpoint = work / "same-weights.pt"
    save_checkpoint(checkpoint)
    environment = {**ENVIRONMENT, "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(work)}
    images = len(list(folder.iterdir()))
    yolo: list[str | Path] = [
        *(console_script("yolo"), "detect", "predict", f"source={folder}"),
        *("imgsz=640", f"device={device}", f"project={work}", "name=predictions", "exist_ok=True"),
        *("save=False", "save_txt=True", "verbose=False"),
    ]
    models = {"yolo detect predict": checkpoint}
    for kind, suffix in (("onnx", ".onnx"), ("openvino", "_openvino_model")) if exports else ():
        export: list[str | Path] = [console_script("yolo"), "export", f"model={checkpoint}", f"format={kind}"]
        # Its own choice, a fixed size, pads fields of 640 x 480 to squares.
        measure([*export, "dynamic=True"], environment)
        models[f"yolo, its {kind} export"] = checkpoint.with_name(checkpoint.stem + suffix)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(runs + 1):
        rows = {"leukokit batch": once(folder, images, device, more, work)}
        for name, model in models.items():
            shutil.rmtree(work / "predictions", ignore_errors=True)
            measured = measure([*yolo, f"model={model}"], environment)
            written = [path.stat().st_mtime for path in (work / "predictions").rglob("*.txt")]
            rows[name] = row_of(name, measured, images, written)
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
        "images_per_cpu_second": images / measured.cpu_seconds,
        "going": (len(times) - 1) / max(times[-1] - times[0], 1e-6),
        "peak_mib": measured.peak_mib,
    }
    said = ", ".join(f"{key} {value:.1f}" for key, value in row.items())
    # A benchmark that is cut short has printed what it measured.
    print(f"{name}, {images} images: {said}", file=sys.stderr, flush=True)
    return row


def stages(folder: Path, device: str) -> dict[str, float]:
    """Seconds an image of each stage, one after the other in this process."""
    from leukokit.batch.manifest import Manifest
    from leukokit.batch.outputs.tables import write_tables
    from leukokit.batch.processing import RecordMaker
    from leukokit.batch.records import stamp_of
    from leukokit.images.inputs import find_images
    from leukokit.pipeline import Pipeline
    from leukokit.smear import read_smear

    pipeline = Pipeline(device=device, threads=1)
    images = find_images([folder]).images[:DISTINCT]
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, call: Any) -> Any:
        # CPU time on a CPU: a thread waits for its turn where the machine has other work.
        clock = time.process_time if device == "cpu" else time.perf_counter
        started = clock()
        answer = call()
        spent[name] += clock() - started
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
