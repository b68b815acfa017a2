"""The reference pages name every column, key and exit code that the commands produce."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consoles import ROOT, draw_smears
from typer.testing import CliRunner

from leukokit.cli import app

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    draw_smears(folder / "smears")
    command = ["batch", str(folder / "smears"), "--out", str(folder / "out"), "--group-by", "folder"]
    run = CliRunner().invoke(app, [*command, "--target", "200", "--save", "json", "--quiet"])
    assert run.exit_code == 0, run.output
    return folder / "out"


@pytest.mark.parametrize("name", ["counts.csv", "cells.csv", "differential.csv", "failures.csv"])
def test_files_page_names_every_column(results: Path, name: str) -> None:
    page = (REFERENCE / "files.md").read_text(encoding="utf-8")
    section = page.split(f"## `{name}`")[1].split("\n## ")[0]
    with (results / name).open(encoding="utf-8", newline="") as stream:
        columns = next(csv.reader(stream))
    assert [column for column in columns if f"`{column}`" not in section] == []


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            if key == "classes":
                yield from _keys(list(part.values()))
            # What a plugin writes of itself is described by the plugin.
            elif key not in ("provenance", "counts", "probabilities", "params"):
                yield from _keys(part)
    elif isinstance(value, list):
        for part in value:
            yield from _keys(part)


def test_json_page_names_every_key(results: Path) -> None:
    page = (REFERENCE / "json.md").read_text(encoding="utf-8")
    (path, *_) = sorted(results.rglob("field-*.json"))
    keys = set(_keys(json.loads(path.read_text(encoding="utf-8"))))
    assert [
        key
        for key in sorted(keys)
        if f"`{key}`" not in page
        and f".{key}`" not in page
        and not any(f"`{key}{mark}" in page for mark in ".[")
    ] == []


def test_files_page_names_every_file(results: Path) -> None:
    page = (REFERENCE / "files.md").read_text(encoding="utf-8")
    files = [path.name for path in results.iterdir() if path.is_file() and path.suffix != ".lock"]
    assert [name for name in sorted(files) if f"`{name}`" not in page] == []
