"""Checks of a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from leukokit.graph import CellGraph
from leukokit.smear import Smear
from leukokit.taxonomy import LEUKOCYTE, UNCLASSIFIED
from leukokit.testing import samples
from leukokit.testing.check import Check, Subject, require
from leukokit.testing.declarations import instance_checks, pickled
from leukokit.testing.guards import no_gpu, no_network

PROBABILITY_TOLERANCE = 1e-4
"""Largest difference between two predictions for the same cell: batches add up in another order."""
SUM_TOLERANCE = 1e-3
"""Largest distance of a row's sum from 1, as ``leukokit.cells.Labelling`` accepts it."""

Probabilities32 = npt.NDArray[np.float32]


def classifier_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """All checks of a classifier except those of its declarations."""

    def offline() -> None:
        with no_network() as tried:
            _classify_drawn(subject.fresh())
        require(not tried, f"needs the network: {', '.join(tried[:3])}")

    def pickles() -> None:
        instance = subject.fresh()
        copy = pickled(instance)
        _same_probabilities(
            classifier_output(copy, *_classified_fields()),
            classifier_output(instance, *_classified_fields()),
            "the result of a pickled copy",
        )

    # First, while nothing is cached yet.
    yield subject.bare("works without network", seconds, offline)
    yield from instance_checks(subject, seconds)
    yield subject.check("classes and review threshold", seconds, _classes)
    yield subject.check("no graphs", seconds, _no_graphs)
    for name in samples.arrangements():
        yield subject.check(name, seconds, partial(_classify_arrangement, name=name))
    yield subject.check("a smear of one pixel", seconds, _one_pixel)
    yield subject.check("cells without links", seconds, _unlinked)
    yield subject.check("a drawn smear", seconds, _classify_drawn)
    yield subject.check("a standardised smear", seconds, _standardized)
    yield subject.check(
        "a batch gives the same as its graphs one by one, in order", seconds, _classifier_keeps_order
    )
    yield subject.check(
        "the same result twice", seconds, lambda plugin: _classifier_is_deterministic(plugin, subject)
    )
    yield subject.check("smears and graphs stay unchanged", seconds, _classifier_keeps_inputs)
    yield subject.check("stays on the CPU", seconds, _classifier_runs_on_cpu)
    yield subject.bare("a new instance can be pickled", seconds, pickles)


def classifier_output(
    plugin: Any, smears: Sequence[Smear], graphs: Sequence[CellGraph]
) -> list[Probabilities32]:
    """The probabilities that a classifier returns, after a check of their form.

    Raises:
        AssertionError: they break the contract.
    """
    found = plugin.classify(smears, graphs)
    require(isinstance(found, list), f"classify returned {type(found).__name__}, not a list")
    require(len(found) == len(graphs), f"classify returned {len(found)} arrays for {len(graphs)} graphs")
    for rows, graph in zip(found, graphs, strict=True):
        _form(rows, graph, len(plugin.classes))
    return list(found)


def _form(rows: Any, graph: CellGraph, classes: int) -> None:
    require(
        isinstance(rows, np.ndarray), f"classify returned {type(rows).__name__} for a graph, not an array"
    )
    shape = (len(graph), classes)
    require(rows.shape == shape, f"shape {rows.shape}, not {shape}: one row per node, one column per class")
    require(rows.dtype == np.float32, f"probabilities are {rows.dtype}, not float32")
    require(np.isfinite(rows).all(), "probabilities are not finite (NaN?)")
    require((rows >= 0).all(), "a probability is negative")
    leukocyte = graph.cells.kinds == LEUKOCYTE
    sums = rows.sum(axis=1)
    wrong = sums[leukocyte][np.abs(sums[leukocyte] - 1) > SUM_TOLERANCE]
    require(not len(wrong), f"the row of a leukocyte sums to {wrong[:1].sum():.4g}, not to 1")
    require(not rows[~leukocyte].any(), "the row of a cell that is not a leukocyte must be zero")


def _classified_fields() -> tuple[list[Smear], list[CellGraph]]:
    return [samples.smear()], [samples.neighbours(samples.true_cells())]


def _classes(plugin: Any) -> None:
    classes = plugin.classes
    require(isinstance(classes, tuple), f"classes is {type(classes).__name__}, not a tuple")
    require(len(classes) > 0, "there are no classes")
    for name in classes:
        require(
            isinstance(name, str) and name.strip() and name.isprintable(), f"class {name!r} is not a name"
        )
        require(name != UNCLASSIFIED, f"'{UNCLASSIFIED}' is the label of cells below the review threshold")
    require(len(set(classes)) == len(classes), "two classes have the same name")
    review_threshold = plugin.review_threshold
    require(
        isinstance(review_threshold, int | float) and 0 <= review_threshold <= 1,
        f"review_threshold is {review_threshold!r}, not a number from 0 to 1",
    )
    classifier_output(plugin, *_classified_fields())
    require(plugin.classes == classes, "classes changed while cells were classified")


def _no_graphs(plugin: Any) -> None:
    require(plugin.classify([], []) == [], "classify([], []) must return []")


def _classify_arrangement(plugin: Any, name: str) -> None:
    classifier_output(plugin, [samples.smear()], [samples.neighbours(samples.arrangements()[name])])


def _one_pixel(plugin: Any) -> None:
    tiny = samples.odd_smears()["one pixel"]
    classifier_output(plugin, [tiny], [samples.neighbours(samples.arrangements()["two cells"])])


def _unlinked(plugin: Any) -> None:
    classifier_output(plugin, [samples.smear()], [CellGraph.unlinked(samples.true_cells())])


def _classify_drawn(plugin: Any) -> None:
    classifier_output(plugin, *_classified_fields())


def _standardized(plugin: Any) -> None:
    classifier_output(plugin, [samples.standardized()], _classified_fields()[1])


def _classifier_keeps_order(plugin: Any) -> None:
    smears = (samples.smear(1), samples.odd_smears()["white"], samples.smear(2))
    graphs = (
        samples.neighbours(samples.true_cells(1)),
        CellGraph.unlinked(samples.arrangements()["no cell"]),
        samples.neighbours(samples.true_cells(2)),
    )
    alone = [
        classifier_output(plugin, [smear], [graph])[0] for smear, graph in zip(smears, graphs, strict=True)
    ]
    _same_probabilities(classifier_output(plugin, smears, graphs), alone, "the result of a batch")


def _classifier_is_deterministic(plugin: Any, subject: Subject) -> None:
    first = classifier_output(plugin, *_classified_fields())
    _same_probabilities(classifier_output(plugin, *_classified_fields()), first, "the second result")
    _same_probabilities(
        classifier_output(subject.fresh(), *_classified_fields()), first, "the result of another instance"
    )


def _classifier_keeps_inputs(plugin: Any) -> None:
    smears, graphs = _classified_fields()
    classifier_output(plugin, smears, graphs)
    (smear,), (graph,) = _classified_fields()
    require(np.array_equal(smears[0].image, smear.image), "the smear's image was changed; work on a copy")
    same = samples.same_cells(graphs[0].cells, graph.cells) and samples.same(graphs[0].edges, graph.edges)
    require(same, "the graph's arrays were changed; work on copies")


def _classifier_runs_on_cpu(plugin: Any) -> None:
    with no_gpu():
        classifier_output(plugin, *_classified_fields())


def _same_probabilities(found: list[Probabilities32], expected: list[Probabilities32], what: str) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        require(samples.same(one, other, PROBABILITY_TOLERANCE), f"{what} differs for graph {number + 1}")
