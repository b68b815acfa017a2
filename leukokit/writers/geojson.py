"""Writer ``geojson``: objects that QuPath opens (Bankhead et al. 2017, doi:10.1038/s41598-017-17204-5)."""

from __future__ import annotations

import json
import uuid

from leukokit.results import SmearResult
from leukokit.taxonomy import KINDS, colour_of
from leukokit.writers.base import Writer
from leukokit.writers.labels import CellLabel, cell_labels


class GeoJsonWriter(Writer):
    """``STEM.geojson`` for every image: one detection object per cell, in pixels of the image.

    A cell's classification is its class or ``unclassified``, or else its kind.
    """

    name = "geojson"
    version = "1.0"
    summary = "one GeoJSON file per image, for QuPath"

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        cells = result.cells
        features = [
            _feature(f"{result.smear.sha256}/{number}", KINDS[kind], float(score), box, label)
            for number, (kind, score, box, label) in enumerate(
                zip(cells.kinds, cells.scores, cells.boxes.tolist(), cell_labels(cells), strict=True)
            )
        ]
        collection = {"type": "FeatureCollection", "features": features}
        self.save(self.path_for(result, ".geojson"), json.dumps(collection, allow_nan=False) + "\n")


def _feature(
    identity: str, kind: str, score: float, box: list[float], label: CellLabel | None
) -> dict[str, object]:
    x1, y1, x2, y2 = (round(side, 2) for side in box)
    name = kind if label is None else label.name
    measurements = {
        "score": round(score, 4),
        "width px": round(x2 - x1, 2),
        "height px": round(y2 - y1, 2),
    }
    if label is not None:
        measurements["probability"] = round(label.probability, 4)
    return {
        "type": "Feature",
        # Named after image and cell, so that equal results are equal files.
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
        "geometry": {"type": "Polygon", "coordinates": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": name, "color": list(bytes.fromhex(colour_of(name)[1:]))},
            "measurements": measurements,
        },
    }
