"""Weight files and their cards stay together, or are refused with the reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from leukokit import weights
from leukokit.errors import WeightsError
from leukokit.taxonomy import KINDS, LEUKOCYTE_CLASSES

MOST_BYTES = 6_500_000
SHIPPED = weights.shipped()


def make(folder: Path, content: bytes = b"some weights", **changes: Any) -> Path:
    path = folder / "mine.safetensors"
    path.write_bytes(content)
    card = {
        "name": "mine",
        "architecture": "yolo11n",
        "kinds": list(KINDS),
        "cell_diameter_px": 44.0,
        "diameter_range_px": [20, 90],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card | changes))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        weights.read_card(path, weights.DetectorCard)
    assert len(str(caught.value).splitlines()) == 1
    assert "mine" in str(caught.value)
    return str(caught.value)


def test_something_is_shipped() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_weights_fit_their_card(path: Path) -> None:
    card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
    assert card.name == path.stem
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size < MOST_BYTES
    if isinstance(card, weights.DetectorCard):
        assert set(card.kinds) <= set(KINDS)
        low, high = card.diameter_range_px
        assert 0 < low <= card.cell_diameter_px <= high
        assert 0 < card.confidence < 1
    else:
        assert isinstance(card, weights.ClassifierCard)
        assert set(LEUKOCYTE_CLASSES) <= set(card.classes)
        assert card.crop_px >= 32 and 0 < card.review_threshold < 1
    assert weights.find(path.stem) == path


def test_all_shipped_weights_together_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED) < 15_000_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_that_was_cut_short_is_refused(tmp_path: Path, path: Path) -> None:
    cut = tmp_path / path.name
    cut.write_bytes(path.read_bytes()[:-1])
    shutil.copy(path.with_suffix(".json"), tmp_path)
    with pytest.raises(WeightsError, match="is not the card's"):
        weights.read_card(cut, weights.card_model(cut.with_suffix(".json")))


def test_a_card_is_read_with_its_defaults(tmp_path: Path) -> None:
    card = weights.read_card(make(tmp_path), weights.DetectorCard)
    assert (card.name, card.diameter_range_px, card.confidence) == ("mine", (20.0, 90.0), 0.25)
    assert "not a medical device" in card.use


def test_found_by_path_or_by_name(tmp_path: Path) -> None:
    path = make(tmp_path)
    assert weights.find(path) == weights.find(str(path)) == path


@pytest.mark.parametrize("name", ["no-such", "", ".", "../weights", "smear-yolo11n.json"])
def test_an_unknown_name_is_told_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        weights.find(name)
    assert all(path.stem in str(caught.value) for path in SHIPPED)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.write_bytes(b"some Weights")
    message = refusal(path)
    assert hashlib.sha256(b"some Weights").hexdigest()[:12] in message
    assert weights.read_card(path, weights.DetectorCard, check=False).name == "mine"


def test_a_card_that_is_missing(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.with_suffix(".json").unlink()
    assert "mine.json" in refusal(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b'{"name": "mine"}'])
def test_what_is_no_card(tmp_path: Path, text: bytes) -> None:
    path = make(tmp_path)
    path.with_suffix(".json").write_bytes(text)
    assert "not a card" in refusal(path)


@pytest.mark.parametrize(
    "change", [{"kinds": "platelet"}, {"confidence": "much"}, {"diameter_range_px": [1]}, {"classes": []}]
)
def test_a_card_with_a_wrong_entry(tmp_path: Path, change: dict[str, Any]) -> None:
    assert "not a card" in refusal(make(tmp_path, **change))


def test_a_card_that_is_a_folder(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.with_suffix(".json").unlink()
    path.with_suffix(".json").mkdir()
    assert "not a card" in refusal(path)


FIGURES = {"fields": 4, "photos": 2, "threshold": 0.25, "map50": 0.9, "map50_95": 0.6, "kinds": {}}


def test_metrics_replace_those_of_the_same_title(tmp_path: Path) -> None:
    path = make(tmp_path)
    for title, score in (("one", 0.5), ("two", 0.6), ("one", 0.7)):
        weights.record_metrics(path.with_suffix(".json"), title, FIGURES | {"map50": score, "other": 1})
    recorded = weights.read_card(path, weights.DetectorCard).metrics
    assert [(entry["title"], entry["map50"]) for entry in recorded] == [("two", 0.6), ("one", 0.7)]
    assert "other" not in recorded[0]


@pytest.mark.parametrize("path", weights.shipped(), ids=lambda path: path.stem)
def test_shipped_cards_say_how_well_they_did_and_on_what(path: Path) -> None:
    card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
    titles = [entry["title"] for entry in card.metrics]
    assert len(titles) == len(set(titles)) >= 3
    assert all(entry.get("cells") or entry["fields"] for entry in card.metrics)
    assert card.data and card.command and "Research use only" in card.use
