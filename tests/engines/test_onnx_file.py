"""ONNX files: what they refer to is checked, and nothing outside is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from leukokit.engines.base import Model
from leukokit.engines.export import (
    PREFIX,
    Example,
    Exportable,
    read_safetensors_header,
    share_weights,
    write_graph_beside,
)
from leukokit.engines.onnx_file import Port, read_onnx
from leukokit.errors import WeightsError

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def stored(location: str, **more: int) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=VALUES.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def a_model(weight: Any, node: Any = None, **more: Any) -> Any:
    node = node or helper.make_node("Add", ["x", "w"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y"))
    graph = helper.make_graph([node], "g", [x], [y], [weight] if weight is not None else [])
    return helper.make_model(graph, **more)


def save(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises(WeightsError) as error:
        read_onnx(path, **more)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def test_weights_beside_are_put_into_the_graph(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"....." + VALUES.tobytes())
    path = save(a_model(stored("w.bin", offset=5, length=24)), tmp_path / "m.onnx")
    found = read_onnx(path)
    assert found.inputs == (Port("x", (None, 3), 1),) and found.outputs == (Port("y", (None, 3), 1),)
    assert [tensor.name for tensor in found.stored] == ["w"]
    whole = onnx.load_model_from_string(found.data)
    assert np.array_equal(numpy_helper.to_array(whole.graph.initializer[0]), VALUES)
    onnx.checker.check_model(whole)


def test_file_without_outer_weights_is_left_as_it_is(tmp_path: Path) -> None:
    model = a_model(numpy_helper.from_array(VALUES, "w"))
    model.metadata_props.add(key="names", value="{0: 'RBC'}")
    path = save(model, tmp_path / "m.onnx")
    found = read_onnx(path)
    assert found.data == path.read_bytes() and found.metadata == {"names": "{0: 'RBC'}"}
    assert [port.name for port in found.inputs] == ["x"]


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "", "link.bin", "sub/../../secret.bin"]
)
def test_files_outside_the_folder_are_not_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    said = refusal(save(a_model(stored(location)), folder / "m.onnx"))
    assert f"has weights in '{location}', outside its own folder" in said


def test_beside_own_weights_only_these_are_read(tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(VALUES.tobytes())
    own = tmp_path / "own.safetensors"
    own.write_bytes(VALUES.tobytes())
    path = save(a_model(stored("other.bin")), tmp_path / "own.onnx")
    assert "only 'own.safetensors' beside it is read" in refusal(path, weights=own)
    # A pair may be renamed together.
    path = save(a_model(stored("before.safetensors")), tmp_path / "own.onnx")
    assert len(read_onnx(path, weights=own).stored) == 1


def test_missing_short_and_wrong_weights(tmp_path: Path) -> None:
    path = save(a_model(stored("w.bin")), tmp_path / "m.onnx")
    assert "'w.bin', which is not there" in refusal(path)
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes()[:-1])
    assert "beyond the end of 'w.bin'" in refusal(path)
    path = save(a_model(stored("w.bin", length=20)), tmp_path / "m.onnx")
    assert "wants 24 bytes, and names 20" in refusal(path)
    path = save(a_model(stored("w.bin", offset=-4)), tmp_path / "m.onnx")
    assert "wants 24 bytes" in refusal(path)


def test_values_outside_are_found_within_attributes_and_subgraphs(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    constant = helper.make_node("Constant", [], ["y"], value=stored("w.bin"))
    assert "no initializers" in refusal(save(a_model(None, constant), tmp_path / "m.onnx"))
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [stored("/etc/hostname")],
    )
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    assert "outside its own folder" in refusal(save(a_model(None, branch), tmp_path / "m.onnx"))


def test_operators_of_other_libraries_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Run", ["x"], ["y"], domain="evil.ops")
    assert "does not define (evil.ops.Run)" in refusal(save(a_model(None, node), tmp_path / "m.onnx"))
    cached = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="/etc/x")
    assert "com.microsoft.EPContext" in refusal(save(a_model(None, cached), tmp_path / "m.onnx"))
    function = helper.make_function(
        "evil.ops", "Run", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    assert read_onnx(save(a_model(None, node, functions=[function]), tmp_path / "m.onnx")).outputs


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert "cannot be read" in refusal(path)
    for content in (b"not protobuf at all", b"\xff" * 40, b""):
        path.write_bytes(content)
        assert "not an ONNX file" in refusal(path)
    whole = a_model(numpy_helper.from_array(VALUES, "w")).SerializeToString()
    path.write_bytes(whole[:-3])
    assert "damaged" in refusal(path)
    path.write_bytes(whole)
    assert "is not the card's" in refusal(path, sha256="0" * 64)


def test_graphs_within_graphs_have_an_end(tmp_path: Path) -> None:
    inner = helper.make_graph([], "g", [], [])
    for _ in range(30):
        inner = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=inner)], "g", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    assert "deep" in refusal(save(a_model(None, node), tmp_path / "m.onnx"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(change=st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)))
def test_changed_bytes_are_read_or_refused(tmp_path: Path, change: tuple[int, bytes]) -> None:
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    data = bytearray(a_model(stored("w.bin")).SerializeToString())
    place, new = change
    data[place : place + len(new)] = new
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    try:
        found = read_onnx(path)
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert found.outputs


def test_exported_graph_has_the_tensors_of_the_file(model: Model) -> None:
    assert model.graph is not None
    header, _ = read_safetensors_header(model.weights)
    exported = onnx.load(model.graph, load_external_data=False)
    assert {tensor.name: list(tensor.dims) for tensor in exported.graph.initializer} == {
        name: entry["shape"] for name, entry in header.items()
    }
    onnx.checker.check_model(str(model.graph))


def test_renamed_pair_runs(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert model.graph is not None
    weights = Path(shutil.copy(model.weights, folder / "b.safetensors"))
    graph = Path(shutil.copy(model.graph, folder / "b.onnx"))
    assert read_onnx(graph, weights).data == model.read_graph().data


def test_weights_of_another_network_are_refused(model: Model, tmp_path: Path) -> None:
    exported = a_model(numpy_helper.from_array(VALUES, f"{PREFIX}0.weight"))
    with pytest.raises(WeightsError, match=r"has no tensor '0.weight' of shape \(2, 3\)"):
        share_weights(exported, model.weights)
    exported = a_model(numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), f"{PREFIX}0.weight"))
    with pytest.raises(WeightsError, match="is not the one of the network"):
        share_weights(exported, model.weights)


def test_what_a_module_does_outside_torch_is_not_exported(model: Model, tmp_path: Path) -> None:
    assert model.module is not None
    module = model.module()

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module.network

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            brightness = torch.from_numpy(np.array([float(pictures.numpy().mean())], np.float32))
            found: torch.Tensor = module(pictures) + brightness
            return found

    example = Example("pictures", torch.zeros(1, 8, 9, 3, dtype=torch.uint8), {0: "n"})
    network = Exportable(Hidden().eval(), module, [example], {"scores": {0: "n"}})
    with pytest.raises(WeightsError, match="'scores' differs from torch's"):
        write_graph_beside(network, model.weights)
    assert not model.weights.with_suffix(".onnx").exists()
