"""Weight files: the shipped ones by name, and the card that stands beside every file.

A weight file is safetensors; its card is JSON of the same stem, and says what the weights are, what they
were trained on, how well they did and how to make them again. Nothing here unpickles anything.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from leukokit._files import read_regular_file, write_atomically
from leukokit._text import FORMULA_STARTS, one_line
from leukokit._yaml import first_fault
from leukokit.errors import WeightsError
from leukokit.taxonomy import UNCLASSIFIED, is_class_name
from leukokit.weights.files import load_weights as load_weights
from leukokit.weights.files import save_weights as save_weights

FOLDER: Final = Path(__file__).parent
MAX_CARD_BYTES: Final = 4_000_000
"""Largest card that is read."""
RECORDED: Final = (
    *("fields", "photos", "threshold", "map50", "map50_95", "kinds"),
    *("cells", "accuracy", "accuracy_interval", "balanced_accuracy", "balanced_accuracy_interval"),
    *("coverage", "accuracy_of_classified", "calibration_error", "recalls"),
)
"""Figures of an evaluation that a card keeps."""


class Card(BaseModel):
    """What the cards of all weights say."""

    model_config = ConfigDict(extra="forbid")
    name: str
    architecture: str = Field(description="of the network, e.g. yolo11n or efficientnet-lite0")
    sha256: str = Field(description="of the weight file")
    onnx_sha256: str = Field(
        default="",
        description="of the ONNX graph beside the weight file, or of OpenVINO's .bin; empty without one",
    )
    command: str = Field(default="", description="command that makes these weights again")
    recipe: dict[str, Any] = Field(default_factory=dict, description="the configuration it was trained with")
    data: list[dict[str, Any]] = Field(default_factory=list, description="sets, how much of each, licences")
    metrics: list[dict[str, Any]] = Field(default_factory=list, description="results by title, with n")
    use: str = "Research use only; not a medical device."


class DetectorCard(Card):
    """The card of a detector's weights."""

    kinds: list[str] = Field(min_length=1, description="class names in the order of the network's outputs")
    cell_diameter_px: float = Field(
        ge=4, le=1000, allow_inf_nan=False, description="best erythrocyte diameter for the network, in pixels"
    )
    diameter_range_px: tuple[float, float] = Field(description="diameters it was trained on")
    confidence: float = Field(
        0.25, ge=0, le=1, allow_inf_nan=False, description="confidence threshold unless the user sets one"
    )

    @field_validator("diameter_range_px")
    @classmethod
    def _check_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] < value[1] <= 10_000:
            raise ValueError("must be two diameters in pixels, the smaller first, at most 10000")
        return value


class ClassifierCard(Card):
    """The card of a classifier's weights."""

    classes: list[str] = Field(min_length=1, description="class names in the order of the network's outputs")
    crop_px: int = Field(ge=8, le=1024, description="side of the crops that the network gets, in pixels")
    cover: float = Field(ge=0.2, le=20, allow_inf_nan=False, description="side of a crop in units")
    unit: Literal["box", "erythrocyte"] = Field(
        default="box", description="unit of 'cover', see crops.crop_sides"
    )
    nucleus: bool = Field(description="whether nuclei are brought to one stain first")
    graph: dict[str, Any] = Field(default_factory=dict, description="graph builder it was trained with")
    temperature: float = Field(
        1.0,
        ge=0.01,
        le=100,
        allow_inf_nan=False,
        description="divisor of the logits, fitted on held-back photographs",
    )
    review_threshold: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="probability below which a cell is unclassified"
    )
    cnn: dict[str, str] = Field(
        default_factory=dict, description="of a hybrid: name and SHA-256 of the CNN's weights"
    )

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, names: list[str]) -> list[str]:
        for name in names:
            if not is_class_name(name) or name.startswith(FORMULA_STARTS) or name == UNCLASSIFIED:
                raise ValueError(f"{name[:40]!r} is no class name")
        if len({name.casefold() for name in names}) < len(names):
            raise ValueError("two classes have the same name")
        return names

    @field_validator("cnn")
    @classmethod
    def _check_cnn(cls, cnn: dict[str, str]) -> dict[str, str]:
        # It becomes part of a path.
        if cnn and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", cnn.get("name", "")):
            raise ValueError(f"{cnn.get('name', '')[:40]!r} is no name of weights")
        return cnn


AnyCard = TypeVar("AnyCard", bound=Card)


def shipped() -> list[Path]:
    """Weight files inside the package, sorted by name."""
    return sorted(FOLDER.glob("*.safetensors"))


def find(weights: Path | str) -> Path:
    """A weight file by its path, or a shipped one by its name.

    Raises:
        WeightsError: neither; says what is shipped.
    """
    path = Path(weights)
    if path.is_file():
        return path
    for candidate in shipped():
        if candidate.stem == str(weights):
            return candidate
    names = ", ".join(candidate.stem for candidate in shipped()) or "none"
    raise WeightsError(
        f"{weights}: no such weight file, and no shipped weights of that name (shipped: {names})"
    )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_card(path: Path, model: type[AnyCard], check: bool = True) -> AnyCard:
    """The card of a kind beside a weight file, its hash compared with the file's.

    Raises:
        WeightsError: no card, not a card, or a hash that differs (a damaged or another file).
    """
    card = _parse_card(path.with_suffix(".json"), model)
    if check and (found := sha256_of(path)) != card.sha256:
        raise WeightsError(
            f"{path}: SHA-256 {found[:12]}... is not the card's {card.sha256[:12]}...; get it again"
        )
    return card


def graph_of(path: Path, card: Card) -> Path | None:
    """The ONNX graph beside a weight file, which takes its weights from it; None where there is none."""
    graph = path.with_suffix(".onnx")
    return graph if card.onnx_sha256 and graph.is_file() else None


def record_graph(path: Path, sha256: str) -> None:
    """Put the hash of the ONNX graph beside a weight file into its card.

    Raises:
        WeightsError: no card.
    """
    card_path = path.with_suffix(".json")
    card = _parse_card(card_path, card_model(card_path)).model_copy(update={"onnx_sha256": sha256})
    write_card(card, path)


def write_card(card: Card, path: Path) -> None:
    """Write the card of the weights at ``path`` beside them, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path.with_suffix(".json"), card.model_dump_json(indent=1) + "\n")


def record_metrics(card_path: Path, title: str, figures: dict[str, Any]) -> None:
    """Put an evaluation's figures into a card, in place of earlier ones of the same title.

    Raises:
        WeightsError: not a card.
    """
    card = _parse_card(card_path, card_model(card_path))
    kept = [entry for entry in card.metrics if entry["title"] != title]
    numbers = {key: figures[key] for key in RECORDED if key in figures}
    changed = card.model_copy(update={"metrics": [*kept, {"title": title} | numbers]})
    write_card(changed, card_path)


def card_model(card_path: Path) -> type[Card]:
    """Return the kind of card that a file is: a classifier's has classes."""
    try:
        document = json.loads(read_regular_file(card_path, MAX_CARD_BYTES))
    except (OSError, ValueError, RecursionError):
        return DetectorCard
    return ClassifierCard if isinstance(document, dict) and "classes" in document else DetectorCard


def _parse_card(card_path: Path, model: type[AnyCard]) -> AnyCard:
    kind = model.__name__.removesuffix("Card").lower()
    try:
        return model(**json.loads(read_regular_file(card_path, MAX_CARD_BYTES)))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{card_path}: no such card; it belongs beside its weight file; keep the two together"
        ) from error
    except ValidationError as error:
        reason = first_fault(error, model)
        raise WeightsError(f"{card_path}: not a card of {kind} weights ({reason})") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{card_path}: not a card of {kind} weights ({one_line(error)})") from error
