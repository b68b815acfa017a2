"""Writer ``json``: one document per image, schema 1."""

from __future__ import annotations

import json

from leukokit.results import SmearResult
from leukokit.writers.base import Writer


class JsonWriter(Writer):
    """``STEM.json`` for every image; see ``SmearResult.to_json``."""

    name = "json"
    version = "1.0"
    summary = "one JSON document per image: cells, graph, counts, differential, provenance"

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        document = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False, indent=1)
        self.save(self.path_for(result, ".json"), document + "\n")
