"""Checks of a graph builder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from leukokit.cells import Cells
from leukokit.graph import CellGraph
from leukokit.testing import samples
from leukokit.testing.check import Check, Subject, require
from leukokit.testing.declarations import instance_checks, pickled
from leukokit.testing.guards import no_gpu, no_network


def graph_builder_checks(subject: Subject, seconds: float) -> Iterator[Check]:
    """All checks of a graph builder except those of its declarations."""

    def offline() -> None:
        with no_network() as tried:
            builder_output(subject.fresh(), samples.true_cells())
        require(not tried, f"needs the network: {', '.join(tried[:3])}")

    def pickles() -> None:
        copy = pickled(subject.fresh())
        cells = samples.true_cells()
        same = samples.same(builder_output(copy, cells).edges, builder_output(subject.fresh(), cells).edges)
        require(same, "the result of a pickled copy differs")

    yield subject.bare("works without network", seconds, offline)
    yield from instance_checks(subject, seconds)
    for name in samples.arrangements():
        yield subject.check(name, seconds, partial(_build_arrangement, name=name))
    yield subject.check("the cells of a smear", seconds, lambda plugin: _build_drawn(plugin))
    yield subject.check(
        "the same result twice", seconds, lambda plugin: _builder_is_deterministic(plugin, subject)
    )
    yield subject.check("cells stay unchanged", seconds, _builder_keeps_inputs)
    yield subject.check("stays on the CPU", seconds, _builder_runs_on_cpu)
    yield subject.bare("a new instance can be pickled", seconds, pickles)


def builder_output(plugin: Any, cells: Cells) -> CellGraph:
    """The graph that a builder returns, after a check of its form.

    Raises:
        AssertionError: it breaks the contract.
    """
    graph: CellGraph = plugin.build(cells)
    require(isinstance(graph, CellGraph), f"build returned {type(graph).__name__}, not CellGraph")
    found = f"{len(graph.cells)} nodes for {len(cells)} cells"
    require(len(graph.cells) == len(cells), f"{found}; cells without a link are nodes, too")
    require(samples.same_cells(graph.cells, cells), "the nodes are not the cells in their order")
    require(graph.cells.notes == cells.notes, "the cells' notes are lost")
    require(graph.edges.dtype == np.int64, f"edges are {graph.edges.dtype}, not int64")
    try:
        # Made again: a subclass may have skipped the constructor's checks.
        CellGraph(graph.cells, graph.edges, graph.builder, graph.params)
    except ValueError as error:
        raise AssertionError(str(error)) from error
    require(graph.builder == plugin.name, f"the graph's builder is '{graph.builder}', not '{plugin.name}'")
    stored = plugin.params.model_dump(mode="json")
    require(graph.params == stored, "the graph's params are not those of the builder")
    return graph


def _build_arrangement(plugin: Any, name: str) -> None:
    builder_output(plugin, samples.arrangements()[name])


def _build_drawn(plugin: Any) -> None:
    graph = builder_output(plugin, samples.true_cells())
    require(np.isfinite(graph.lengths).all(), "a link has no finite length")


def _builder_is_deterministic(plugin: Any, subject: Subject) -> None:
    for cells in (samples.true_cells(), samples.arrangements()["cells on a grid"]):
        first = builder_output(plugin, cells).edges
        require(samples.same(builder_output(plugin, cells).edges, first), "the second result differs")
        require(
            samples.same(builder_output(subject.fresh(), cells).edges, first),
            "the result of another instance differs",
        )


def _builder_keeps_inputs(plugin: Any) -> None:
    cells, before = samples.true_cells(), samples.true_cells()
    builder_output(plugin, cells)
    require(samples.same_cells(cells, before), "the cells' arrays were changed; work on copies")


def _builder_runs_on_cpu(plugin: Any) -> None:
    with no_gpu():
        builder_output(plugin, samples.true_cells())
