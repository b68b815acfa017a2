"""What every plugin declares, and what is said of parameters that do not fit."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from leukokit.errors import ConfigError
from leukokit.plugin import API_VERSION, Plugin, PluginParams
from leukokit.registry import detectors


class SieveParams(PluginParams):
    least: float = Field(0.5, ge=0, le=1, description="least score")
    folder: Path = Path("sieved")
    kinds: tuple[str, ...] = ()


class Sieve(Plugin):
    name = "sieve"
    version = "2.1"
    summary = "keeps what scores"
    Params = SieveParams


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
        params.least = 0.1


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
        # Of leukokit's own plugins the version says it all.
        "source_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    assert "source_sha256" not in detectors.get("yolo")().provenance()


def test_a_plugin_without_a_file_has_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    # As of a script that is read from stdin, or a module in an archive.
    monkeypatch.setattr(sys.modules[__name__], "__file__", "<stdin>")
    assert "source_sha256" not in Sieve(SieveParams(least=0.25)).provenance()


def test_what_json_cannot_hold_is_refused() -> None:
    class Far(PluginParams):
        reach: float = 1.0

    for value in ("nan", "inf"):
        with pytest.raises(ValidationError, match="finite"):
            Far(reach=float(value))
