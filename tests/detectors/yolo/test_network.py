"""Weight files of every kind: what is read, what is refused and why, and that all give the same cells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from leukokit import weights
from leukokit.cells import Cells
from leukokit.detectors.yolo.detector import YoloDetector, YoloParams
from leukokit.detectors.yolo.loading import load_yolo
from leukokit.detectors.yolo.network import build_network, layout_of, to_corners
from leukokit.errors import WeightsError
from leukokit.images.standardize import estimate_standardization
from leukokit.smear import Smear, read_image
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE, PLATELET
from leukokit.weights.files import load_weights, save_weights

EXAMPLE = Path(__file__).parents[3] / "examples" / "smear.png"
SHIPPED = weights.find("smear-yolo11n")


def cells_by(**params: Any) -> Cells:
    image = read_image(EXAMPLE)
    smear = replace(Smear.from_array(image), standardization=estimate_standardization(image))
    # Not the card's own threshold: other kinds of file have no card.
    return YoloDetector(YoloParams(confidence=0.25, **params)).detect([smear])[0]


FOREIGN_DIAMETER = 48.0
"""Erythrocyte diameter, in pixels of the picture, at which a network without a card looks at a field."""


def cells_by_foreign(**params: Any) -> Cells:
    """Cells by a network without a card, shown the field at the scale of the shipped one's ``cells_by``."""
    own = weights.read_card(SHIPPED, weights.DetectorCard).cell_diameter_px
    return cells_by(cell_diameter_px=72 * FOREIGN_DIAMETER / own, **params)


def assert_same_cells(first: Cells, second: Cells) -> None:
    """All cells but those near the threshold, which rounding may lift over it or not."""
    assert len(first) > 100
    for some, others in ((first, second), (second, first)):
        sure = some[some.scores > 0.3]
        apart = np.abs(sure.boxes[:, None] - others.boxes[None]).max(axis=2)
        assert apart.min(axis=1).max() <= 2.0
        assert np.array_equal(others.kinds[apart.argmin(axis=1)], sure.kinds)


@pytest.fixture(scope="module")
def shipped_network() -> Any:
    network = build_network(weights.read_card(SHIPPED, weights.DetectorCard).architecture)
    load_weights(network, SHIPPED)
    return network.eval()


@pytest.fixture(scope="module")
def reference() -> Cells:
    return cells_by(cell_diameter_px=72)


def copied(folder: Path) -> Path:
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), folder / f"own{suffix}")
    return folder / "own.safetensors"


def recard(path: Path, **changes: Any) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | {"sha256": weights.sha256_of(path)} | changes))


def refusal(path: Path, trust_pickle: bool = False) -> str:
    with pytest.raises(WeightsError) as error:
        load_yolo(path, "cpu", trust_pickle)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message or str(path.with_suffix(".json")) in message
    return message


def test_saved_weights_are_loaded_again(tmp_path: Path, shipped_network: Any) -> None:
    path = tmp_path / "again.safetensors"
    save_weights(shipped_network, path)
    assert [file.name for file in tmp_path.iterdir()] == ["again.safetensors"]
    other = build_network("yolo11n")
    load_weights(other, path)
    for key, value in shipped_network.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(other.state_dict()[key], value.half().float()), key


def test_shipped_card_says_what_is_shipped() -> None:
    model = load_yolo(SHIPPED, "cpu", trust_pickle=False)
    assert model.kinds.tolist() == [LEUKOCYTE, ERYTHROCYTE, PLATELET]
    low, high = model.diameter_range_px
    assert low < model.cell_diameter_px < high
    assert 0 < model.confidence < 1
    assert model.sha256 == weights.sha256_of(SHIPPED)


def test_output_is_a_box_and_scores_an_anchor() -> None:
    model = load_yolo(SHIPPED, "cpu", trust_pickle=False)
    output = model.network(np.full((2, 64, 96, 3), 240, np.uint8))
    assert output.shape == (2, (8 * 12) + (4 * 6) + (2 * 3), 4 + 3)
    assert output.dtype == np.float32
    assert (output[..., 4:] >= 0).all() and (output[..., 4:] <= 1).all()
    assert (output[..., 2:4] >= output[..., :2]).all()


def test_corners_from_centres() -> None:
    output = np.array([[[10], [20], [4], [6], [0.5]]], np.float32)
    assert to_corners(output).tolist() == [[[8, 17, 12, 23, 0.5]]]


def test_unknown_architecture() -> None:
    with pytest.raises(WeightsError, match="yolo99z"):
        build_network("yolo99z")


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    path = copied(tmp_path)
    recard(path, architecture="yolov8n")
    assert "another architecture" in refusal(path)


def test_weights_for_another_number_of_classes(tmp_path: Path) -> None:
    path = copied(tmp_path)
    recard(path, kinds=["leukocyte", "erythrocyte"])
    assert "another architecture" in refusal(path)


def test_damaged_file_differs_from_its_card(tmp_path: Path) -> None:
    path = copied(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "SHA-256" in refusal(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = copied(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    recard(path)
    assert "safetensors" in refusal(path)


@pytest.mark.parametrize("card", [None, "", "[]", "{}", '{"name": 3'])
def test_missing_or_broken_card(tmp_path: Path, card: str | None) -> None:
    path = copied(tmp_path)
    path.with_suffix(".json").unlink()
    if card is not None:
        path.with_suffix(".json").write_text(card)
    assert "card" in refusal(path)


def test_unknown_class_names(tmp_path: Path) -> None:
    path = copied(tmp_path)
    recard(path, kinds=["leukocyte", "cat", "platelet"])
    message = refusal(path)
    assert "cat" in message and "erythrocyte" in message


def test_class_names_of_others_are_understood(tmp_path: Path) -> None:
    path = copied(tmp_path)
    recard(path, kinds=["WBC", "red_blood_cells", "Platelets"])
    assert load_yolo(path, "cpu", False).kinds.tolist() == [LEUKOCYTE, ERYTHROCYTE, PLATELET]


def test_foreign_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(b"x")
    refusal(path)


def checkpoint(network: Any, path: Path, names: dict[int, str]) -> Path:
    """A file laid out as ultralytics' trainer leaves it."""
    network.names = names
    torch.save({"epoch": -1, "ema": None, "model": network, "train_args": {}}, path)
    return path


def test_pickle_is_read_only_where_trusted(tmp_path: Path, shipped_network: Any, reference: Cells) -> None:
    path = checkpoint(shipped_network, tmp_path / "best.pt", {0: "WBC", 1: "RBC", 2: "Platelets"})
    assert "trust" in refusal(path)
    assert_same_cells(cells_by_foreign(weights=path, trust_pickle=True), reference)


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickle_that_is_not_trusted_runs_nothing(tmp_path: Path) -> None:
    torch.save({"model": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    refusal(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    assert "checkpoint" in refusal(tmp_path / "evil.pt", trust_pickle=True)
    assert (tmp_path / "ran").exists(), "the payload would not have run in any case"


def test_pickle_with_unknown_classes(tmp_path: Path, shipped_network: Any) -> None:
    path = checkpoint(shipped_network, tmp_path / "b.pt", {0: "WBC", 1: "dog", 2: "Platelets"})
    assert "dog" in refusal(path, trust_pickle=True)


def exported(network: Any, path: Path, side: int | None, names: str | None) -> Path:
    """ONNX as ultralytics exports it; ``side`` fixes the batch to 1 and the picture to that size."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    head = network.model[-1]
    free = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 2: "anchors"}}
    head.export, head.format = True, "onnx"
    try:
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side or 320, side or 320),),
            path,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes=None if side else free,
            dynamo=False,
        )
    finally:
        head.export = False
    if names is not None:
        model = onnx.load(path)
        model.metadata_props.add(key="names", value=names)
        onnx.save(model, path)
    return path


NAMES = "{0: 'leukocyte', 1: 'erythrocyte', 2: 'platelet'}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("side", [None, 640])
def test_onnx_gives_the_same_cells(
    tmp_path: Path, shipped_network: Any, reference: Cells, side: int | None
) -> None:
    path = exported(shipped_network, tmp_path / "net.onnx", side, NAMES)
    expected = cells_by(cell_diameter_px=72, tile_px=640) if side else reference
    assert_same_cells(cells_by_foreign(weights=path, tile_px=side or 1024), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_onnx_with_unusable_names(tmp_path: Path, shipped_network: Any) -> None:
    assert "names" in refusal(exported(shipped_network, tmp_path / "none.onnx", 64, None))
    assert "names" in refusal(exported(shipped_network, tmp_path / "odd.onnx", 64, "import os"))
    strange = exported(shipped_network, tmp_path / "cat.onnx", 64, "{0: 'cat', 1: 'dog', 2: 'WBC'}")
    assert "cat" in refusal(strange)


def test_file_that_is_no_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "text.onnx"
    path.write_text("not a network")
    assert "ONNX" in refusal(path)


HOSTILE = "activation: \"__import__('pathlib').Path({path!r}).touch() or __import__('torch').nn.SiLU()\"\n"


def test_layout_in_the_working_directory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "yolo11n.yaml").write_text(HOSTILE.format(path=str(ran)))
    monkeypatch.chdir(tmp_path)
    assert load_yolo(SHIPPED, "cpu", trust_pickle=False).cell_diameter_px
    assert not ran.exists()


def test_card_that_names_a_file_as_architecture_is_refused(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "mine.safetensors"
    (tmp_path / "yolo11n.yaml").write_text(HOSTILE.format(path=str(ran)))
    shutil.copy(SHIPPED, path)
    card = json.loads(SHIPPED.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | {"architecture": str(tmp_path / "yolo11n")}))
    with pytest.raises(WeightsError, match="no such ultralytics detection architecture"):
        load_yolo(path, "cpu", trust_pickle=False)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["yolov8s", "yolov8n-p2", "yolo11x", "yolo26n"])
def test_architectures_of_ultralytics_are_known_in_every_size(name: str) -> None:
    assert layout_of(name)["scale"] == name.split("-")[0][-1]


@pytest.mark.parametrize("name", ["yolo99n", "", "../yolo11n", "yolo11n.yaml"])
def test_other_names_are_no_architectures(name: str) -> None:
    with pytest.raises(WeightsError, match="no such ultralytics detection architecture"):
        layout_of(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cell_diameter_px": 0},
        {"cell_diameter_px": -5},
        {"cell_diameter_px": float("nan")},
        {"cell_diameter_px": 1e9},
        {"diameter_range_px": [0, 100]},
        {"diameter_range_px": [100, 10]},
        {"diameter_range_px": [16, float("inf")]},
        {"confidence": float("nan")},
        {"confidence": 2},
        {"kinds": []},
    ],
)
def test_card_out_of_range_is_blamed_when_it_is_loaded(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "mine.safetensors"
    shutil.copy(SHIPPED, path)
    card = json.loads(SHIPPED.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | wrong))
    with pytest.raises(WeightsError, match=r"mine\.json"):
        load_yolo(path, "cpu", trust_pickle=False)


def output_of(value: float, columns: int = 7) -> npt.NDArray[np.float32]:
    output = np.full((1, 84, columns), 0.5, np.float32)
    output[0, 3, 1] = value
    return output


@pytest.mark.parametrize(
    "output",
    [
        output_of(np.nan),
        output_of(np.inf),
        output_of(1e38),
        output_of(0.5, 6),
        output_of(0.5, 84),
        output_of(0.5)[0],
        np.zeros((2, 84, 7), np.float32),
        np.full((1, 84, 7), 12.0, np.float32),
        np.full((1, 84, 7), -3.0, np.float32),
    ],
)
def test_output_that_no_network_gives_is_refused_as_weights(output: npt.NDArray[np.float32]) -> None:
    shipped = load_yolo(SHIPPED, "cpu", trust_pickle=False)
    detector = YoloDetector()
    detector.__dict__["model"] = replace(shipped, network=lambda pictures: output)
    with pytest.raises(WeightsError, match="smear-yolo11n"):
        detector.detect([Smear.from_array(np.full((64, 96, 3), 240, np.uint8))])


def test_weights_of_nan_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "nan.safetensors"
    tensors = load_file(SHIPPED)
    key = next(key for key in tensors if key.endswith("cv2.0.0.conv.weight"))
    save_file(tensors | {key: tensors[key] * float("nan")}, path)
    card = json.loads(SHIPPED.with_suffix(".json").read_text()) | {"sha256": weights.sha256_of(path)}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError):
        YoloDetector(YoloParams(weights=path)).detect([Smear.from_array(np.full((64, 96, 3), 240, np.uint8))])


def onnx_of(path: Path, shape: list[int | str], output: list[int], type_: str = "FLOAT") -> Path:
    """An ONNX network that gives zeros of one shape, whatever it is shown."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind = getattr(onnx.TensorProto, type_)
    zeros = onnx.helper.make_tensor("zeros", kind, output, [0.0] * int(np.prod(output)))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["output0"], value=zeros)],
        "made",
        [onnx.helper.make_tensor_value_info("images", kind, shape)],
        [onnx.helper.make_tensor_value_info("output0", kind, output)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="names", value=NAMES)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("shape", "output"),
    [
        (["batch", 3, "height", "width"], [1, 6, 84]),
        (["batch", 3, "height", "width"], [3, 7, 84]),
        ([1, 3, 1_000_000, 1_000_000], [1, 7, 84]),
        ([1, 1, 64, 64], [1, 7, 84]),
    ],
)
def test_onnx_whose_shapes_lie_is_refused_as_weights(
    tmp_path: Path, shape: list[int | str], output: list[int]
) -> None:
    path = onnx_of(tmp_path / "lie.onnx", shape, output)
    with pytest.raises(WeightsError, match=r"lie"):
        YoloDetector(YoloParams(weights=path)).detect([Smear.from_array(np.full((64, 96, 3), 240, np.uint8))])


def test_settings_of_ultralytics_lie_in_a_folder_of_this_process_alone() -> None:
    code = (
        "import os, stat; from leukokit.detectors.yolo.network import quiet_ultralytics; quiet_ultralytics();"
        "folder = os.environ['YOLO_CONFIG_DIR']; print(folder, oct(stat.S_IMODE(os.stat(folder).st_mode)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "YOLO_CONFIG_DIR"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    folder, mode = run.stdout.split()
    assert Path(folder) != Path(tempfile.gettempdir())
    assert os.name == "nt" or mode == "0o700"
    assert not Path(folder).exists(), "it is removed when the process ends"
