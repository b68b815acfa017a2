"""The recipes on the pages about one's own data are accepted, and every key of a selection is named."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from leukokit.config import load_settings
from leukokit.datasets.fields import Selection
from leukokit.evaluation.comparison.methods import Comparison
from leukokit.training import load_classifier_recipe, load_detector_recipe

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = "".join((HOW_TO / name).read_text(encoding="utf-8") for name in ("own-data.md", "compare.md"))
LOADERS: dict[str, Callable[[Path], object]] = {
    "my-classifier.yaml": load_classifier_recipe,
    "my-detector.yaml": load_detector_recipe,
    "my-compare.yaml": partial(load_settings, Comparison),
}


def test_the_recipes_of_the_page_are_accepted(tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```yaml\n# (\S+)[^\n]*\n(.*?)```", PAGE, re.DOTALL))
    assert blocks.keys() == LOADERS.keys()
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)
        LOADERS[name](tmp_path / name)
    for key in Selection.model_fields:
        assert f"{key}:" in blocks["my-classifier.yaml"]
    assert "--photo-pattern" in PAGE
