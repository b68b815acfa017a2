"""Training on drawn fields: windows that repeat, a loss that spares what is not annotated, a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leukokit import weights
from leukokit.datasets.fields import AnnotatedField, Selection, is_held_back, read_fields, write_fields
from leukokit.detectors.yolo.loading import load_yolo
from leukokit.errors import ConfigError, DataError
from leukokit.synthetic.smear import draw_smear, save_smear
from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE, PLATELET
from leukokit.training.augment import Window
from leukokit.training.detector import (
    DetectionLoss,
    DetectorRecipe,
    LoadedField,
    WindowDataset,
    collate,
    detector_plan,
    load_fields,
    new_network,
    train_detector,
)
from leukokit.training.loop import Training

HELD_BACK = 0.3


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    fields = []
    for seed in range(6):
        drawn = draw_smear(seed, 240, 200, 1, 36.0)
        save_smear(drawn, folder / f"{seed}.png")
        fields.append(
            AnnotatedField(
                folder / f"{seed}.png", "drawn", "lab", f"photo{seed}", "", "train",
                ("leukocyte",) if seed == 5 else KINDS,
                drawn.boxes.tolist(), list(drawn.kinds), list(drawn.labels),
            )
        )  # fmt: skip
    assert 0 < sum(is_held_back(field.photo, HELD_BACK) for field in fields) < len(fields)
    write_fields(folder / "fields.jsonl", fields)
    return folder / "fields.jsonl"


@pytest.fixture(scope="module")
def loaded(index: Path) -> list[LoadedField]:
    return load_fields(list(read_fields(index)))


def recipe(index: Path, **settings: Any) -> DetectorRecipe:
    values: dict[str, Any] = {
        "name": "tiny", "fields": index, "train": [{"dataset": "drawn"}], "window_px": 128, "batch": 2,
        "steps": 8, "check_every": 4, "held_back": HELD_BACK, "workers": 0, "cell_diameter_px": 30.0,
    }  # fmt: skip
    return DetectorRecipe.model_validate(values | settings)


def test_fields_keep_only_what_is_annotated_completely(index: Path, loaded: list[LoadedField]) -> None:
    window, diameter, annotated = loaded[5]
    assert annotated == ("leukocyte",)
    assert set(window.kinds.tolist()) == {LEUKOCYTE}
    assert {ERYTHROCYTE, LEUKOCYTE} <= set(loaded[0][0].kinds.tolist())
    assert loaded[0][1] == pytest.approx(36, rel=0.15)
    assert diameter > 0


def test_windows_depend_on_seed_and_number_alone(index: Path, loaded: list[LoadedField]) -> None:
    first, second = (WindowDataset(loaded, recipe(index), 50) for _ in range(2))
    other_seed = WindowDataset(loaded, recipe(index, seed=1), 50)
    [first[number] for number in range(5)]
    for number in (7, 3):
        one, annotated = first[number]
        two, also_labelled = second[number]
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.boxes, two.boxes)
        assert np.array_equal(one.kinds, two.kinds)
        assert annotated == also_labelled
        assert not np.array_equal(one.image, other_seed[number][0].image)
    assert not np.array_equal(first[3][0].image, first[7][0].image)


def test_boxes_lie_in_the_window(index: Path, loaded: list[LoadedField]) -> None:
    supply = WindowDataset(loaded, recipe(index), 60)
    sides = []
    for number in range(len(supply)):
        window, annotated = supply[number]
        assert window.image.shape == (128, 128, 3) and window.image.dtype == np.uint8
        assert window.boxes.dtype == np.float32
        assert (window.boxes >= 0).all() and (window.boxes <= 128).all()
        assert (window.boxes[:, 2:] - window.boxes[:, :2] >= 3 - 1e-3).all()
        assert {KINDS[kind] for kind in window.kinds} <= set(annotated)
        inner = window.boxes[
            (window.kinds == ERYTHROCYTE) & (window.boxes.min(1) > 1) & (window.boxes.max(1) < 127)
        ]
        sides += np.sqrt(np.prod(inner[:, 2:] - inner[:, :2], axis=1)).tolist()
    assert np.median(sides) == pytest.approx(30, rel=0.35)


def window_of(*kinds: int) -> Window:
    rng = np.random.default_rng(len(kinds))
    boxes = np.array([[10 + 30 * n, 20, 38 + 30 * n, 50] for n in range(len(kinds))], np.float32)
    image = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    return Window(image, boxes.reshape(-1, 4), np.array(kinds, np.int64))


def test_batch_for_the_loss() -> None:
    batch = collate([(window_of(0, 1), KINDS), (window_of(), ("leukocyte",)), (window_of(2), KINDS)])
    assert batch["img"].shape == (3, 3, 128, 128) and batch["img"].dtype == torch.uint8
    assert batch["bboxes"][0].tolist() == pytest.approx([24 / 128, 35 / 128, 28 / 128, 30 / 128])
    assert batch["cls"].tolist() == [[0], [1], [2]]
    assert batch["batch_idx"].tolist() == [0, 0, 2]
    assert batch["class_weights"].tolist() == [[[1, 1, 1]], [[1, 0, 0]], [[1, 1, 1]]]


@pytest.mark.parametrize("annotated", [("leukocyte",), ("leukocyte", "platelet"), KINDS])
def test_kind_that_is_not_annotated_learns_nothing(index: Path, annotated: tuple[str, ...]) -> None:
    """An optimiser step leaves the last bias of its class as it was."""
    torch.manual_seed(0)
    own = recipe(index, learning_rate=0.1)
    network = new_network(own, "cpu")
    training, loss = Training(network, own, detector_plan(own)), DetectionLoss(network, "cpu")

    def biases() -> torch.Tensor:
        return torch.stack([branch[-1].bias.detach().clone() for branch in network.model[-1].cv3])

    before = biases()
    batch = collate([(window_of(LEUKOCYTE), annotated), (window_of(LEUKOCYTE, LEUKOCYTE), annotated)])
    training.advance(loss(network, batch))
    moved = (biases() != before).any(dim=0).tolist()
    assert moved == [kind in annotated for kind in KINDS]
    assert PLATELET == 2


class StoppedError(Exception):
    """What a user's Ctrl-C is to a run."""


@pytest.fixture(scope="module")
def uninterrupted(index: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    said: list[str] = []
    out = tmp_path_factory.mktemp("whole")
    path = train_detector(recipe(index), out, report=said.append, command="leukokit train detector")
    assert path == out / "best.safetensors"
    return path, said


def test_run_leaves_weights_with_their_card(uninterrupted: tuple[Path, list[str]], index: Path) -> None:
    path, said = uninterrupted
    card = weights.read_card(path, weights.DetectorCard)
    assert card.name == "tiny" and card.kinds == list(KINDS)
    assert card.command == "leukokit train detector"
    assert card.recipe["steps"] == 8
    assert card.data[0]["dataset"] == "drawn" and card.data[0]["fields"] == 6
    loaded = load_yolo(path, "cpu", trust_pickle=False)
    assert loaded.cell_diameter_px == 30.0
    assert np.isfinite(loaded.network(np.zeros((1, 64, 64, 3), np.uint8))).all()
    names = {"best.safetensors", "best.json", "best.onnx", "state.pt"}
    assert {file.name for file in path.parent.iterdir()} == names
    assert any("held-back loss" in line for line in said)


def test_resumed_run_ends_where_an_uninterrupted_one_does(
    index: Path,
    tmp_path: Path,
    uninterrupted: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advance = Training.advance

    def stops(training: Training, loss: torch.Tensor) -> float:
        if training.step == 5:
            raise StoppedError
        return advance(training, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", stops)
        with pytest.raises(StoppedError):
            train_detector(recipe(index), tmp_path, report=lambda _: None)
    # Another state of torch's generator must not matter.
    torch.rand(17)
    path = train_detector(recipe(index), tmp_path, resume=True, report=lambda _: None)
    whole = torch.load(uninterrupted[0].parent / "state.pt", weights_only=True)
    resumed = torch.load(tmp_path / "state.pt", weights_only=True)
    assert whole["step"] == resumed["step"] == 8
    for part in ("network", "average"):
        for key, value in whole[part].items():
            # Sums in another order, by thread, are all that may differ.
            torch.testing.assert_close(resumed[part][key], value, rtol=1e-4, atol=1e-4, msg=f"{part} {key}")
    best, again = load_file(uninterrupted[0]), load_file(path)
    assert all(torch.allclose(best[key].float(), again[key].float(), atol=1e-3) for key in best)


def test_training_changes_weights_and_start_from_keeps_them(
    index: Path, uninterrupted: tuple[Path, list[str]]
) -> None:
    torch.manual_seed(0)
    fresh = new_network(recipe(index), "cpu").state_dict()
    started = new_network(recipe(index, start_from=uninterrupted[0]), "cpu").state_dict()
    stored = load_file(uninterrupted[0])
    key = next(key for key in stored if key.endswith("conv.weight"))
    assert torch.equal(started[key], stored[key].float())
    assert not torch.allclose(fresh[key], started[key], atol=1e-4)


def test_a_run_of_another_recipe_is_not_gone_on_with(
    index: Path, tmp_path: Path, uninterrupted: tuple[Path, list[str]]
) -> None:
    shutil.copy(uninterrupted[0].parent / "state.pt", tmp_path)
    other = recipe(index, train=[{"dataset": "drawn", "labs": ["lab"]}])
    with pytest.raises(ConfigError, match=r"train was \[.*'labs': \[\].*, is \[.*'labs': \['lab'\]"):
        train_detector(other, tmp_path, resume=True, report=lambda _: None)


def test_nothing_to_resume(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        train_detector(recipe(index), tmp_path, resume=True, report=lambda _: None)


def test_recipe_that_selects_nothing(index: Path, tmp_path: Path) -> None:
    nothing = recipe(index, train=[{"dataset": "other"}])
    with pytest.raises(DataError, match=r"selects no field.*there are: drawn \(lab lab; split train\)"):
        train_detector(nothing, tmp_path, report=lambda _: None)


@pytest.mark.parametrize(
    ("selection", "accepted"),
    [
        ({"dataset": "drawn"}, True),
        ({"dataset": "drawn", "labs": ["lab", "other"]}, True),
        ({"dataset": "drawn", "labs": ["other"]}, False),
        ({"dataset": "drawn", "splits": ["val"]}, False),
        ({"dataset": "drawn", "slides": ["s"]}, False),
        ({"dataset": "other"}, False),
    ],
)
def test_selection(index: Path, selection: dict[str, Any], accepted: bool) -> None:
    assert Selection(**selection).accepts(next(read_fields(index))) is accepted
