"""Engines: equal answers, and one line for whatever is not as it must be."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leukokit.engines import cpu
from leukokit.engines.base import Engine, Model
from leukokit.engines.choose import choose_engine, list_engines, load, require_engine
from leukokit.engines.onnxruntime import OnnxRuntimeEngine, TensorRtEngine
from leukokit.engines.openvino import CACHE, OpenVinoEngine
from leukokit.engines.torch import TorchEngine
from leukokit.errors import ConfigError, WeightsError
from leukokit.registry import engines

ENGINES = [OnnxRuntimeEngine, OpenVinoEngine, TorchEngine]


def pictures(count: int, height: int, width: int) -> dict[str, Any]:
    return {"pictures": np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)}


def message(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 20, 12)])
def test_engines_agree(model: Model, engine: type[Engine], shape: tuple[int, int, int]) -> None:
    if engine is OpenVinoEngine:
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    expected = load(model, TorchEngine)(pictures(*shape))["scores"]
    found = load(model, engine, threads=1)(pictures(*shape))
    assert list(found) == ["scores"] and found["scores"].dtype == np.float32
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)


def test_answers_of_earlier_calls_stay(model: Model) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    network = load(model, OpenVinoEngine)
    first = network(pictures(1, 9, 9))["scores"]
    kept = first.copy()
    network(pictures(2, 9, 9))
    assert np.array_equal(first, kept)


def test_auto_takes_the_graph_on_a_cpu_and_torch_elsewhere(model: Model) -> None:
    assert choose_engine(model, "cpu") is OnnxRuntimeEngine
    assert choose_engine(model, "cuda:0") is TorchEngine
    assert choose_engine(replace(model, graph=None), "cpu") is TorchEngine
    assert choose_engine(replace(model, module=None), "cuda:0") is OnnxRuntimeEngine


def test_auto_falls_back_on_torch_where_onnx_runtime_is_missing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert choose_engine(model, "cpu") is TorchEngine
    with pytest.raises(ConfigError) as error:
        load(model, OnnxRuntimeEngine)
    assert message(error) == "engine 'onnxruntime': not installed; pip install onnxruntime"


def test_missing_openvino_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        require_engine(OpenVinoEngine, "cpu")
    assert message(error) == "engine 'openvino': not installed; pip install 'leukokit[openvino]'"


def test_engine_on_the_wrong_device_is_one_line() -> None:
    with pytest.raises(ConfigError, match="does not run on cuda; it runs on cpu"):
        require_engine(OpenVinoEngine, "cuda:0")
    with pytest.raises(ConfigError, match="does not run on cpu; it runs on cuda"):
        require_engine(TensorRtEngine, "cpu")
    with pytest.raises(ConfigError, match="has no CUDAExecutionProvider; pip install"):
        require_engine(OnnxRuntimeEngine, "cuda:0")


def test_silent_fallback_of_a_provider_is_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a GPU build of ONNX Runtime does where CUDA's libraries are missing.
    import onnxruntime

    made = onnxruntime.InferenceSession
    monkeypatch.setattr(OnnxRuntimeEngine, "problem", lambda device: "")
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, providers: made(data, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(WeightsError) as error:
        load(model, OnnxRuntimeEngine, "cuda:0")
    assert "fell back from CUDAExecutionProvider to CPUExecutionProvider" in message(error)


def test_weights_without_a_graph_name_the_way_out(model: Model) -> None:
    with pytest.raises(WeightsError) as error:
        load(replace(model, graph=None), OnnxRuntimeEngine)
    assert "leukokit export" in message(error) and str(model.weights) in message(error)


def test_foreign_graph_on_torch_is_one_line(model: Model) -> None:
    with pytest.raises(WeightsError, match="--engine onnxruntime"):
        load(replace(model, module=None), TorchEngine)


def test_graph_of_other_inputs_is_refused(model: Model) -> None:
    with pytest.raises(WeightsError) as error:
        load(replace(model, inputs=("crops",)), OnnxRuntimeEngine)
    assert "takes pictures" in message(error)


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, OpenVinoEngine])
def test_input_of_a_wrong_shape_is_one_line(model: Model, engine: type[Engine]) -> None:
    if engine is OpenVinoEngine:
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    with pytest.raises(WeightsError) as error:
        load(model, engine)({"pictures": np.zeros((1, 9, 9, 4), np.uint8)})
    assert "takes 'pictures' of shape (any, any, any, 3), not (1, 9, 9, 4)" in message(error)


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, TorchEngine])
def test_nan_is_refused(model: Model, engine: type[Engine]) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(model.weights)
    tensors["3.bias"][0] = np.nan
    save_file(tensors, model.weights)
    with pytest.raises(WeightsError) as error:
        load(model, engine)(pictures(1, 9, 9))
    # The module's weights are looked at when they are loaded, the graph's outputs when it runs.
    assert ("NaN or infinite values as 'scores'" if engine is OnnxRuntimeEngine else "not finite") in message(
        error
    )


def test_cache_folder_that_cannot_be_made_is_one_line(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError) as error:
        load(model, OpenVinoEngine)
    assert message(error).startswith(f"{CACHE}: ")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    load(model, OpenVinoEngine)(pictures(1, 9, 9))
    assert any((tmp_path / "cache").iterdir())


def test_cpu_without_avx_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("processor : 0\nflags : fpu sse sse2\n")
    new.write_text("processor : 0\nflags : fpu sse sse2 avx avx2\n")
    assert "has no AVX instructions" in cpu.avx_problem(old)
    assert cpu.avx_problem(new) == "" == cpu.avx_problem(tmp_path / "missing")


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    all_cores = cpu.cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cpu.cores() == 1 <= all_cores
    monkeypatch.setenv("OMP_NUM_THREADS", "several")
    assert cpu.cores() == all_cores


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_network_works_after_a_fork(model: Model) -> None:
    network = load(model, OnnxRuntimeEngine, threads=2)
    inputs = pictures(2, 300, 300)
    expected = network(inputs)["scores"]
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(network(inputs)["scores"]))
    child.start()
    try:
        assert ours.poll(60), "the forked process hangs"
        np.testing.assert_allclose(ours.recv(), expected, atol=1e-6)
    finally:
        child.kill()


def test_rows_of_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[type[Engine]] = [*ENGINES, TensorRtEngine]  # type: ignore[type-abstract]
    rows = {row.name: row for row in list_engines(engines, ["cpu"])}
    assert rows["onnxruntime"].devices == ("cpu",) and rows["onnxruntime"].version
    assert rows["torch"].problem == ""
    assert rows["tensorrt"].devices == () and "it runs on cuda" in rows["tensorrt"].problem


def test_registry_knows_the_engines() -> None:
    assert {"onnxruntime", "openvino", "tensorrt", "torch"} <= set(engines.names())
    assert engines.get("openvino") is OpenVinoEngine
