"""Compare the tables, JSON and labels that two installations of leukokit write of the same real fields.

    python tools/compare_outputs.py --before OLD/bin/python --after NEW/bin/python --data ../shared/data

Both run ``leukokit batch`` on the same fields, spread over the laboratories. Keys that were renamed are
compared under their new name, keys that were added are left out; whatever else differs is printed, and the
exit code is then 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

RENAMED: Final = {
    "cell_diameter_px": "erythrocyte_diameter_px",
    "few": "below_minimum",
    "limit": "review_threshold",
    "limits": "interval",
}
ADDED: Final = frozenset({"unknown", "warning", "withheld", "bounds", "least_percent", "most_percent"})
"""Keys and columns that the earlier version lacks."""
PASSING: Final = frozenset({"seconds", "provenance"})
"""What no two runs share, or what says which version ran."""
SUFFIXES: Final = frozenset({".csv", ".json", ".geojson", ".txt"})
MAX_LINES: Final = 40


def main() -> None:
    """Run both, compare, and end with 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="interpreter of the earlier installation")
    parser.add_argument("--after", type=Path, default=Path(sys.executable), help="of the later one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with fields.csv")
    parser.add_argument("--fields", type=int, default=60, help="number of fields")
    parser.add_argument("--tolerance", type=float, default=0.0, help="by how much a decimal may differ")
    parser.add_argument("--keep", type=Path, help="folder for both results, instead of a temporary one")
    arguments = parser.parse_args()
    fields = chosen_fields(arguments.data, arguments.fields)
    data = arguments.data.resolve()
    print(f"{len(fields)} fields: {dict(Counter(path.relative_to(data).parts[0] for path in fields))}")
    with tempfile.TemporaryDirectory() as temporary:
        place = (arguments.keep or Path(temporary)).resolve()
        for name in ("before", "after"):
            run_batch(getattr(arguments, name), fields, place / name)
        differences = list(compare_folders(place / "before", place / "after", arguments.tolerance))
    for line in differences[:MAX_LINES]:
        print(line)
    print(f"{len(differences)} differences" if differences else "no differences")
    sys.exit(bool(differences))


def chosen_fields(data: Path, number: int) -> list[Path]:
    """Return fields of all laboratories, as many of each as there are, evenly spaced."""
    with (data / "fields.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    by_lab: dict[str, list[Path]] = {}
    for row in rows:
        path = (data / row["dataset"] / row["file"]).resolve()
        if path.is_file():
            by_lab.setdefault(f"{row['dataset']}/{row['lab']}", []).append(path)
    share = -(-number // len(by_lab))
    found = [
        path
        for paths in by_lab.values()
        for path in sorted(set(paths))[:: max(len(set(paths)) // share, 1)][:share]
    ]
    return sorted(set(found))[:number] if len(found) > number else sorted(set(found))


def run_batch(interpreter: Path, fields: list[Path], out: Path) -> None:
    """Run one installation from a folder where no checkout is imported instead of it."""
    command = [
        *(interpreter.absolute(), "-m", "leukokit", "batch", *fields, "--out", out),
        *("--save", "json,geojson,yolo", "--group-by", "folder", "--device", "cpu", "--quiet"),
    ]
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(part) for part in command], check=True, cwd=out.parent)


def compare_folders(before: Path, after: Path, tolerance: float = 0.0) -> Iterator[str]:
    """Yield a line for each difference between two folders of results."""
    files = {path.relative_to(before) for path in before.rglob("*") if path.suffix in SUFFIXES}
    others = {path.relative_to(after) for path in after.rglob("*") if path.suffix in SUFFIXES}
    yield from (f"{name}: only {'before' if name in files else 'after'}" for name in sorted(files ^ others))
    for name in sorted(files & others - {Path("run.json")}):
        yield from _differences(read(before / name), read(after / name), name.as_posix(), tolerance)
    run = [read(folder / "run.json") for folder in (before, after)]
    for key in ("images", "counts", "differential", "image_sha256"):
        yield from _differences(run[0][key], run[1][key], f"run.json: {key}", tolerance)


def read(path: Path) -> Any:
    """Return the content of a file with its keys as they are called now."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return [renamed(row) for row in csv.DictReader(text.splitlines())]
    if path.suffix == ".txt":
        return [line.split() for line in text.splitlines()]
    return renamed(json.loads(text))


def renamed(value: Any) -> Any:
    """Return a document with its keys as they are called now, without those that need not agree."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key not in PASSING | ADDED}
        return {RENAMED.get(key, key): renamed(part) for key, part in kept.items()}
    if isinstance(value, list):
        return [renamed(part) for part in value]
    return value


def _differences(before: Any, after: Any, where: str, tolerance: float) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(key), after.get(key), f"{where}: {key}", tolerance)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(*pair, f"{where}[{number}]", tolerance)
    elif not _is_same(before, after, tolerance):
        yield f"{where}: {_short(before)} before, {_short(after)} after"


def _is_same(before: Any, after: Any, tolerance: float) -> bool:
    """Whether two values agree: decimals to within the tolerance, counts and text exactly."""
    if before == after:
        return True
    try:
        numbers = float(before), float(after)
    except (TypeError, ValueError):
        return False
    is_decimal = any("." in str(value) for value in (before, after))
    return is_decimal and abs(numbers[0] - numbers[1]) <= tolerance


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


if __name__ == "__main__":
    main()
