"""leukokit: find, count and classify the blood cells of stained smear images. For research use only.

The names of ``__all__`` are the stable face of the package. They are imported when first used, so that
``import leukokit`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.batch.run import run_batch as run_batch
    from leukokit.batch.summary import BatchSummary as BatchSummary
    from leukokit.cells import Cells as Cells
    from leukokit.cells import Labelling as Labelling
    from leukokit.classifiers.base import Classifier as Classifier
    from leukokit.classifiers.neural import CropClassifier as CropClassifier
    from leukokit.classifiers.neural import NeuralParams as NeuralParams
    from leukokit.classifiers.trained import TrainedClassifier as TrainedClassifier
    from leukokit.classifiers.trained import TrainedParams as TrainedParams
    from leukokit.config import PipelineConfig as PipelineConfig
    from leukokit.config import PluginChoice as PluginChoice
    from leukokit.config import load_config as load_config
    from leukokit.detectors.base import Detector as Detector
    from leukokit.detectors.base import DetectorParams as DetectorParams
    from leukokit.differential import Differential as Differential
    from leukokit.errors import LeukokitError as LeukokitError
    from leukokit.graph import CellGraph as CellGraph
    from leukokit.graph_builders.base import GraphBuilder as GraphBuilder
    from leukokit.graph_builders.base import GraphBuilderParams as GraphBuilderParams
    from leukokit.images.inputs import find_images as find_images
    from leukokit.pipeline import Pipeline as Pipeline
    from leukokit.plugin import Plugin as Plugin
    from leukokit.plugin import PluginParams as PluginParams
    from leukokit.registry import load_plugin_file as load_plugin_file
    from leukokit.registry import register as register
    from leukokit.results import SmearResult as SmearResult
    from leukokit.smear import Smear as Smear
    from leukokit.smear import read_image as read_image
    from leukokit.smear import read_smear as read_smear
    from leukokit.writers.base import Writer as Writer

__version__ = "0.1.0"

_MODULES = {
    "BatchSummary": "batch.summary",
    "CellGraph": "graph",
    "Cells": "cells",
    "Classifier": "classifiers.base",
    "CropClassifier": "classifiers.neural",
    "Detector": "detectors.base",
    "DetectorParams": "detectors.base",
    "Differential": "differential",
    "GraphBuilder": "graph_builders.base",
    "GraphBuilderParams": "graph_builders.base",
    "Labelling": "cells",
    "LeukokitError": "errors",
    "NeuralParams": "classifiers.neural",
    "Pipeline": "pipeline",
    "PipelineConfig": "config",
    "Plugin": "plugin",
    "PluginChoice": "config",
    "PluginParams": "plugin",
    "Smear": "smear",
    "SmearResult": "results",
    "TrainedClassifier": "classifiers.trained",
    "TrainedParams": "classifiers.trained",
    "Writer": "writers.base",
    "find_images": "images.inputs",
    "load_config": "config",
    "load_plugin_file": "registry",
    "read_image": "smear",
    "read_smear": "smear",
    "register": "registry",
    "run_batch": "batch.run",
}
__all__ = [
    "BatchSummary",
    "CellGraph",
    "Cells",
    "Classifier",
    "CropClassifier",
    "Detector",
    "DetectorParams",
    "Differential",
    "GraphBuilder",
    "GraphBuilderParams",
    "Labelling",
    "LeukokitError",
    "NeuralParams",
    "Pipeline",
    "PipelineConfig",
    "Plugin",
    "PluginChoice",
    "PluginParams",
    "Smear",
    "SmearResult",
    "TrainedClassifier",
    "TrainedParams",
    "Writer",
    "__version__",
    "find_images",
    "load_config",
    "load_plugin_file",
    "read_image",
    "read_smear",
    "register",
    "run_batch",
]
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
