"""Settings from YAML, options and --set, each over the last; whatever is wrong is one ConfigError line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from leukokit.config import PipelineConfig, load_config, load_settings
from leukokit.errors import ConfigError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "pipeline.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(*args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_defaults() -> None:
    assert load_config(None) == PipelineConfig()
    assert load_config(None).detector.name == "yolo"
    assert load_config(None).standardize is True


@pytest.mark.parametrize("text", ["", "# nothing set\n", "---\n"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text)) == PipelineConfig()


def test_assignments_go_over_the_file(tmp_path: Path) -> None:
    text = "standardize: false\ndetector:\n  name: yolo\n  confidence: 0.6\n  overlap: 0.4\n"
    path = written(tmp_path, text)
    config = load_config(
        path, ["detector.confidence=0.3", "detector.kinds=[a, b]", "detector.confidence=0.2"]
    )
    assert config.standardize is False
    assert config.detector.params == {"confidence": 0.2, "overlap": 0.4, "kinds": ["a", "b"]}


def test_the_name_alone_is_a_detector(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "detector: mine\n"), ["detector.depth=3"])
    assert (config.detector.name, config.detector.params) == ("mine", {"depth": 3})


def test_a_value_may_hold_an_equals_sign_and_be_empty() -> None:
    config = load_config(None, ["detector.query=a=b", "detector.none="])
    assert config.detector.params == {"query": "a=b", "none": None}


def test_another_detector_drops_the_parameters_of_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, "detector: {name: mine, depth: 3}\n")
    assert load_config(path, (), "mine").detector.params == {"depth": 3}
    other = load_config(path, ["detector.width=1"], "other")
    assert (other.detector.name, other.detector.params) == ("other", {"width": 1})


def test_a_section_without_a_name_is_of_its_default_plugin(tmp_path: Path) -> None:
    assert load_config(None).graph.name == "knn"
    config = load_config(written(tmp_path, "graph: {k: 4}\n"), ["graph.unit=px", "detector.depth=1"])
    assert (config.graph.name, config.graph.params) == ("knn", {"k": 4, "unit": "px"})
    assert (config.detector.name, config.detector.params) == ("yolo", {"depth": 1})


def test_another_graph_builder_drops_the_parameters_of_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, "graph: {k: 4}\ndetector: {depth: 3}\n")
    other = load_config(path, ["graph.radius=2"], None, "radius")
    assert (other.graph.name, other.graph.params) == ("radius", {"radius": 2})
    assert other.detector.params == {"depth": 3}
    assert load_config(path, (), None, "knn").graph.params == {"k": 4}
    assert load_config(written(tmp_path, "graph: delaunay\n")).graph.name == "delaunay"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "mapping"),
        ("graph: 3", "graph"),
        ("graph: {name: [knn]}", "graph.name"),
        ("just text", "mapping"),
        ('detector: "open', "not YAML"),
        ("a: [1, 2", "not YAML"),
        ("a: 2024-13-45", "not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
        ("a: " + "[" * 4000, "nested deeper than"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"detector: caf\xe9", "not YAML"),
        ("detectors: yolo", "detectors"),
        ("1: 2", "1"),
        ("standardize: maybe", "standardize"),
        ("standardize: [true]", "standardize"),
        ("detector: [yolo]", "detector"),
        ("detector: 3", "detector"),
        ("detector:", "detector"),
        ("detector: {1: 2}", "detector"),
        ("detector: {name: [yolo]}", "detector.name"),
        ("detector: {name: yolo, params: 3}", "detector.params"),
        ("detector: {params: {}}", "detector.name"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert said in message.removeprefix(f"{path}: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "missing.yaml")
    assert "not a regular file" in refusal(tmp_path)


def test_a_detector_chosen_over_a_wrong_one_in_the_file(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "detector: [a]\n"), (), "mine").detector.name == "mine"


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("", "KEY=VALUE"),
        ("detector.confidence", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("detector.x=[1", "not YAML"),
        ("detector.x=2024-13-45", "not YAML"),
        ("detector.x=!!int x", "not YAML"),
        ("detector.x=!!timestamp x", "not YAML"),
        ("detector.x=!!bool x", "not YAML"),
        ("detector.x=" + "[" * 4000, "nested deeper than"),
        ("detector.x=\0", "not YAML"),
        ("standardize=maybe", "standardize"),
        ("standardise=true", "standardise"),
        ("one\ntwo=1", "one two"),
        ("standardize.x.y=1", ""),
        (".=1", ""),
    ],
)
def test_a_wrong_assignment_is_one_line(assignment: str, said: str) -> None:
    assert said in refusal(None, [assignment])


def test_a_value_has_no_settings_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "standardize: true\n")
    assert "'standardize' has no settings" in refusal(path, ["standardize.x=1"])


KEYS = st.sampled_from(
    ["detector", "detector.name", "detector.a", "detector.a.b", "standardize", "x", "a..b", "."]
)
VALUES = st.text("!&*[]{}:,-=0x1e_.#'\"|>%@ \n\ttrue~T", max_size=12) | st.text(max_size=12)
TAGS = st.sampled_from(
    ["", "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!x "]
)
ASSIGNMENTS = st.text(max_size=20) | st.builds("{}={}{}".format, KEYS, TAGS, VALUES)


@settings(deadline=None, max_examples=300)
@given(st.lists(ASSIGNMENTS, min_size=1, max_size=3))
@example(["detector=&a {name: yolo, b: *a}"])
@example(["detector=yolo", "detector.a=1"])
def test_no_assignment_raises_anything_else(assignments: list[str]) -> None:
    try:
        config = load_config(None, assignments)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(config, PipelineConfig)


def test_an_unknown_setting_is_told_what_there_is_where_it_stands(tmp_path: Path) -> None:
    class Entry(BaseModel, extra="forbid"):
        splits: list[str] = []
        labs: list[str] = []

    class Tests(BaseModel, extra="forbid"):
        tests: dict[str, list[Entry]] = {}
        only: Entry | None = None

    path = written(tmp_path, "tests: {labs: [{splits: [a]}, {split: [a]}]}")
    with pytest.raises(ConfigError) as caught:
        load_settings(Tests, path)
    said = "no such setting; there are: splits, labs; did you mean 'splits'?"
    assert str(caught.value) == f"{path}: tests.labs.1.split: {said}"
    with pytest.raises(ConfigError, match=r"only\.x: no such setting; there are: splits, labs$"):
        load_settings(Tests, written(tmp_path, "only: {x: 1}"))
    with pytest.raises(
        ConfigError, match="test: no such setting; there are: tests, only; did you mean 'tests'"
    ):
        load_settings(Tests, written(tmp_path, "test: {}"))


class Recipe(BaseModel):
    epochs: int = Field(10, ge=1)
    rates: list[float] = []


@pytest.mark.parametrize(
    "text", ["detector: {weights: a.pt, trust_pickle: true}", "detectors:\n- {name: yolo, trust_pickle: yes}"]
)
def test_trust_in_a_pickle_is_not_taken_from_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"theirs\.yaml: 'trust_pickle' cannot be set in a file"):
        load_config(path)
    assert load_config(None, ["detector.trust_pickle=true"]).detector.params == {"trust_pickle": True}
    path.write_text("detector: &all [*all]")
    with pytest.raises(ConfigError, match="holds itself"):
        load_config(path)


def test_settings_of_any_model(tmp_path: Path) -> None:
    path = written(tmp_path, "epochs: 3\nrates: [0.1]\n")
    assert load_settings(Recipe, path, ["epochs=5"]) == Recipe(epochs=5, rates=[0.1])
    with pytest.raises(ConfigError, match=r"pipeline\.yaml: rates\.1: input should be a valid number"):
        load_settings(Recipe, path, ["rates=[1, x]"])
    with pytest.raises(ConfigError, match="epochs"):
        load_settings(Recipe, path, ["epochs=0"])


def test_a_plugin_and_its_parameter_one_after_the_other() -> None:
    config = load_config(None, ["detector=yolo", "detector.confidence=0.3"])
    assert config.detector.name == "yolo" and config.detector.params == {"confidence": 0.3}
