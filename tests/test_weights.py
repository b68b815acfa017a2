"""Weight files and their cards stay together, or are refused with the reason."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leukokit import weights
from leukokit.errors import OutputError, WeightsError
from leukokit.taxonomy import KINDS, LEUKOCYTE_CLASSES
from leukokit.weights.files import load_weights, save_weights

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


def make_classifier(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.safetensors"
    path.write_bytes(b"some weights")
    card = {
        "name": "mine",
        "architecture": "efficientnet-lite0",
        "classes": list(LEUKOCYTE_CLASSES),
        "crop_px": 80,
        "cover": 1.3,
        "nucleus": False,
        "sha256": hashlib.sha256(b"some weights").hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card | changes))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1e30},
        {"temperature": float("nan")},
        {"temperature": 0},
        {"crop_px": 10**6},
        {"crop_px": -5},
        {"cover": float("inf")},
        {"cover": 1e9},
        {"review_threshold": float("nan")},
        {"classes": []},
        {"classes": ["a", "A"]},
        {"classes": ["a", "=1+1"]},
        {"classes": ["a", "\x1b[2J"]},
        {"classes": ["a", "b\nc"]},
        {"classes": ["a", "unclassified"]},
        {"classes": ["a", "x" * 101]},
        {"cnn": {"name": "../evil", "sha256": "x"}},
        {"cnn": {"name": "/etc/passwd"}},
    ],
    ids=str,
)
def test_a_classifier_card_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = make_classifier(tmp_path)
    assert weights.read_card(path, weights.ClassifierCard).classes == list(LEUKOCYTE_CLASSES)
    path = make_classifier(tmp_path, **change)
    with pytest.raises(
        WeightsError, match=rf"mine\.json: not a card of classifier weights \({next(iter(change))}"
    ) as caught:
        weights.read_card(path, weights.ClassifierCard)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        *({"cell_diameter_px": value} for value in (0, -5, 1e9, 1e-9, float("nan"))),
        *({"confidence": value} for value in (float("nan"), -1, 2)),
        {"diameter_range_px": [90, 20]},
    ],
    ids=str,
)
def test_a_detector_card_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert f"({next(iter(change))}" in refusal(make(tmp_path, **change))


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_a_card_that_never_ends_is_refused_at_once(tmp_path: Path, target: str) -> None:
    path = make(tmp_path)
    card = path.with_suffix(".json")
    card.unlink()
    if target == "pipe":
        os.mkfifo(card)
    else:
        card.symlink_to(target)
    assert "not a card" in refusal(path)
    assert weights.card_model(card) is weights.DetectorCard


def test_a_card_of_great_depth_or_size_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    for content in (b"[" * 100_000, b'{"name": "' + b"x" * weights.MAX_CARD_BYTES + b'"}'):
        path.with_suffix(".json").write_bytes(content)
        assert "not a card" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    network = nn.Linear(3, 2)
    with torch.no_grad():
        network.bias[1] = value
    save_weights(network, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a\.safetensors: holds numbers that are not finite \(bias\)"):
        load_weights(nn.Linear(3, 2), tmp_path / "a.safetensors")


def test_weights_that_cannot_be_written_are_an_error_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_weights(nn.Linear(3, 2), tmp_path / "none" / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


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
