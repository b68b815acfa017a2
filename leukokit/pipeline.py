"""From image files to results: read, standardise, detect, link, label."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import local
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from leukokit import __version__
from leukokit._contracts import check_classes, check_detections, choice_of, make_plugin, provenance_of
from leukokit._devices import disable_tf32, prepare_process, resolve_device
from leukokit._guard import ContractError, Guard, TimeLimit, translate
from leukokit._text import printable
from leukokit.cells import Cells, Labelling
from leukokit.classifiers.base import Classifier
from leukokit.config import DEFAULT_PLUGINS, PipelineConfig
from leukokit.detectors.base import Detector
from leukokit.engines.choose import AUTO, require_engine
from leukokit.errors import ConfigError, ImageError, LeukokitError, PluginError
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import classifiers, detectors, engines, graph_builders
from leukokit.results import SmearResult
from leukokit.smear import Smear, read_header, read_smear
from leukokit.taxonomy import LEUKOCYTE

__all__ = ["Pipeline", "resolve_device"]

GREY_RANGE: Final = 4
"""Largest difference between the channels of a grey image, compressed or not."""
_Linked = tuple[Smear, CellGraph]
T = TypeVar("T")


class Pipeline:
    """A detector, a graph builder and a classifier, applied to images.

    >>> from leukokit.pipeline import Pipeline
    >>> pipeline = Pipeline(classifier=None, device="cpu")
    >>> pipeline.run("examples/smear.png").cells.counts["leukocyte"]
    10

    A pipeline pickles. After a ``fork`` it works on one thread of a CPU, and refuses a GPU.

    Args:
        detector: a detector, or the name of one.
        graph_builder: a graph builder, or the name of one.
        classifier: a classifier, or the name of one; None leaves leukocytes without a class.
        standardize: even out light and stain before detection.
        time_limit: seconds that a plugin may take per image, and reading one; 0 for no limit.
        engine: what runs the networks: ``auto``, or the name of an engine such as ``onnxruntime``; a plugin
            given as an object keeps its own.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``; a plugin given as an
            object stays on its own device.
        threads: that one call of a network may use on a CPU; 0 for all cores.

    Attributes:
        config: the same as a configuration.

    Raises:
        PluginError: no such plugin, or it cannot be started.
        ConfigError: no such device, or a wrong parameter.
    """

    detector: Detector
    graph_builder: GraphBuilder
    classifier: Classifier | None

    def __init__(
        self,
        detector: Detector | str = DEFAULT_PLUGINS["detector"],
        graph_builder: GraphBuilder | str = DEFAULT_PLUGINS["graph"],
        classifier: Classifier | str | None = DEFAULT_PLUGINS["classifier"],
        *,
        standardize: bool = True,
        time_limit: float = 600,
        engine: str = AUTO,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        config = PipelineConfig(
            detector=choice_of(detector),
            graph=choice_of(graph_builder),
            classifier=None if classifier is None else choice_of(classifier),
            standardize=standardize,
            time_limit=time_limit,
            engine=engine,
        )
        self._set_up(config, device, threads, detector, graph_builder, classifier)

    @classmethod
    def from_config(
        cls, config: PipelineConfig | None = None, device: str = "auto", threads: int = 0
    ) -> Self:
        """Make a pipeline from a configuration, such as ``leukokit.config.load_config`` reads.

        Raises:
            PluginError: no such plugin, or it cannot be started.
            ConfigError: no such device, or a wrong parameter.
        """
        pipeline = cls.__new__(cls)
        pipeline._set_up(config or PipelineConfig(), device, threads)
        return pipeline

    def _set_up(
        self,
        config: PipelineConfig,
        device: str,
        threads: int,
        *plugins: Detector | GraphBuilder | Classifier | str | None,
    ) -> None:
        self.config, self.threads = config, threads
        self.device = resolve_device(device)
        if self.device != "cpu":
            disable_tf32()
        self._limit = TimeLimit(config.time_limit)
        self._reading, self._read_limits = local(), WeakSet[TimeLimit]()
        self._is_stopped = False
        self._objects = [None if isinstance(plugin, str) else plugin for plugin in (*plugins, *[None] * 3)][
            :3
        ]
        detector, builder, classifier = self._objects
        self.detector = make_plugin(detectors, config.detector, detector, self.device)
        self.graph_builder = make_plugin(graph_builders, config.graph, builder)
        self.classifier = None
        if config.classifier is not None:
            self.classifier = make_plugin(classifiers, config.classifier, classifier, self.device)
            check_classes(self.classifier)
        self._set_engine()
        self._detecting: Guard[Smear, Cells] = Guard(
            f"detector '{self.detector.name}'",
            lambda smears: self.detector.detect(smears),
            check_detections,
            _name_of,
            self._limit,
            lambda: self.on_cpu._detecting if self._has_cpu_twin else None,
        )
        self._classifying: Guard[_Linked, Cells] = Guard(
            f"classifier '{self.classifier.name}'" if self.classifier else "",
            self._classify,
            self._label,
            _name_of_linked,
            self._limit,
            lambda: self.on_cpu._classifying if self._has_cpu_twin else None,
        )

    def _set_engine(self) -> None:
        """Tell the plugins that were made here what runs their networks, before these are loaded."""
        engine = None if self.config.engine == AUTO else engines.get(self.config.engine)
        if engine is not None:
            require_engine(engine, self.device)
        for plugin, given in ((self.detector, self._objects[0]), (self.classifier, self._objects[2])):
            if plugin is not None and given is None:
                plugin.engine, plugin.threads = engine, self.threads

    def __reduce__(self) -> tuple[Callable[..., Pipeline], tuple[Any, ...]]:
        return _restore, (type(self), self.config, self.device, self.threads, self._objects)

    def run(self, image: str | Path | Smear, output_stem: Path | None = None) -> SmearResult:
        """Read one image, find its cells, link them and label the leukocytes.

        Args:
            image: a file, or pixels in memory as a ``Smear``.
            output_stem: relative path that files of this image are named by; by default the file's stem.

        Raises:
            ImageError: it cannot be read.
            PluginError: a plugin failed, took too long, or broke its contract.
        """
        if not isinstance(image, str | os.PathLike | Smear):
            raise ImageError(
                f"{type(image).__name__}: not an image; give a file's path or a Smear, one per call"
            )
        started = time.perf_counter()
        smear = self.prepare(image) if isinstance(image, Smear) else self.read(image)
        (graph,) = self.process([smear])
        if isinstance(graph, LeukokitError):
            raise graph
        seconds = time.perf_counter() - started
        return self.make_result(
            smear, graph, output_stem or Path((smear.path or Path("image")).stem), seconds
        )

    def process(self, smears: Sequence[Smear]) -> list[CellGraph | LeukokitError]:
        """Return the linked and labelled cells of prepared smears, which the networks get together.

        An error stands in the place of each smear that a plugin fails on.

        Raises:
            WeightsError: a plugin has no network that works.
        """
        prepare_process(self.device)
        graphs = [
            found if isinstance(found, LeukokitError) else self._build_or_error(found, smear)
            for smear, found in zip(smears, self._detecting.run(smears), strict=True)
        ]
        linked = [(number, graph) for number, graph in enumerate(graphs) if isinstance(graph, CellGraph)]
        if self.classifier is not None and linked:
            labelled = self._classifying.run([(smears[number], graph) for number, graph in linked])
            for (number, graph), cells in zip(linked, labelled, strict=True):
                graphs[number] = replace(graph, cells=cells) if isinstance(cells, Cells) else cells
        return graphs

    def read(self, path: str | os.PathLike[str]) -> Smear:
        """Read an image and measure its light and stain.

        Raises:
            ImageError: it cannot be read, or takes longer than the time limit.
        """
        path = Path(path)
        try:
            return self._read_limit.run(partial(self._read, path))
        except TimeoutError as error:
            raise ImageError(f"{printable(path)}: {error}") from error

    def memory_of(self, path: str | os.PathLike[str]) -> int:
        """Return about how many bytes reading and processing an image takes, from its header.

        Raises:
            ImageError: the header cannot be read, or takes longer than the time limit.
        """
        path = Path(path)
        try:
            header = self._read_limit.run(partial(read_header, path))
        except TimeoutError as error:
            raise ImageError(f"{printable(path)}: {error}") from error
        # The decoded image, and about as much for what is made of it.
        return max(header.peak_bytes, 6 * header.width * header.height)

    def prepare(self, smear: Smear) -> Smear:
        """Return the smear with its standardisation measured, where the configuration wants one."""
        from leukokit.images.standardize import estimate_standardization

        if not self.config.standardize:
            return smear
        return replace(smear, standardization=estimate_standardization(smear.image))

    def detect(self, smear: Smear) -> Cells:
        """Return the cells of one prepared smear; found on the CPU where the GPU's memory is too small.

        Raises:
            PluginError: the detector failed, took too long, or broke its contract.
        """
        prepare_process(self.device)
        return _only(self._detecting.run([smear]))

    def build(self, cells: Cells, smear: Smear | None = None) -> CellGraph:
        """Return the graph of one smear's cells; errors name the smear where it is given.

        Raises:
            PluginError: the graph builder failed, took too long, or broke its contract.
        """
        subject = f"graph builder '{self.graph_builder.name}'"
        if smear is not None:
            subject = f"{_name_of(smear)}: {subject}"
        try:
            graph = self._limit.run(partial(self.graph_builder.build, cells))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise translate(subject, error) from error
        if not isinstance(graph, CellGraph) or len(graph) != len(cells):
            raise PluginError(f"{subject} must return one CellGraph of all cells it is given")
        return graph

    def label(self, smear: Smear, graph: CellGraph) -> Cells:
        """Return the graph's cells with the leukocytes labelled; unchanged where there is no classifier.

        Raises:
            PluginError: the classifier failed, took too long, or broke its contract.
        """
        prepare_process(self.device)
        return graph.cells if self.classifier is None else _only(self._classifying.run([(smear, graph)]))

    def make_result(self, smear: Smear, graph: CellGraph, output_stem: Path, seconds: float) -> SmearResult:
        """Return the result of a smear with its linked and labelled cells, which took ``seconds``."""
        return SmearResult(smear, graph.cells, output_stem, self.provenance, seconds, graph)

    def stop(self) -> None:
        """From another thread: end what a plugin or a reader does; its caller gets ``KeyboardInterrupt``."""
        self._is_stopped = True
        for limit in (self._limit, *self._read_limits):
            limit.stop()

    @cached_property
    def on_cpu(self) -> Pipeline:
        """The same on the CPU, for what the GPU's memory does not hold."""
        # An engine for GPUs alone does not run there.
        return type(self).from_config(self.config.model_copy(update={"engine": AUTO}), "cpu")

    @property
    def _has_cpu_twin(self) -> bool:
        """Whether ``on_cpu`` is another pipeline; one of plugin objects cannot be made again."""
        return self.device != "cpu" and not any(self._objects)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Versions, plugins, parameters, weight hashes and device.

        Raises:
            PluginError: a plugin cannot say, or says what JSON cannot hold.
        """
        classifier = self.classifier
        return {
            "leukokit": __version__,
            "python": platform.python_version(),
            "device": self.device,
            "engines": {
                "detector": self.detector.engine_used,
                "classifier": None if classifier is None else classifier.engine_used,
            },
            "standardize": self.config.standardize,
            "detector": provenance_of("detector", self.detector),
            "graph": provenance_of("graph builder", self.graph_builder),
            "classifier": None if classifier is None else provenance_of("classifier", classifier),
        }

    @property
    def _read_limit(self) -> TimeLimit:
        """The limit of the thread that reads: several read at once."""
        limit: TimeLimit | None = getattr(self._reading, "limit", None)
        if self._is_stopped:
            raise KeyboardInterrupt
        if limit is None:
            limit = self._reading.limit = TimeLimit(self.config.time_limit)
            self._read_limits.add(limit)
        return limit

    def _read(self, path: Path) -> Smear:
        return self.prepare(read_smear(path))

    def _build_or_error(self, cells: Cells, smear: Smear) -> CellGraph | LeukokitError:
        try:
            return self.build(cells, smear)
        except LeukokitError as error:
            return error

    def _classify(self, linked: Sequence[_Linked]) -> Any:
        assert self.classifier is not None
        answers = self.classifier.classify([smear for smear, _ in linked], [graph for _, graph in linked])
        # Where a plugin looks them up in its weights, its time counts.
        return answers, tuple(self.classifier.classes), self.classifier.review_threshold

    def _label(self, linked: Sequence[_Linked], answer: Any) -> list[Cells]:
        predictions, classes, threshold = answer
        if not isinstance(predictions, list) or len(predictions) != len(linked):
            raise ContractError("must return one array for each graph")
        try:
            return [
                graph.cells.with_labelling(
                    Labelling(predicted, classes, threshold),
                    self._graph_notes + _grey_notes(smear, graph.cells),
                )
                for (smear, graph), predicted in zip(linked, predictions, strict=True)
            ]
        except (ValueError, TypeError) as error:
            raise ContractError(f"broke its contract: {error}") from error

    @cached_property
    def _graph_notes(self) -> tuple[str, ...]:
        """What a user should know of classes from other links than the classifier was trained on."""
        builder = self.graph_builder
        trained = self.classifier.trained_graph if self.classifier else None
        if self.classifier is None or trained is None:
            return ()
        # A builder of that name, but another's, may not take these parameters.
        with suppress(ConfigError):
            if trained.name == builder.name and builder.parse(trained.params) == builder.params:
                return ()
        given = " ".join(f"{key}={value}" for key, value in trained.params.items())
        return (
            f"classifier '{self.classifier.name}' was trained on graphs of '{trained.name}'"
            f"{f' with {given}' if given else ''}: with other links its classes are less reliable",
        )


def _restore(
    kind: type[Pipeline],
    config: PipelineConfig,
    device: str,
    threads: int,
    plugins: list[Detector | GraphBuilder | Classifier | None],
) -> Pipeline:
    pipeline = kind.__new__(kind)
    pipeline._set_up(config, device, threads, *plugins)
    return pipeline


def _name_of(smear: Smear) -> str:
    return printable(smear.path or "image")


def _name_of_linked(linked: _Linked) -> str:
    return _name_of(linked[0])


def _only(answers: list[T | LeukokitError]) -> T:
    (answer,) = answers
    if isinstance(answer, LeukokitError):
        raise answer
    return answer


def _grey_notes(smear: Smear, cells: Cells) -> tuple[str, ...]:
    """What a user should know of classes in an image without colour; judged by every eighth pixel."""
    if not (cells.kinds == LEUKOCYTE).any():
        return ()
    sample = smear.image[::8, ::8]
    is_grey = int((sample.max(axis=2) - sample.min(axis=2)).max()) <= GREY_RANGE
    return ("a grey image: labels depend on colour and are not reliable here",) if is_grey else ()
