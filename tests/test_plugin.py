"""What every plugin declares, and what is said of parameters that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from leukokit.errors import ConfigError
from leukokit.plugin import API_VERSION, Plugin, PluginParams
from leukokit.registry import classifiers, detectors, graph_builders, writers


class SieveParams(PluginParams):
    least: float = Field(0.5, ge=0, le=1, description="least score")
    folder: Path = Path("sieved")
    kinds: tuple[str, ...] = ()


class Sieve(Plugin[SieveParams]):
    name = "sieve"
    version = "2.1"
    summary = "keeps what scores"


class Bare(Plugin):
    name = "bare"
    version = "1"
    summary = "takes nothing"


def test_defaults_and_values_as_they_stand_in_yaml() -> None:
    assert Sieve().params == SieveParams()
    params = Sieve.parse({"least": "0.25", "kinds": ["platelet"]})
    assert isinstance(params, SieveParams)
    assert (params.least, params.kinds) == (0.25, ("platelet",))
    assert Sieve(params).params is params
    assert Bare().params == PluginParams()
    assert Bare.api_version == API_VERSION


def test_parameters_do_not_change() -> None:
    params = Sieve().params
    with pytest.raises(ValidationError):
        params.least = 0.1  # type: ignore[misc]  # frozen


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"least": 2}, "least"),
        ({"least": "much"}, "least"),
        ({"least": None}, "least"),
        ({"kinds": ["platelet", 3]}, "kinds.1"),
        ({"lest": 0.1}, "lest"),
        ({"le\nst": 0.1}, "le st"),
        ({1: 2}, "1"),
        ({"self": 1}, "self"),
    ],
)
def test_wrong_parameters_are_one_line_naming_plugin_and_field(values: dict[Any, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sieve.parse(values)
    assert str(caught.value).startswith(f"sieve: {field}")
    assert "(parameters: least, folder, kinds)" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_plugin_without_parameters_says_so() -> None:
    with pytest.raises(ConfigError, match=r"bare: least: .*\(parameters: none\)"):
        Bare.parse({"least": 1})


def test_provenance_is_json() -> None:
    document = json.loads(json.dumps(Sieve(SieveParams(least=0.25)).provenance()))
    assert document == {
        "name": "sieve",
        "version": "2.1",
        "params": {"least": 0.25, "folder": "sieved", "kinds": []},
        "weights": {},
        "source_sha256": Sieve.source_sha256(),
    }
    assert len(document["source_sha256"]) == 64


def test_provenance_has_the_same_keys_for_every_kind(tmp_path: Path) -> None:
    plugins = [
        detectors.get("yolo")(),
        graph_builders.get("knn")(),
        classifiers.get("hybrid")(),
        writers.get("png")(tmp_path),
    ]
    stored = [plugin.provenance() for plugin in plugins]
    assert {tuple(document) for document in stored} == {
        ("name", "version", "params", "weights", "source_sha256")
    }
    # The version of leukokit tells the code of its own plugins.
    assert {document["source_sha256"] for document in stored} == {None}
    assert [sorted(document["weights"]) for document in stored] == [
        ["smear-yolo11n"],
        [],
        ["leukocyte-cnn", "leukocyte-hybrid"],
        [],
    ]


def test_two_weight_files_of_one_name_both_have_a_hash(tmp_path: Path) -> None:
    files = (tmp_path / "first" / "best.safetensors", tmp_path / "second" / "best.safetensors")
    for file in files:
        file.parent.mkdir()
        file.write_text(str(file))

    class Twice(Bare):
        @property
        def weight_files(self) -> tuple[Path, ...]:
            return files

    assert list(Twice().provenance()["weights"]) == ["best", "second/best.safetensors"]


def test_a_plugin_without_a_file_has_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    # As of a script that is read from stdin.
    monkeypatch.setattr(Sieve, "__module__", "no_such_module")
    assert Sieve(SieveParams(least=0.25)).provenance()["source_sha256"] is None


def test_params_are_the_model_in_brackets() -> None:
    class Model(PluginParams):
        depth: int = 3

    class Deep(Plugin[Model]):
        name, version, summary = "deep", "1", "a class that names its parameters in brackets"

    class Deeper(Deep):
        pass

    assert Deep.Params is Deeper.Params is Model
    assert Deeper().params.depth == 3
    assert Plugin.Params is PluginParams


def test_what_json_cannot_hold_is_refused() -> None:
    class Far(PluginParams):
        reach: float = 1.0

    for value in ("nan", "inf"):
        with pytest.raises(ValidationError, match="finite"):
            Far(reach=float(value))
