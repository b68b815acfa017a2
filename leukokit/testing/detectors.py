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

TOLERANCE = 0.01
"""Pixels and scores by which two answers to one question may differ: batches add up in another order."""


def detector_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """All checks of a detector but those of its declarations."""

    def offline() -> None:
        with no_network() as tried:
            answer(subject.fresh(), [samples.smear()])
        require(not tried, f"asks the network for {', '.join(tried[:3])}")

    def pickles() -> None:
        instance = subject.fresh()
        copy = pickled(instance)
        _same(answer(copy, [samples.smear()]), answer(instance, [samples.smear()]), "a pickled copy's answer")

    # First, while nothing is cached yet.
    yield subject.bare("works without network", seconds, offline)
    yield from instance_checks(subject, seconds)
    yield subject.check("no smears", seconds, _no_smears)
    yield subject.check("a drawn smear", seconds, lambda plugin: _one(plugin, samples.smear()))
    yield subject.check("a standardised smear", seconds, lambda plugin: _one(plugin, samples.standardized()))
    for name in samples.odd_smears():
        yield subject.check(f"a smear of {name}", seconds, partial(_odd, name=name))
    yield subject.check("a batch is answered as its smears alone, in order", seconds, _in_order)
    yield subject.check("the same answer twice", seconds, lambda plugin: _deterministic(plugin, subject))
    yield subject.check("smears are left as they were", seconds, _unchanged)
    yield subject.check("stays on the CPU", seconds, _on_cpu)
    yield subject.bare("a new instance pickles", seconds, pickles)


def answer(plugin: Any, smears: Sequence[Smear]) -> list[Cells]:
    """What a detector finds, its form checked.

    Raises:
        AssertionError: it is not what the contract says.
    """
    found = plugin.detect(smears)
    require(isinstance(found, list), f"detect returned {type(found).__name__}, not a list")
    require(len(found) == len(smears), f"detect returned {len(found)} answers for {len(smears)} smears")
    for cells, smear in zip(found, smears, strict=True):
        require(isinstance(cells, Cells), f"detect returned {type(cells).__name__} for a smear, not Cells")
        # Made again, for a subclass may have gone round the constructor's own checks.
        Cells(cells.boxes, cells.kinds, cells.scores, cells.notes)
        for array, dtype in ((cells.boxes, np.float32), (cells.kinds, np.int64), (cells.scores, np.float32)):
            require(array.dtype == dtype, f"Cells hold {array.dtype}, not {np.dtype(dtype)}")
        require(
            all(isinstance(note, str) and note.isprintable() for note in cells.notes),
            "notes must be sentences of one line",
        )
        edges = np.array([smear.width, smear.height, smear.width, smear.height], np.float32)
        beyond = (cells.boxes < -TOLERANCE).any() or (cells.boxes > edges + TOLERANCE).any()
        require(not beyond, f"a box lies beyond the smear of {smear.width} x {smear.height} pixels")
    return list(found)


def _no_smears(plugin: Any) -> None:
    require(plugin.detect([]) == [], "detect([]) must return []")


def _one(plugin: Any, smear: Smear) -> None:
    answer(plugin, [smear])


def _odd(plugin: Any, name: str) -> None:
    _one(plugin, samples.odd_smears()[name])


def _in_order(plugin: Any) -> None:
    smears = (samples.smear(1), samples.odd_smears()["white"], samples.smear(2))
    alone = [answer(plugin, [smear])[0] for smear in smears]
    _same(answer(plugin, smears), alone, "a batch's answer")


def _deterministic(plugin: Any, subject: Subject) -> None:
    first = answer(plugin, [samples.smear()])
    _same(answer(plugin, [samples.smear()]), first, "the second answer")
    _same(answer(subject.fresh(), [samples.smear()]), first, "another instance's answer")


def _unchanged(plugin: Any) -> None:
    for smear in (samples.smear(), samples.standardized()):
        before = smear.image.copy()
        answer(plugin, [smear])
        require(np.array_equal(before, smear.image), "the smear's image was changed; work on a copy")


def _on_cpu(plugin: Any) -> None:
    with no_gpu():
        answer(plugin, [samples.smear()])


def _same(found: list[Cells], expected: list[Cells], what: str) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        require(
            samples.same_cells(one, other, TOLERANCE),
            f"{what} differs for smear {number + 1} ({len(one)} cells, then {len(other)})",
        )
