"""The recipe of any built-in classifier; its key ``classifier`` says of which."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from leukokit.training.classifier import ClassifierRecipe
from leukokit.training.hybrid import HybridRecipe


class AnyClassifierRecipe(
    RootModel[Annotated[ClassifierRecipe | HybridRecipe, Field(discriminator="classifier")]]
):
    """What ``leukokit train classifier --config`` reads."""
