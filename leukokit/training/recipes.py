"""The recipe of any classifier that can be trained; its key ``classifier`` says of which."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, RootModel, field_validator, model_validator

from leukokit.registry import classifiers
from leukokit.training.classifier import ClassifierRecipe
from leukokit.training.hybrid import HybridRecipe


class _Named(BaseModel):
    classifier: str

    @field_validator("classifier")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in classifiers.names():
            raise ValueError(f"no classifier is called '{name}'; there are: {', '.join(classifiers.names())}")
        return name


class AnyClassifierRecipe(RootModel[ClassifierRecipe | HybridRecipe]):
    """What ``leukokit train classifier --config`` reads."""

    # Not a discriminated union: its errors name the member of the union, which no recipe has as a key.
    @model_validator(mode="before")
    @classmethod
    def _chosen(cls, values: Any) -> ClassifierRecipe | HybridRecipe:
        hybrid = _Named.model_validate(values).classifier == "hybrid"
        return (HybridRecipe if hybrid else ClassifierRecipe).model_validate(values)
