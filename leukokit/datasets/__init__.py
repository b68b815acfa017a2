"""Annotated fields of view: public sets, formats, splits, and the index files made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.datasets.fields import AnnotatedField as AnnotatedField
    from leukokit.datasets.fields import Selection as Selection
    from leukokit.datasets.fields import WeightsName as WeightsName
    from leukokit.datasets.fields import is_held_back as is_held_back
    from leukokit.datasets.fields import read_fields as read_fields
    from leukokit.datasets.recipe import FieldsConfig, SetRecipe
    from leukokit.datasets.report import PreparationReport

_MODULES = {
    "AnnotatedField": "fields",
    "Selection": "fields",
    "WeightsName": "fields",
    "is_held_back": "fields",
    "read_fields": "fields",
}
__all__ = ["prepare", *_MODULES]
__getattr__, __dir__ = lazy_names(__name__, _MODULES)


def prepare(
    source: Path | FieldsConfig,
    out: Path,
    recipe: SetRecipe | None = None,
    lab: str = "",
    photo_pattern: str | None = None,
    val: float = 0.2,
    seed: int = 0,
) -> PreparationReport:
    """Turn annotated images into the fields that training and evaluation read.

    Args:
        source: folder of one set, or a configuration of several sets with an index.
        out: the ``.jsonl`` to write; the report is written beside it.
        recipe: form and classes of the one set.
        lab: laboratory of the one set; the set's name where it is empty.
        photo_pattern: regular expression with one group, the photograph's name in a file's name.
        val: share of the photographs for validation, where the index says no splits.
        seed: another one gives another split.

    Returns:
        What was prepared, and what was left out or changed, with the reasons.

    Raises:
        ConfigError: a folder without a recipe, or a bad pattern or share.
        DataError: nothing can be prepared.
        OutputError: ``out`` cannot be written.
    """
    from leukokit.datasets.preparation import prepare_index, prepare_set
    from leukokit.errors import ConfigError

    if not isinstance(source, Path):
        return prepare_index(source, out)
    if recipe is None:
        raise ConfigError(f"{source}: one set needs a recipe, which names the form of its annotations")
    return prepare_set(source, recipe, out, lab or recipe.name, photo_pattern, val, seed)
