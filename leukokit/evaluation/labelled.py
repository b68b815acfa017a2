"""A classifier measured on labelled cells whose fields the detector has seen (``leukokit data cells``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from leukokit.datasets.detected import SeenField
from leukokit.errors import ConfigError, DataError
from leukokit.evaluation.predictions import Predictions
from leukokit.pipeline import Pipeline


def predict_seen(
    pipeline: Pipeline, fields: Sequence[SeenField], report: Callable[[str], None] = print
) -> Predictions:
    """What the pipeline's graph builder and classifier say of the labelled cells of fields.

    Boxes are those that the detector found when the fields were seen. A label that is none of the
    classifier's classes is always counted wrong.

    Raises:
        ConfigError: the pipeline has no classifier.  DataError: no labelled cell.
        ImageError, PluginError: a field cannot be read, or a plugin fails.
    """
    if pipeline.classifier is None:
        raise ConfigError("the configuration names no classifier; there is nothing to measure")
    classes = pipeline.classifier.classes
    truth, chances, photos, labs, names = [], [], [], [], []
    for number, field in enumerate(fields, 1):
        smear = pipeline.read(field.source.image)
        labelling = pipeline.label(smear, pipeline.build(field.cells)).labelling
        assert labelling is not None
        for node in field.labelled:
            label = field.labels[node]
            truth.append(classes.index(label) if label in classes else -1)
            chances.append(labelling.probabilities[node])
            photos.append(field.source.photo)
            labs.append(field.source.lab)
            names.append(f"{field.source.dataset}/{field.source.image.name}#{node}")
        if number % 200 == 0:
            report(f"{number} of {len(fields)} fields")
    if not truth:
        raise DataError("no labelled cell is of that data set, laboratory, split and slide")
    return Predictions(
        labels=np.array(truth),
        probabilities=np.stack(chances),
        classes=classes,
        photos=np.array(photos),
        groups=np.array(labs),
        limit=pipeline.classifier.limit,
        cells=np.array(names),
    )
