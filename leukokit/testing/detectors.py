"""Checks of a detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from leukokit.cells import Cells
from leukokit.smear import Smear
from leukokit.testing import samples
from leukokit.testing.check import Check, Subject, require
from leukokit.testing.declarations import instance_checks, pickled
from leukokit.testing.guards import no_gpu, no_network

BOX_TOLERANCE = 0.01
"""Largest difference of boxes (pixels) and scores between two results for the same smear: batches add up in
another order."""


def detector_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """All checks of a detector except those of its declarations."""

    def offline() -> None:
        with no_network() as tried:
            detector_output(subject.fresh(), [samples.smear()])
        require(not tried, f"needs the network: {', '.join(tried[:3])}")

    def pickles() -> None:
        instance = subject.fresh()
        copy = pickled(instance)
        _same_detections(
            detector_output(copy, [samples.smear()]),
            detector_output(instance, [samples.smear()]),
            "the result of a pickled copy",
        )

    # First, while nothing is cached yet.
    yield subject.bare("works without network", seconds, offline)
    yield from instance_checks(subject, seconds)
    yield subject.check("no smears", seconds, _no_smears)
    yield subject.check("a drawn smear", seconds, lambda plugin: _detect_one(plugin, samples.smear()))
    yield subject.check(
        "a standardised smear", seconds, lambda plugin: _detect_one(plugin, samples.standardized())
    )
    for name in samples.odd_smears():
        yield subject.check(f"a smear of {name}", seconds, partial(_detect_odd, name=name))
    yield subject.check(
        "a batch gives the same as its smears one by one, in order", seconds, _detector_keeps_order
    )
    yield subject.check(
        "the same result twice", seconds, lambda plugin: _detector_is_deterministic(plugin, subject)
    )
    yield subject.check("smears stay unchanged", seconds, _detector_keeps_inputs)
    yield subject.check("stays on the CPU", seconds, _detector_runs_on_cpu)
    yield subject.bare("a new instance can be pickled", seconds, pickles)


def detector_output(plugin: Any, smears: Sequence[Smear]) -> list[Cells]:
    """The cells that a detector returns, after a check of their form.

    Raises:
        AssertionError: they break the contract.
    """
    found = plugin.detect(smears)
    require(isinstance(found, list), f"detect returned {type(found).__name__}, not a list")
    require(len(found) == len(smears), f"detect returned {len(found)} results for {len(smears)} smears")
    for cells, smear in zip(found, smears, strict=True):
        require(isinstance(cells, Cells), f"detect returned {type(cells).__name__} for a smear, not Cells")
        # Made again: a subclass may have skipped the constructor's checks.
        Cells(cells.boxes, cells.kinds, cells.scores, cells.notes)
        for array, dtype in ((cells.boxes, np.float32), (cells.kinds, np.int64), (cells.scores, np.float32)):
            require(array.dtype == dtype, f"Cells hold {array.dtype}, not {np.dtype(dtype)}")
        require(
            all(isinstance(note, str) and note.isprintable() for note in cells.notes),
            "each note must be one line",
        )
        edges = np.array([smear.width, smear.height, smear.width, smear.height], np.float32)
        beyond = (cells.boxes < -BOX_TOLERANCE).any() or (cells.boxes > edges + BOX_TOLERANCE).any()
        require(not beyond, f"a box lies beyond the smear of {smear.width} x {smear.height} pixels")
    return list(found)


def _no_smears(plugin: Any) -> None:
    require(plugin.detect([]) == [], "detect([]) must return []")


def _detect_one(plugin: Any, smear: Smear) -> None:
    detector_output(plugin, [smear])


def _detect_odd(plugin: Any, name: str) -> None:
    _detect_one(plugin, samples.odd_smears()[name])


def _detector_keeps_order(plugin: Any) -> None:
    smears = (samples.smear(1), samples.odd_smears()["white"], samples.smear(2))
    alone = [detector_output(plugin, [smear])[0] for smear in smears]
    _same_detections(detector_output(plugin, smears), alone, "the result of a batch")


def _detector_is_deterministic(plugin: Any, subject: Subject) -> None:
    first = detector_output(plugin, [samples.smear()])
    _same_detections(detector_output(plugin, [samples.smear()]), first, "the second result")
    _same_detections(
        detector_output(subject.fresh(), [samples.smear()]), first, "the result of another instance"
    )


def _detector_keeps_inputs(plugin: Any) -> None:
    for smear in (samples.smear(), samples.standardized()):
        before = smear.image.copy()
        detector_output(plugin, [smear])
        require(np.array_equal(before, smear.image), "the smear's image was changed; work on a copy")


def _detector_runs_on_cpu(plugin: Any) -> None:
    with no_gpu():
        detector_output(plugin, [samples.smear()])


def _same_detections(found: list[Cells], expected: list[Cells], what: str) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        require(
            samples.same_cells(one, other, BOX_TOLERANCE),
            f"{what} differs for smear {number + 1} ({len(one)} cells, then {len(other)})",
        )
