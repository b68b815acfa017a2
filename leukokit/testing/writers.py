"""Checks of a writer; each makes a folder and removes it."""

from __future__ import annotations

import csv
import json
import os
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from leukokit.errors import LeukokitError
from leukokit.results import SmearResult
from leukokit.testing import samples
from leukokit.testing.check import Check, Subject, refuses, require
from leukokit.testing.declarations import provenance
from leukokit.testing.guards import no_gpu, no_network

HOSTILE: Final = {
    "a line break": "two\nlines",
    "quotes": 'say "it", it\'s; twice',
    "a tag": "<script>alert(1)",
    "a formula": "=cmd()",
    "markup": "[red]%s {0}[/red]",
    "other alphabets": "мазок 血液",
    "bytes that are no text": "smear \udcff",
}
"""Names of image files, by what is unusual about them."""


def writer_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """All checks of a writer except those of its declarations."""
    yield subject.bare("takes a folder and its parameters", seconds, lambda: _made(subject))
    yield subject.bare("works without network", seconds, lambda: _offline(subject))
    yield subject.bare("stays on the CPU", seconds, lambda: _writer_runs_on_cpu(subject))
    yield subject.bare("no results", seconds, lambda: _run_in_folder(lambda out: written(subject, out, [])))
    for name in _sample_results():
        yield subject.bare(f"a result with {name}", seconds, partial(_write_one, subject, name))
    yield subject.bare("equal names in two folders stay apart", seconds, lambda: _mirrors(subject))
    yield subject.bare("an image's files exist when write returns", seconds, lambda: _at_once(subject))
    # Windows allows none of the other names.
    for name in HOSTILE if os.name != "nt" else ["other alphabets"]:
        yield subject.bare(f"a file name with {name}", seconds, partial(_hostile, subject, name))
    yield subject.bare("files are replaced as a whole", seconds, lambda: _replaces_whole_files(subject))
    yield subject.bare("the same files from two runs", seconds, lambda: _writer_is_deterministic(subject))
    yield subject.bare("closes after a failure", seconds, lambda: _after_failure(subject))
    yield subject.bare("a file that cannot be written gives one line", seconds, lambda: _blocked(subject))
    yield subject.bare("results stay unchanged", seconds, lambda: _writer_keeps_inputs(subject))


def written(subject: Subject, out: Path, results: Sequence[SmearResult]) -> list[Path]:
    """The files that a writer makes, relative to ``out`` and sorted, after a check of their form.

    Raises:
        AssertionError: they break the contract.
    """
    around = _below(out.parent)
    with subject.writer(out) as writer:
        for result in results:
            writer.write(result)
    stray = _below(out.parent) - around - _below(out)
    require(not stray, f"wrote outside its folder: {_list_names(stray)}")
    files = [Path(path) for path in writer.files]
    for path in files:
        # Resolved: listed files may be removed later, and must not lie outside the folder.
        inside = path.resolve().is_relative_to(out.resolve()) and path.is_relative_to(out)
        require(inside and ".." not in path.parts, f"'files' names {path.name!r}, which is not under 'out'")
        require(path.is_file(), f"'files' names {path.name!r}, which does not exist")
    require(len(set(files)) == len(files), f"'files' names a file twice: {_list_names(files)}")
    unlisted = _below(out) - set(files)
    require(not unlisted, f"left files that 'files' does not name: {_list_names(unlisted)}")
    for path in files:
        _readable(path)
    return sorted(path.relative_to(out) for path in files)


def _below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


def _list_names(paths: Any) -> str:
    return ", ".join(sorted(ascii(path.name) for path in paths)[:3])


def _run_in_folder(body: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory(prefix="leukokit-check-") as folder:
        out = Path(folder) / "around" / "out"
        out.mkdir(parents=True)
        body(out)


def _sample_results() -> dict[str, SmearResult]:
    cells = samples.true_cells()
    labelled = samples.labelled(cells)
    kinds = samples.arrangements()
    return {
        "cells": samples.result(cells),
        "labelled cells": samples.result(labelled),
        "no cell": samples.result(kinds["no cell"]),
        "no leukocyte": samples.result(samples.labelled(kinds["no leukocyte"])),
        "no graph": replace(samples.result(labelled), graph=None),
        "cells beyond the border": samples.result(kinds["cells beyond the border"]),
        "cells without a size": samples.result(kinds["cells without a size"]),
    }


def _made(subject: Subject) -> None:
    def body(out: Path) -> None:
        with subject.writer(out) as writer:
            require(writer.out == out, "__init__ does not pass 'out' on")
            require(writer.params == subject.params(), "__init__ does not pass its params on")
            require(isinstance(writer.file_per_image, bool), "file_per_image must be True or False")
            provenance(writer)

    _run_in_folder(body)


def _offline(subject: Subject) -> None:
    with no_network() as tried:
        _write_one(subject, "labelled cells")
    require(not tried, f"needs the network: {', '.join(tried[:3])}")


def _writer_runs_on_cpu(subject: Subject) -> None:
    with no_gpu():
        _write_one(subject, "labelled cells")


def _write_one(subject: Subject, name: str) -> None:
    _run_in_folder(lambda out: written(subject, out, [_sample_results()[name]]))


def _two() -> list[SmearResult]:
    cells = samples.labelled(samples.true_cells())
    return [samples.result(cells, "a/field"), samples.result(cells, "b/field", seed=2)]


def _mirrors(subject: Subject) -> None:
    def body(out: Path) -> None:
        files = written(subject, out, _two())
        if subject.plugin.file_per_image:
            for folder in ("a", "b"):
                found = [path for path in files if path.parts[0] == folder and path.name.startswith("field")]
                require(found, f"no file of the image {folder}/field has that name; use path_for")

    _run_in_folder(body)


def _at_once(subject: Subject) -> None:
    def body(out: Path) -> None:
        known: set[Path] = set()
        with subject.writer(out) as writer:
            for result in _two():
                writer.write(result)
                now = {Path(path) for path in writer.files}
                missing = [path for path in now if not path.is_file()]
                require(not missing, f"'files' names {_list_names(missing)} before it exists")
                if writer.file_per_image:
                    say = "write returned and listed no new file; set file_per_image = False"
                    require(now - known, f"{say} where a file holds all images")
                known = now

    _run_in_folder(body)


def _hostile(subject: Subject, name: str) -> None:
    stem = HOSTILE[name]
    result = samples.result(samples.labelled(samples.true_cells()), stem)
    _run_in_folder(lambda out: written(subject, out, [result]))


def _readable(path: Path) -> None:
    """Check that a file of a known format can be read back and is safe to open."""
    content = path.read_bytes()
    suffix = path.suffix.lower()
    try:
        if suffix in (".json", ".geojson"):
            json.loads(content, parse_constant=_no_constant)
        elif suffix in (".jsonl", ".ndjson"):
            for line in content.decode().splitlines():
                json.loads(line, parse_constant=_no_constant)
        elif suffix in (".csv", ".tsv"):
            _readable_table(path)
        elif suffix in (".graphml", ".gexf", ".xml", ".svg"):
            ET.fromstring(content)
        elif suffix in (".html", ".htm"):
            require(
                b"<script>alert" not in content, f"{path.name!r}: a file's name became a script; escape it"
            )
    except (ValueError, ET.ParseError, csv.Error) as error:
        raise AssertionError(f"{path.name!r} cannot be read as {suffix[1:]} ({error})") from error


def _readable_table(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as stream:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = list(csv.reader(stream, delimiter=delimiter, strict=True))
    widths = {len(row) for row in rows}
    require(len(widths) <= 1, f"{path.name!r}: rows of {sorted(widths)} columns")
    formulas = [cell for row in rows for cell in row if cell.startswith("=")]
    require(not formulas, f"{path.name!r}: a spreadsheet would run {formulas[:1]}; put ' in front")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _replaces_whole_files(subject: Subject) -> None:
    """A second run must replace the files, not write into them."""

    def body(out: Path) -> None:
        files = written(subject, out, [_sample_results()["labelled cells"]])
        kept = out.parent.parent / "kept"
        kept.mkdir()
        before = {}
        for number, path in enumerate(files):
            try:
                (kept / str(number)).hardlink_to(out / path)
            except OSError:
                # A file system without links: nothing to check.
                return
            before[path] = (out / path).read_bytes()
        with subject.writer(out) as writer:
            writer.write(_sample_results()["no cell"])
        for number, path in enumerate(files):
            old = (kept / str(number)).read_bytes()
            same_file = (kept / str(number)).samefile(out / path)
            require(
                old == before[path] and not same_file,
                f"{path.name!r} is written in place, so a reader may see an incomplete file; use save()",
            )

    _run_in_folder(body)


def _writer_is_deterministic(subject: Subject) -> None:
    stored: list[dict[Path, bytes]] = []

    def body(out: Path) -> None:
        files = written(subject, out, _two())
        stored.append({path: (out / path).read_bytes() for path in files})

    _run_in_folder(body)
    _run_in_folder(body)
    first, second = stored
    require(first.keys() == second.keys(), "the second run made files with other names")
    differing = [path for path in first if first[path] != second[path]]
    require(not differing, f"{_list_names(differing)} differs from run to run (a time, a random number?)")


def _after_failure(subject: Subject) -> None:
    def body(out: Path) -> None:
        writer = subject.writer(out)

        def fails() -> None:
            with writer:
                writer.write(_sample_results()["labelled cells"])
                raise KeyError("a failure between two images")

        require(refuses(fails, (KeyError,)), "the failure did not come through the 'with' block")
        unlisted = _below(out) - {Path(path) for path in writer.files}
        require(not unlisted, f"left files that 'files' does not name: {_list_names(unlisted)}")

    _run_in_folder(body)


def _blocked(subject: Subject) -> None:
    """Put a folder in the file's place: writing then fails as on a full disk."""

    def body(out: Path) -> None:
        for path in written(subject, out, [_sample_results()["labelled cells"]]):
            (out / path).unlink()
            (out / path).mkdir()
        try:
            with subject.writer(out) as writer:
                writer.write(_sample_results()["labelled cells"])
        except LeukokitError as error:
            require("\n" not in str(error), "the error is not one line")
        except Exception as error:
            name = type(error).__name__
            raise AssertionError(
                f"a file that cannot be written raised {name}; raise OutputError, or use save()"
            ) from error
        else:
            raise AssertionError("a file that cannot be written raised nothing")
        require(not _below(out), f"left {_list_names(_below(out))} although a file could not be written")

    _run_in_folder(body)


def _writer_keeps_inputs(subject: Subject) -> None:
    result, before = _sample_results()["labelled cells"], _sample_results()["labelled cells"]
    _run_in_folder(lambda out: written(subject, out, [result]))
    require(np.array_equal(result.smear.image, before.smear.image), "the smear's image was changed")
    require(samples.same_cells(result.cells, before.cells), "the cells' arrays were changed; work on copies")
    require(result.provenance == before.provenance, "the result's provenance was changed")
