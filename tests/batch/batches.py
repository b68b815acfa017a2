"""What the tests of a batch share: images that script their detector, and the command run on them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leukokit.cli import main
from leukokit.registry import classifiers, detectors, load_plugin_file

ACTIONS = ("find", "fail", "hang", "die")
"""As in scripted.py, which is loaded as a plugin file."""
PLUGINS = Path(__file__).with_name("scripted.py")


@contextmanager
def with_scripted_plugins() -> Iterator[None]:
    """The plugins of scripted.py, for as long as a module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (detectors, classifiers):
            patch.setattr(registry, "_registered", dict(registry._registered))
        load_plugin_file(PLUGINS)
        yield


def save(
    path: Path, leukocytes: int, erythrocytes: int = 3, action: str = "find", shade: int = 0, third: int = 0
) -> Path:
    """Save an image on which the scripted detector finds so many cells, or does something else.

    Args:
        path: the image.
        leukocytes: that the detector finds.
        erythrocytes: likewise.
        action: of ``scripted.ACTIONS``.
        shade: makes a file of its own of images of equal counts.
        third: channel of the first pixel, for other detectors.
    """
    pixels = np.full((40, 50, 3), (200, 180, 190), np.uint8)
    pixels[0, 0] = leukocytes, erythrocytes, third or ACTIONS.index(action)
    pixels[1, 1] = shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def folder_of(root: Path, count: int) -> Path:
    for number in range(count):
        save(root / f"slide-{number % 3}" / f"f{number:03}.png", number % 7)
    return root


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return [
        *("batch", str(root), "--out", str(out), "--detector", "scripted"),
        *("--classifier", "turns", "--set", "standardize=false", "--device", "cpu", "--save", "json"),
        *("--processes", "0"),
        *more,
    ]


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    """Exit code of the command, run here."""
    monkeypatch.setattr(sys, "argv", ["leukokit", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def damage(out: Path, pages: int = 1) -> None:
    """Spoil the manifest behind its first pages, as a failing disk does."""
    path, kept = out / "manifest.sqlite", pages * 4096
    content = path.read_bytes()
    path.write_bytes(content[:kept] + b"\xa5" * (len(content) - kept))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files(out: Path) -> dict[str, object]:
    """All that a batch wrote but times, which no two runs share."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".json" and name != "run.json":
            document = json.loads(path.read_text(encoding="utf-8"))
            found[name] = document | {"seconds": 0}
        elif path.suffix == ".csv":
            found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path)]
    return found
