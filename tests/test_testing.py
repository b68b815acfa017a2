"""The conformance kit: built-in plugins pass it, and each way of being broken is found and named."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from leukokit.cells import Cells
from leukokit.classifiers.base import Classifier
from leukokit.detectors.base import Detector
from leukokit.errors import PluginError
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.plugin import PluginParams
from leukokit.registry import ALL
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE
from leukokit.testing import Check, Report, checks, run_checks, samples
from leukokit.testing.guards import no_network
from leukokit.writers.base import Writer

BUILT_IN = [
    (registry.kind, row.name) for registry in ALL for row in registry.rows() if row.package == "leukokit"
]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_built_in_plugins_pass(kind: str, name: str) -> None:
    report = run_checks(name, kind=kind)
    assert [outcome.message for outcome in report.outcomes if not outcome.passed] == []
    assert report.passed and len(report.outcomes) > 20
    assert report.plugin == f"{kind} '{name}'"
    assert report.seconds >= max(outcome.seconds for outcome in report.outcomes) > 0


# --- plugins that keep the contract, to be broken one way at a time ----------------------------------


class GoodDetector(Detector):
    name, version, summary = "good", "1", "one box"

    def detect(self, smears: Any) -> list[Cells]:
        return [self.one(smear) for smear in smears]

    def one(self, smear: Any) -> Cells:
        # Depends on the picture, so that an order can be seen.
        x = float(smear.image.mean()) / 255 * smear.width / 2
        return Cells(np.array([[0, 0, x, smear.height]]), np.array([LEUKOCYTE]), np.array([0.5]))


class GoodBuilder(GraphBuilder):
    name, version, summary = "good", "1", "a chain"

    def pairs(self, points: Any, unit: float) -> Any:
        return np.stack([np.arange(len(points) - 1), np.arange(1, len(points))])


class GoodClassifier(Classifier):
    name, version, summary = "good", "1", "two classes"

    @property
    def classes(self) -> tuple[str, ...]:
        return ("one", "two")

    def classify(self, smears: Any, graphs: Any) -> list[Any]:
        return [self.rows(smear, graph) for smear, graph in zip(smears, graphs, strict=True)]

    def rows(self, smear: Any, graph: Any) -> Any:
        rows = np.zeros((len(graph), 2), np.float32)
        share = float(smear.image.mean()) / 255
        rows[graph.cells.kinds == LEUKOCYTE] = share, 1 - share
        return rows


class GoodWriter(Writer):
    name, version, summary = "good", "1", "a text"

    def write(self, result: Any) -> None:
        self.save(self.path_for(result, ".txt"), f"{len(result.cells)}\n")


GOOD = {
    "detector": GoodDetector,
    "graph builder": GoodBuilder,
    "classifier": GoodClassifier,
    "writer": GoodWriter,
}


def broken(kind: str, **attributes: Any) -> type[Any]:
    """The good plugin of a kind with something else in its place; pickle finds it in this module."""
    base = GOOD[kind]
    made = type("Broken", (base,), attributes)
    made.__module__, made.__qualname__ = __name__, "Broken"
    globals()["Broken"] = made
    return made


def failures(plugin: type[Any], **options: Any) -> dict[str, str]:
    report = run_checks(plugin, **options)
    assert all(len(outcome.message.splitlines()) <= 1 for outcome in report.outcomes)
    for outcome in report.outcomes:
        assert bool(outcome.message) is not outcome.passed
        assert outcome.passed or outcome.message.startswith(report.plugin)
    return {outcome.name: outcome.message for outcome in report.outcomes if not outcome.passed}


@pytest.mark.parametrize("kind", list(GOOD))
def test_the_good_ones_pass(kind: str) -> None:
    assert failures(GOOD[kind]) == {}
    assert failures(broken(kind)) == {}


def rows_then(change: Callable[[Any], Any]) -> Any:
    return lambda self, smears, graphs: [
        change(rows) for rows in GoodClassifier.classify(self, smears, graphs)
    ]


def times(factor: float) -> Callable[[Any], Any]:
    return lambda rows: rows * np.float32(factor)


def write_into(smear: Any) -> Cells:
    smear.image[0, 0] = 0
    return Cells.empty()


def moved(cells: Cells) -> CellGraph:
    cells.boxes[:] += 1
    return CellGraph.unlinked(cells)


def unsorted(self: Any, cells: Cells) -> CellGraph:
    graph = GoodBuilder.build(self, cells)
    object.__setattr__(graph, "edges", graph.edges[:, ::-1])
    return graph


def dial(self: Any, smears: Any) -> list[Cells]:
    # Quietly: an error that the plugin catches is seen all the same.
    with contextlib.suppress(OSError):
        socket.create_connection(("203.0.113.1", 9), timeout=0.2)
    return GoodDetector.detect(self, smears)


def ask_in_vain(self: Any, smears: Any) -> list[Cells]:
    raise RuntimeError("no such\nthing")


COUNTER = itertools.count()


def box_to(right: float, left: float = 0) -> Cells:
    return Cells(np.array([[left, 0, right, 1]]), np.array([LEUKOCYTE]), np.ones(1, np.float32))


def one_short(self: Any, smears: Any) -> list[Cells]:
    return GoodDetector.detect(self, smears)[:-1] if smears else []


@pytest.mark.parametrize(
    ("attributes", "check", "said"),
    [
        ({"detect": lambda self, smears: None}, "no smears", "must return []"),
        ({"detect": lambda self, smears: (Cells.empty(),) * len(smears)}, "a drawn smear", "not a list"),
        ({"detect": lambda self, smears: [None for _ in smears]}, "a drawn smear", "not Cells"),
        ({"detect": one_short}, "a drawn smear", "0 results for 1"),
        ({"detect": ask_in_vain}, "a smear of white", "RuntimeError: no such thing (test_testing.py, line"),
        ({"detect": dial}, "works without network", "needs the network: 203.0.113.1"),
        ({"one": lambda self, smear: write_into(smear)}, "smears stay unchanged", "work on a copy"),
        (
            {"detect": lambda self, smears: GoodDetector.detect(self, smears)[::-1]},
            "a batch gives the same as its smears one by one, in order",
            "differs for smear 1",
        ),
        (
            {"one": lambda self, smear: box_to(next(COUNTER) % 2)},
            "the same result twice",
            "differs",
        ),
        (
            {"one": lambda self, smear: box_to(1, left=-1)},
            "a drawn smear",
            "beyond the smear",
        ),
        (
            {"one": lambda self, smear: box_to(np.nan)},
            "a drawn smear",
            "boxes must be finite",
        ),
        (
            {"__init__": lambda self, params=None, device="cpu": Detector.__init__(self, params, "cuda")},
            "takes its parameters",
            "device",
        ),
        ({"__init__": lambda self: None}, "takes its parameters", "raised TypeError"),
        ({"provenance": lambda self: {"name": "good", "when": object()}}, "provenance is JSON", "plain JSON"),
    ],
)  # fmt: skip
def test_a_broken_detector_is_told_how(attributes: dict[str, Any], check: str, said: str) -> None:
    assert said in failures(broken("detector", **attributes))[check]


@pytest.mark.parametrize(
    ("attributes", "check", "said"),
    [
        ({"build": lambda self, cells: None}, "no cell", "not CellGraph"),
        ({"build": lambda self, cells: CellGraph.unlinked(cells[:1])}, "two cells", "1 nodes for 2 cells"),
        ({"build": lambda self, cells: CellGraph.unlinked(cells[::-1])}, "three cells", "in their order"),
        ({"build": lambda self, cells: CellGraph.unlinked(cells)}, "two cells", "builder is ''"),
        ({"build": lambda self, cells: moved(cells)}, "cells stay unchanged", ""),
        ({"build": unsorted}, "three cells", "sorted by first"),
        ({"pairs": lambda self, points, unit: np.zeros((2, 1), np.int64)}, "two cells", "linked to itself"),
        ({"pairs": lambda self, points, unit: 1 / 0}, "cells on a line", "ZeroDivisionError"),
        (
            {"pairs": lambda self, points, unit: np.array([[0], [1 + next(COUNTER) % 2]])},
            "the same result twice",
            "differs",
        ),
    ],
)
def test_a_broken_graph_builder_is_told_how(attributes: dict[str, Any], check: str, said: str) -> None:
    assert said in failures(broken("graph builder", **attributes))[check]


@pytest.mark.parametrize(
    ("attributes", "check", "said"),
    [
        ({"classify": rows_then(lambda rows: rows[:, :1])}, "one cell", "shape (1, 1), not (1, 2)"),
        ({"classify": rows_then(lambda rows: rows.tolist())}, "one cell", "not an array"),
        ({"classify": rows_then(lambda rows: rows.astype(float))}, "one cell", "float64, not float32"),
        ({"classify": rows_then(times(np.nan))}, "one cell", "not finite"),
        ({"classify": rows_then(times(0.5))}, "one cell", "sums to 0.5, not to 1"),
        ({"classify": rows_then(times(-1))}, "one cell", "negative"),
        ({"classify": rows_then(lambda rows: rows * 0 + np.float32(0.5))}, "two cells", "must be zero"),
        ({"classify": lambda self, smears, graphs: None}, "no graphs", "must return []"),
        (
            {"classify": lambda self, smears, graphs: GoodClassifier.classify(self, smears, graphs)[::-1]},
            "a batch gives the same as its graphs one by one, in order",
            "shape",
        ),
        ({"classes": ["one", "two"]}, "classes and review threshold", "not a tuple"),
        ({"classes": ("one", "one")}, "classes and review threshold", "the same name"),
        ({"classes": ("one", "unclassified")}, "classes and review threshold", "below the review threshold"),
        ({"classes": ()}, "classes and review threshold", "no classes"),
        ({"review_threshold": 2}, "classes and review threshold", "from 0 to 1"),
        (
            {"rows": lambda self, smear, graph: graph.cells.boxes.__imul__(2) and None},
            "smears and graphs stay unchanged",
            "",
        ),
    ],
)
def test_a_broken_classifier_is_told_how(attributes: dict[str, Any], check: str, said: str) -> None:
    assert said in failures(broken("classifier", **attributes))[check]


def elsewhere(self: Any, result: Any) -> None:
    (self.out.parent / "stray.txt").write_text("")


def in_place(self: Any, result: Any) -> None:
    path = self.path_for(result, ".txt")
    path.write_text(str(len(result.cells)))
    self.files.append(path)


def flat(self: Any, result: Any) -> None:
    self.save(self.out / f"{result.output_stem.name}.txt", "")


def late(self: Any) -> None:
    self.save(self.out / "all.txt", "")


def saves(text: Callable[[Any], str], suffix: str) -> Any:
    return lambda self, result: self.save(self.path_for(result, suffix), text(result))


def lists(path: Callable[[Path], Path]) -> Any:
    return lambda self, result: self.files.append(path(self.out))


class Unclosed(GoodWriter):
    def write(self, result: Any) -> None:
        self.path_for(result, ".half").write_text("half")


@pytest.mark.parametrize(
    ("attributes", "check", "said"),
    [
        ({"write": elsewhere}, "a result with cells", "outside its folder: 'stray.txt'"),
        ({"write": in_place}, "files are replaced as a whole", "written in place"),
        ({"write": in_place}, "a file that cannot be written gives one line", "IsADirectoryError"),
        ({"write": flat}, "equal names in two folders stay apart", "twice"),
        ({"write": Unclosed.write}, "closes after a failure", "does not name: 'field.half'"),
        ({"write": lambda self, result: None, "close": late},
         "an image's files exist when write returns", "file_per_image = False"),
        ({"write": lists(lambda out: out / "no")}, "a result with cells", "does not exist"),
        ({"write": lists(lambda out: Path("/no"))}, "a result with cells", "not under 'out'"),
        ({"write": lists(lambda out: out / ".." / "no")}, "a result with cells", "not under 'out'"),
        ({"write": saves(lambda result: "{", ".json")}, "a result with no cell", "cannot be read as json"),
        ({"write": saves(lambda result: '{"a": NaN}', ".json")}, "a result with no cell", "NaN is not JSON"),
        ({"write": saves(lambda result: f"image\n{result.output_stem}\n", ".csv")},
         "a file name with a formula", "put ' in front"),
        ({"write": saves(lambda result: f"image,n\n{result.output_stem}\n", ".csv")},
         "a result with cells", "rows of [1, 2] columns"),
        ({"write": saves(lambda result: f"<p>{result.output_stem}", ".html")},
         "a file name with a tag", "became a script"),
        ({"write": saves(lambda result: "<p>", ".svg")}, "a result with cells", "as svg"),
        ({"write": saves(lambda result: str(next(COUNTER)), ".txt")},
         "the same files from two runs", "differs"),
        ({"__exit__": lambda self, *error: True}, "closes after a failure", "did not come through"),
        ({"__init__": lambda self, out, params=None: Writer.__init__(self, out.parent, params)},
         "takes a folder and its parameters", "'out'"),
    ],
)  # fmt: skip
def test_a_broken_writer_is_told_how(attributes: dict[str, Any], check: str, said: str) -> None:
    assert said in failures(broken("writer", **attributes))[check]


class Undescribed(PluginParams):
    level: int = 3


class Loose(PluginParams, extra="ignore"):
    level: int = Field(3, description="a level")


class Wrong(PluginParams):
    level: int = Field(-3, ge=0, description="a level")


class Endless(PluginParams):
    level: float = Field(float("inf"), description="a level")


class Required(PluginParams):
    level: int = Field(description="a level")


@pytest.mark.parametrize(
    ("attributes", "check", "said"),
    [
        ({"Params": Undescribed}, "parameters are described", "Params.level has no description"),
        ({"Params": Loose}, "unknown parameters are refused", "is accepted"),
        ({"Params": Wrong}, "parameters are valid and can be written as JSON", "greater than or equal to 0"),
        ({"Params": Endless}, "parameters are valid and can be written as JSON", ""),
        ({"Params": Required}, "takes its parameters", "level: field required"),
        ({"name": "Not Good"}, "declares name, version, summary, api_version, Params", "lower case"),
        ({"version": ""}, "declares name, version, summary, api_version, Params", "version is empty"),
        (
            {"summary": "two\nlines"},
            "declares name, version, summary, api_version, Params",
            "one printable line",
        ),
        ({"api_version": "1.99"}, "declares name, version, summary, api_version, Params", "newer leukokit"),
    ],
)
def test_broken_declarations_are_told_how(attributes: dict[str, Any], check: str, said: str) -> None:
    assert said in failures(broken("detector", **attributes))[check]


def test_parameters_can_be_given() -> None:
    plugin = broken("detector", Params=Required)
    assert failures(plugin, params={"level": 3}) == {}
    assert failures(plugin, params=Required(level=3)) == {}


def test_what_cannot_be_pickled() -> None:
    class Local(GoodDetector):
        lock: ClassVar[Any] = None

    found = failures(Local)
    assert set(found) == {"class and parameters can be pickled", "a new instance can be pickled"}
    assert "at the top of a module" in found["a new instance can be pickled"]

    def locked(self: Any, params: Any = None, device: str = "cpu") -> None:
        Detector.__init__(self, params, device)
        self.lock = threading.Lock()

    assert set(failures(broken("detector", __init__=locked))) == {"a new instance can be pickled"}


class Slow(GoodDetector):
    name = "slow"
    asked: ClassVar[list[int]] = []

    def one(self, smear: Any) -> Cells:
        if smear.width == 1:
            self.asked.append(smear.height)
            time.sleep(30)
        return super().one(smear)


def test_a_plugin_that_hangs_is_named_and_the_kit_ends() -> None:
    Slow.asked.clear()
    started = time.perf_counter()
    found = failures(Slow, seconds=2)
    assert time.perf_counter() - started < 20
    first, *others = found.values()
    assert first == "detector 'slow': a smear of one pixel: did not finish within 2 s"
    assert others and all(
        "not run, because 'a smear of one pixel' did not finish" in other for other in others
    )
    assert len(Slow.asked) == 1


def test_one_that_hangs_does_not_stop_other_checks_of_a_test() -> None:
    found = {check.name: check for check in checks(Slow, seconds=0.3)}
    with pytest.raises(PluginError, match="did not finish"):
        found["a smear of one column"].run()
    found["a drawn smear"].run()


def test_a_timeout_of_the_plugin_itself_is_no_hang() -> None:
    def late(self: Any, smears: Any) -> list[Cells]:
        raise TimeoutError("the camera")

    assert "raised TimeoutError: the camera" in failures(broken("detector", detect=late))["a drawn smear"]


def test_checks_are_made_without_running_anything() -> None:
    def refuse(self: Any, *arguments: Any) -> None:
        raise AssertionError("made")

    made = checks(broken("classifier", __init__=refuse))
    assert all(isinstance(check, Check) and str(check) == check.name for check in made)
    assert len({check.name for check in made}) == len(made)


@pytest.mark.parametrize("check", checks(GoodBuilder), ids=str)
def test_as_an_author_writes_it(check: Check) -> None:
    check.run()


def test_names_are_looked_up() -> None:
    assert checks("knn")[0].plugin == "graph builder 'knn'"
    assert checks("yolo", kind="writer")[0].plugin == "writer 'yolo'"
    for asked, kind, said in (
        ("yolo", None, "a detector and writer; say which kind"),
        ("knnn", None, "no plugin is called 'knnn'"),
        ("knnn", "graph builder", "no graph builder is called 'knnn'; there are: knn"),
        ("knn", "gadget", "no kind 'gadget'"),
    ):
        with pytest.raises(PluginError, match=said):
            checks(asked, kind=kind)
    with pytest.raises(PluginError, match="int: derives from none"):
        checks(int)


def test_every_outcome_is_told_as_it_comes() -> None:
    seen: list[Any] = []
    report = run_checks(GoodBuilder, each=seen.append)
    assert isinstance(report, Report) and tuple(seen) == report.outcomes
    assert report.peak_mb is None or report.peak_mb > 20
    assert report.grown_mb is None or report.grown_mb >= 0


def test_the_network_is_given_back() -> None:
    before = socket.socket.connect, socket.getaddrinfo
    with no_network() as tried:
        with pytest.raises(OSError, match="no network in this check"):
            socket.getaddrinfo("example.org", 80)
        with pytest.raises(OSError, match=r"look-up of 127\.0\.0\.1"):
            socket.create_connection(("127.0.0.1", 9))
        with socket.socket() as plain, pytest.raises(OSError, match=r"connection to 127\.0\.0\.1"):
            plain.connect(("127.0.0.1", 9))
        with socket.socket() as plain, pytest.raises(OSError, match="no network"):
            plain.connect_ex(("127.0.0.1", 9))
    assert tried[0] == "example.org" and tried[-1] == "127.0.0.1"
    assert (socket.socket.connect, socket.getaddrinfo) == before


def kinds_of(name: str) -> Iterator[int]:
    yield from samples.arrangements()[name].kinds.tolist()


def test_the_samples_are_what_they_are_called() -> None:
    shown = samples.arrangements()
    assert [len(shown[name]) for name in ("no cell", "one cell", "two cells", "three cells")] == [0, 1, 2, 3]
    assert set(kinds_of("two cells")) == {LEUKOCYTE, ERYTHROCYTE}
    middles = (shown["cells on one spot"].boxes[:, :2] + shown["cells on one spot"].boxes[:, 2:]) / 2
    assert len(np.unique(middles, axis=0)) == 1
    assert len(np.unique(shown["cells on one spot"].boxes, axis=0)) == 5
    repeated = shown["the same cell several times"].boxes
    assert len(np.unique(repeated, axis=0)) < len(repeated)
    assert shown["cells without a size"].ruler_px is None
    line = shown["cells on a line"].boxes[:, :2]
    assert np.linalg.matrix_rank(line - line[0]) == 1
    assert len(samples.true_cells()) > 20 and samples.true_cells().counts["leukocyte"] == 4
    assert samples.standardized().standardization is not None
    first, second = samples.smear(), samples.smear()
    assert first.sha256 == second.sha256 and not np.shares_memory(first.image, second.image)
    json.dumps(samples.result(samples.labelled(samples.true_cells())).to_json(), allow_nan=False)
    assert pickle.loads(pickle.dumps(first)).sha256 == first.sha256
