"""From image files to results: read, standardise, detect, link, label."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeVar

from leukokit import __version__
from leukokit._guard import TimeLimit
from leukokit._text import printable
from leukokit.cells import Cells, Labelling
from leukokit.classifiers.base import Classifier
from leukokit.config import PipelineConfig, PluginChoice
from leukokit.detectors.base import Detector
from leukokit.errors import (
    ConfigError,
    DeviceMemoryError,
    LeukokitError,
    PluginError,
    WeightsError,
    cause_of,
)
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import Registry, classifiers, detectors, graph_builders
from leukokit.results import SmearResult
from leukokit.smear import Smear, read_smear
from leukokit.taxonomy import LEUKOCYTE

GREY: Final = 4
"""Largest difference between the channels of a picture that is grey, compressed or not."""
_log = logging.getLogger(__name__)
S = TypeVar("S")
T = TypeVar("T")


class Pipeline:
    """What is done to every image, as a configuration says.

    Args:
        config: plugins and their parameters.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        PluginError, ConfigError: at once, not at the first image.
    """

    def __init__(self, config: PipelineConfig | None = None, device: str = "auto") -> None:
        self.config = config or PipelineConfig()
        self.device = resolve_device(device)
        if self.device != "cpu":
            _compute_fully()
        self.detector: Detector = _made(detectors, self.config.detector, self.device)
        self.graph_builder: GraphBuilder = _made(graph_builders, self.config.graph)
        choice = self.config.classifier
        self.classifier: Classifier | None = (
            None if choice is None else _made(classifiers, choice, self.device)
        )
        self._limit = TimeLimit(self.config.time_limit)
        self._most_together: int | None = None

    def read(self, path: str | Path) -> Smear:
        """Read an image and measure its light and stain.

        Raises:
            ImageError: it cannot be read.
        """
        return self.prepare(read_smear(Path(path)))

    def prepare(self, smear: Smear) -> Smear:
        """The smear with its standardisation measured, where the configuration wants one."""
        from leukokit.images.standardize import estimate

        return replace(smear, standardization=estimate(smear.image)) if self.config.standardize else smear

    @cached_property
    def on_cpu(self) -> Pipeline:
        """The same on the CPU, for what the GPU's memory does not hold."""
        return Pipeline(self.config, "cpu")

    def detect(self, smear: Smear) -> Cells:
        """Cells of one prepared smear; found on the CPU where the GPU's memory is too small.

        Raises:
            PluginError: the detector raised, took too long, or broke its contract.
        """
        return self._or_on_cpu(smear, lambda pipeline: pipeline._detect([smear])[0])

    def detect_all(self, smears: Sequence[Smear]) -> list[Cells | LeukokitError]:
        """Cells of several prepared smears; an error in the place of each that the detector fails on.

        Where the GPU's memory does not hold all at once, half as many are tried, from then on.
        """
        return self._in_parts(smears, self._detect, self.detect)

    def _in_parts(
        self, items: Sequence[S], together: Callable[[Sequence[S]], list[Cells]], alone: Callable[[S], Cells]
    ) -> list[Cells | LeukokitError]:
        """What is asked of all items, of as many ``together`` as the GPU's memory holds."""
        most = self._most_together or max(len(items), 1)
        found: list[Cells | LeukokitError] = []
        while len(found) < len(items):
            part = items[len(found) : len(found) + most]
            try:
                found += together(part) if len(part) > 1 else [alone(part[0])]
            except DeviceMemoryError as error:
                if len(part) == 1:
                    found.append(error)
                    continue
                most = self._most_together = len(part) // 2
                _log.warning("GPU memory does not hold %d images at once: from now on %d", len(part), most)
            except WeightsError:
                # No image's fault: the next would meet it, too.
                raise
            except LeukokitError as error:
                # One of several is to blame: each has a turn of its own.
                found += [error] if len(part) == 1 else [_or_error(alone, item) for item in part]
        return found

    def _detect(self, smears: Sequence[Smear]) -> list[Cells]:
        said = f"{printable(smears[0].path or 'image')}: detector '{self.detector.name}'"
        answers = self._ask(said, lambda: self.detector.detect(smears), len(smears))
        if (
            not isinstance(answers, list)
            or len(answers) != len(smears)
            or not all(isinstance(cells, Cells) for cells in answers)
        ):
            raise PluginError(f"{said} must return one Cells for each smear")
        return answers

    @cached_property
    def _advice(self) -> tuple[str, ...]:
        """What to say of classes from links of another kind than the classifier learnt on."""
        builder = self.graph_builder
        learnt = self.classifier.trained_graph if self.classifier else None
        if self.classifier is None or learnt is None:
            return ()
        # A builder of that name, but another's, may not take these parameters.
        with suppress(ConfigError):
            if learnt.name == builder.name and builder.parse(learnt.params) == builder.params:
                return ()
        given = " ".join(f"{key}={value}" for key, value in learnt.params.items())
        return (
            f"classifier '{self.classifier.name}' was trained on graphs of '{learnt.name}'"
            f"{f' with {given}' if given else ''}: with other links its classes are less reliable",
        )

    def stop(self) -> None:
        """From another thread: end what a plugin is at, for good; whoever asks gets ``KeyboardInterrupt``."""
        self._limit.stop()

    def build(self, cells: Cells, smear: Smear | None = None) -> CellGraph:
        """The graph of one smear's cells; errors name the smear where it is given.

        Raises:
            PluginError: the graph builder raised, took too long, or broke its contract.
        """
        said = f"graph builder '{self.graph_builder.name}'"
        if smear is not None:
            said = f"{printable(smear.path or 'image')}: {said}"
        graph = self._ask(said, lambda: self.graph_builder.build(cells))
        if not isinstance(graph, CellGraph) or len(graph) != len(cells):
            raise PluginError(f"{said} must return one CellGraph of all cells it is given")
        return graph

    def label(self, smear: Smear, graph: CellGraph) -> Cells:
        """The graph's cells with the classes of the leukocytes; as they are, where there is no classifier.

        Raises:
            PluginError: the classifier raised, took too long, or broke its contract.
        """
        return self._or_on_cpu(smear, lambda pipeline: pipeline._label([(smear, graph)])[0])

    def label_all(self, scenes: Sequence[tuple[Smear, CellGraph]]) -> list[Cells | LeukokitError]:
        """``label`` of several smears with their graphs, as ``detect_all`` detects them."""
        return self._in_parts(scenes, self._label, lambda scene: self.label(*scene))

    def _label(self, scenes: Sequence[tuple[Smear, CellGraph]]) -> list[Cells]:
        classifier = self.classifier
        smears, graphs = [smear for smear, _ in scenes], [graph for _, graph in scenes]
        if classifier is None:
            return [graph.cells for graph in graphs]
        said = f"{printable(smears[0].path or 'image')}: classifier '{classifier.name}'"
        answers = self._ask(said, lambda: classifier.classify(smears, graphs), len(graphs))
        classes, limit = self._ask(said, lambda: (tuple(classifier.classes), classifier.limit))
        if not isinstance(answers, list) or len(answers) != len(graphs):
            raise PluginError(f"{said} must return one array for each graph")
        try:
            return [
                graph.cells.labelled(
                    Labelling(answer, classes, limit), self._advice + _grey(smear, graph.cells)
                )
                for smear, graph, answer in zip(smears, graphs, answers, strict=True)
            ]
        except (ValueError, TypeError) as error:
            raise PluginError(f"{said}: {error}") from error

    def _ask(self, said: str, call: Callable[[], T], images: int = 1) -> T:
        """What a plugin answers; whatever it raises is a ``PluginError`` that begins with ``said``."""
        try:
            return self._limit.run(call, images)
        except LeukokitError:
            raise
        except (Exception, SystemExit) as error:
            import torch

            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
                raise DeviceMemoryError(
                    f"{said}: the GPU's memory is too small for this image; --device cpu"
                ) from error
            raise PluginError(f"{said} failed ({cause_of(error)})") from error

    def _or_on_cpu(self, smear: Smear, ask: Callable[[Pipeline], T]) -> T:
        try:
            return ask(self)
        except DeviceMemoryError:
            if self.device == "cpu":
                raise
            _log.warning(
                "%s: GPU memory is too small for it: done on the CPU", printable(smear.path or "image")
            )
            return ask(self.on_cpu)

    def run(self, image: str | Path | Smear, output_stem: Path | None = None) -> SmearResult:
        """Read one image, find its cells, link them and tell the leukocytes' classes.

        Args:
            image: a file, or pixels in memory as a ``Smear``.
            output_stem: relative path that files of this image are named by; by default the file's stem.

        Raises:
            ImageError: it cannot be read.  PluginError: a plugin broke its contract.
        """
        started = time.perf_counter()
        smear = self.prepare(image) if isinstance(image, Smear) else self.read(image)
        (graph,) = self.look([smear])
        if isinstance(graph, LeukokitError):
            raise graph
        seconds = time.perf_counter() - started
        return self.result(smear, graph, output_stem or Path((smear.path or Path("image")).stem), seconds)

    def look(self, smears: Sequence[Smear]) -> list[CellGraph | LeukokitError]:
        """The linked and labelled cells of several prepared smears, which the networks are shown together.

        An error stands in the place of each smear that a plugin fails on.

        Raises:
            WeightsError: a plugin has no network to look with.
        """
        graphs = [
            found if isinstance(found, LeukokitError) else _or_error(partial(self.build, smear=smear), found)
            for smear, found in zip(smears, self.detect_all(smears), strict=True)
        ]
        linked = [(number, graph) for number, graph in enumerate(graphs) if isinstance(graph, CellGraph)]
        labelled = self.label_all([(smears[number], graph) for number, graph in linked])
        for (number, graph), cells in zip(linked, labelled, strict=True):
            graphs[number] = replace(graph, cells=cells) if isinstance(cells, Cells) else cells
        return graphs

    def result(self, smear: Smear, graph: CellGraph, output_stem: Path, seconds: float) -> SmearResult:
        """What there is to say of a smear with its linked and labelled cells, ``seconds`` after its start."""
        return SmearResult(smear, graph.cells, output_stem, self.provenance, seconds, graph)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Versions, plugins, parameters, weight hashes and device."""
        import torch

        return {
            "leukokit": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": self.device,
            "standardize": self.config.standardize,
            "detector": self.detector.provenance(),
            "graph": self.graph_builder.provenance(),
            "classifier": None if self.classifier is None else self.classifier.provenance(),
        }


def _grey(smear: Smear, cells: Cells) -> tuple[str, ...]:
    """What to say of classes in a picture without colour, of which a few pixels are looked at."""
    if not (cells.kinds == LEUKOCYTE).any():
        return ()
    few = smear.image[::8, ::8]
    colourless = int((few.max(axis=2) - few.min(axis=2)).max()) <= GREY
    return ("a grey picture: classes are told by colour, and are not reliable here",) if colourless else ()


def _or_error(ask: Callable[[S], T], item: S) -> T | LeukokitError:
    try:
        return ask(item)
    except WeightsError:
        raise
    except LeukokitError as error:
        return error


def _made(registry: Registry[Any], choice: PluginChoice, *device: str) -> Any:
    """A plugin with its parameters, on its device if it has one.

    Raises:
        PluginError: there is none of that name, or it fails.  ConfigError: not with these parameters.
    """
    plugin = registry.get(choice.name)
    params = plugin.parse(choice.params)
    try:
        return plugin(params, *device)
    except LeukokitError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{registry.kind} '{choice.name}' cannot be started ({cause_of(error)})") from error


def _compute_fully() -> None:
    """Let GPUs of this process convolve with all 24 bits, not ten as cuDNN would: counts are the CPU's."""
    import torch

    torch.backends.cudnn.allow_tf32 = False


def resolve_device(device: str) -> str:
    """``auto`` made definite, and a device that is not there refused.

    Raises:
        ConfigError: no such device.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdigit()):
        raise ConfigError(f"--device {device}: must be auto, cpu, cuda or cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {device}: there is no such GPU here ({torch.cuda.device_count()} found); use cpu"
        )
    return f"cuda:{number or 0}"
