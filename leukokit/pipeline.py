"""From image files to results: read, standardise, detect, link, label."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from leukokit import __version__
from leukokit.cells import Cells, Labelling
from leukokit.classifiers.base import Classifier
from leukokit.config import PipelineConfig
from leukokit.detectors.base import Detector
from leukokit.errors import ConfigError, LeukokitError, PluginError
from leukokit.graph import CellGraph
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import classifiers, detectors, graph_builders
from leukokit.results import SmearResult
from leukokit.smear import Smear, read_smear, shown


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
        plugin = detectors.get(self.config.detector.name)
        self.detector: Detector = plugin(plugin.parse(self.config.detector.params), self.device)
        builder = graph_builders.get(self.config.graph.name)
        self.graph_builder: GraphBuilder = builder(builder.parse(self.config.graph.params))
        self.classifier = self._classifier()

    def _classifier(self) -> Classifier | None:
        choice = self.config.classifier
        if choice is None:
            return None
        plugin = classifiers.get(choice.name)
        return plugin(plugin.parse(choice.params), self.device)

    def read(self, path: Path) -> Smear:
        """Read an image and measure its light and stain.

        Raises:
            ImageError: it cannot be read.
        """
        return self.prepare(read_smear(path))

    def prepare(self, smear: Smear) -> Smear:
        """The smear with its standardisation measured, where the configuration wants one."""
        from leukokit.standardize import estimate

        return replace(smear, standardization=estimate(smear.image)) if self.config.standardize else smear

    def detect(self, smear: Smear) -> Cells:
        """Cells of one prepared smear.

        Raises:
            PluginError: the detector raised, or broke its contract.
        """
        return self._detect([smear])[0]

    def detect_all(self, smears: Sequence[Smear]) -> list[Cells | LeukokitError]:
        """Cells of several prepared smears; an error in the place of each that the detector fails on."""
        if len(smears) > 1:
            try:
                return list(self._detect(smears))
            except LeukokitError:
                # One of them is to blame: each has a turn of its own.
                pass
        found: list[Cells | LeukokitError] = []
        for smear in smears:
            try:
                found.append(self.detect(smear))
            except LeukokitError as error:
                found.append(error)
        return found

    def _detect(self, smears: Sequence[Smear]) -> list[Cells]:
        where = shown(smears[0].path or "image")
        try:
            answers = self.detector.detect(smears)
        except LeukokitError:
            raise
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"{where}: detector '{self.detector.name}' failed ({cause})") from error
        if len(answers) != len(smears) or not all(isinstance(cells, Cells) for cells in answers):
            raise PluginError(
                f"{where}: detector '{self.detector.name}' must return one Cells for each smear"
            )
        return answers

    def build(self, cells: Cells) -> CellGraph:
        """The graph of one smear's cells.

        Raises:
            PluginError: the graph builder raised, or broke its contract.
        """
        said = f"graph builder '{self.graph_builder.name}'"
        try:
            graph = self.graph_builder.build(cells)
        except LeukokitError:
            raise
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"{said} failed ({cause})") from error
        if not isinstance(graph, CellGraph) or len(graph) != len(cells):
            raise PluginError(f"{said} must return one CellGraph of all cells it is given")
        return graph

    def label(self, smear: Smear, graph: CellGraph) -> Cells:
        """The graph's cells with the classes of the leukocytes; as they are, where there is no classifier.

        Raises:
            PluginError: the classifier raised, or broke its contract.
        """
        if self.classifier is None:
            return graph.cells
        said = f"{shown(smear.path or 'image')}: classifier '{self.classifier.name}'"
        try:
            answers = self.classifier.classify([smear], [graph])
            classes, limit = self.classifier.classes, self.classifier.limit
        except LeukokitError:
            raise
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"{said} failed ({cause})") from error
        if len(answers) != 1:
            raise PluginError(f"{said} must return one array for each graph")
        try:
            return graph.cells.labelled(Labelling(answers[0], tuple(classes), limit))
        except (ValueError, TypeError) as error:
            raise PluginError(f"{said}: {error}") from error

    def run(self, path: Path, output_stem: Path | None = None) -> SmearResult:
        """Read one image, find its cells, link them and tell the leukocytes' classes.

        Raises:
            ImageError: it cannot be read.  PluginError: a plugin broke its contract.
        """
        started = time.perf_counter()
        smear = self.read(path)
        return self.answer(smear, self.detect(smear), output_stem or Path(path.stem), started)

    def answer(self, smear: Smear, cells: Cells, output_stem: Path, started: float) -> SmearResult:
        """Link and label the cells found on a smear; ``started`` is when its turn began (perf_counter).

        Raises:
            PluginError: a plugin broke its contract.
        """
        graph = self.build(cells)
        labelled = self.label(smear, graph)
        graph = replace(graph, cells=labelled)
        seconds = time.perf_counter() - started
        return SmearResult(smear, labelled, output_stem, self.provenance, seconds, graph)

    def run_all(self, paths: Iterable[Path]) -> Iterator[SmearResult]:
        """``run`` for each path, lazily: only one image is in memory at a time."""
        return (self.run(path) for path in paths)

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
