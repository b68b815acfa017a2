from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from leukokit._yaml import MAX_BYTES, load_model, parse_yaml, read_mapping, read_yaml, validate
from leukokit.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = ""
    parts: list[Inner] = []


def _aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (_aliases(9), "aliases"),
        ("[" * 100_000, "nested"),
        ("{a: " * 100_000, "nested"),
        ("a: &a [1, *a]", "holds itself"),
        ("a: " + "1:" * 40_000 + "1", "unquoted"),
        ("a: [", "not YAML"),
        ("a: 2020-13-45", "not YAML"),
        ("a: !!python/object/apply:os.system [true]", "not YAML"),
        ("a: *missing", "not YAML"),
    ],
    ids=["aliases", "list", "mapping", "itself", "number", "open", "date", "python", "missing"],
)
def test_text_that_is_too_much_or_no_yaml_is_refused_in_one_line(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as caught:
        parse_yaml(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml: ")
    assert "\n" not in str(caught.value)


def test_usual_aliases_and_merges_are_read() -> None:
    text = "base: &base {a: 1, b: [2]}\nother: {<<: *base, c: 3}\nagain: *base\n"
    assert parse_yaml(text, "")["other"] == {"a": 1, "b": [2], "c": 3}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_yaml(pipe)


def test_a_device_a_folder_and_no_file_are_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match="not a regular file"):
            read_yaml(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(Path("a\0b"))


def test_a_large_file_and_one_of_another_encoding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# " + b"x" * MAX_BYTES)
    with pytest.raises(ConfigError, match="larger"):
        read_yaml(path)
    path.write_bytes("name: straße".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\n")
    assert read_mapping(path) == {"name": "a"}


def test_a_mapping_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match="mapping"):
        read_mapping(path)
    path.write_text("")
    assert read_mapping(path) == {}


def test_an_unknown_key_names_the_known_ones_and_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("parts:\n- {step: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_model(Outer, path)
    told = f"{path}: parts.0.step: no such setting; there are: steps; did you mean 'steps'?"
    assert str(caught.value) == told


def test_a_wrong_value_says_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"^recipe: parts\.0\.steps: input should be a valid integer"):
        validate(Outer, {"parts": [{"steps": "many"}]}, "recipe")
