"""What classifiers with trained weights share: a weight file, and the card that tells its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import TypeVar

from leukokit import weights
from leukokit.classifiers.base import Classifier
from leukokit.config import PluginChoice
from leukokit.plugin import PluginParams
from leukokit.weights import ClassifierCard


class TrainedParams(PluginParams):
    """Parameters of a classifier with trained weights; a subclass gives ``weights`` its default."""

    weights: Path = Field(Path(), description="name of shipped weights, or a weight file")
    review_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability below which a cell is unclassified; by default the weights' own",
    )


T_co = TypeVar("T_co", bound=TrainedParams, default=TrainedParams, covariant=True)


class TrainedClassifier(Classifier[T_co]):
    """A classifier whose classes, temperature and review threshold stand on the card beside its weights.

    Raises:
        WeightsError: there is no such file, or its card is missing or does not fit it.
    """

    def __init__(self, params: T_co | None = None, device: str = "cpu") -> None:
        super().__init__(params, device)
        self.path = weights.find(self.params.weights)
        self.card = weights.read_card(self.path, ClassifierCard)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, from the weights' card."""
        return tuple(self.card.classes)

    @property
    def review_threshold(self) -> float:
        """Least probability of a class, as the user or else the card says."""
        return (
            self.card.review_threshold
            if self.params.review_threshold is None
            else float(self.params.review_threshold)
        )

    @property
    def card_graph(self) -> PluginChoice | None:
        """The graph builder that the card names: ``trained_graph`` of classifiers that use links."""
        return PluginChoice.model_validate(self.card.graph) if self.card.graph else None

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The weight file."""
        return (self.path,)

    def provenance(self) -> dict[str, Any]:
        """As every plugin's, with the review threshold in force and the weights by their name."""
        stored = super().provenance()
        stored["params"]["review_threshold"] = self.review_threshold
        # Where the file lies on this machine decides nothing.
        stored["params"]["weights"] = self.card.name
        return stored
