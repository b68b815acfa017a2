"""The recipe of any built-in classifier; its key ``classifier`` says of which."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, RootModel, model_validator

from leukokit.training.classifier import ClassifierRecipe
from leukokit.training.hybrid import HybridRecipe


class _Named(BaseModel):
    classifier: Literal["cnn", "altarawneh", "hybrid"]


class AnyClassifierRecipe(RootModel[ClassifierRecipe | HybridRecipe]):
    """What ``leukokit train classifier --config`` reads."""

    # Not a discriminated union: its errors name the member of the union, which no recipe has as a key.
    @model_validator(mode="before")
    @classmethod
    def _chosen(cls, values: Any) -> ClassifierRecipe | HybridRecipe:
        hybrid = _Named.model_validate(values).classifier == "hybrid"
        return (HybridRecipe if hybrid else ClassifierRecipe).model_validate(values)
