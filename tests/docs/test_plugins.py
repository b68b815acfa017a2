"""The tutorial on plugins runs and passes the kit; the signatures in the reference are those of the code."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leukokit import weights
from leukokit.classifiers.base import Classifier
from leukokit.detectors.base import Detector
from leukokit.graph_builders.base import GraphBuilder
from leukokit.plugin import API_VERSION, Plugin
from leukokit.registry import ALL, DISABLE, Registry, load_plugin_file
from leukokit.testing import checks, run_checks
from leukokit.writers.base import Writer

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = (DOCS / "tutorials" / "your-own-plugin.md").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = {
    re.match(r"# (\w+\.py)\n", block).group(1): block  # type: ignore[union-attr]  # every block is named
    for block in re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
}
BASES = {base.__name__: base for base in (Plugin, Detector, GraphBuilder, Classifier, Writer)}
KINDS = {
    "dark": "detector",
    "chain": "graph builder",
    "grainy": "classifier",
    "brief": "writer",
    "tiny_net": "classifier",
}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files in a folder of their own, in which the test works; what they register is forgotten."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in BLOCKS:
        sys.modules.pop(Path(name).stem, None)


def problems(plugin: type[Any]) -> list[str]:
    return [outcome.message for outcome in run_checks(plugin).outcomes if not outcome.passed]


def test_the_page_has_all_its_blocks() -> None:
    assert {f"{name}.py" for name in KINDS} < set(BLOCKS)
    assert set(BLOCKS) - {f"{name}.py" for name in KINDS} == {
        *("crop_net.py", "test_brief.py", "train_tiny_net.py")
    }


@pytest.mark.parametrize("name", ["dark", "chain", "grainy", "brief"])
def test_each_file_of_the_tutorial_passes_the_kit(apart: Path, name: str) -> None:
    (plugin,) = load_plugin_file(apart / f"{name}.py")
    registry: Registry[Any] = next(registry for registry in ALL if registry.kind == KINDS[name])
    assert registry.get(name) is plugin
    assert plugin.api_version == API_VERSION
    assert problems(plugin) == []


def test_the_test_of_the_page_passes() -> None:
    module = importlib.import_module("test_brief")
    (mark,) = module.test_contract.pytestmark
    assert len(mark.args[1]) > 20
    for check in mark.args[1]:
        module.test_contract(check)
    del sys.modules["test_brief"]


def test_the_network_trains_ships_its_weights_and_passes(apart: Path) -> None:
    sys.modules.pop("tiny_net", None)
    importlib.import_module("train_tiny_net")
    plugin = importlib.import_module("tiny_net").TinyNet
    assert problems(plugin) == []
    card = weights.read_card(apart / "tiny-net.safetensors", weights.ClassifierCard)
    assert plugin().classes == tuple(card.classes)
    (apart / "tiny-net.safetensors").write_bytes(b"another")
    assert any("SHA-256" in problem for problem in problems(plugin))


def plain(signature: inspect.Signature) -> str:
    """A signature without ``self`` and without quotes, which stand around annotations in some versions."""
    parameters = [one for name, one in signature.parameters.items() if name != "self"]
    return str(signature.replace(parameters=parameters)).replace("'", "")


def signature_of(name: str) -> str:
    head, _, member = name.partition(".")
    if head == "checks":
        return plain(inspect.signature(checks))
    base = BASES[head]
    if not member:
        return plain(inspect.signature(base.__init__))
    found = inspect.getattr_static(base, member)
    if isinstance(found, property):
        assert found.fget is not None
        return " " + plain(inspect.signature(found.fget)).removeprefix("() ")
    return plain(inspect.signature(getattr(base, member)))


def listed() -> dict[str, str]:
    text = re.search(r"<!-- signatures -->\n```text\n(.*?)```", REFERENCE, re.DOTALL)
    assert text is not None
    pairs = [re.match(r"([\w.]+)(.*)", line) for line in text.group(1).splitlines() if line]
    return {pair.group(1): pair.group(2).replace("'", "") for pair in pairs if pair is not None}


@pytest.mark.parametrize("name", list(listed()))
def test_signatures_are_those_of_the_code(name: str) -> None:
    assert listed()[name] == signature_of(name)


def test_no_method_that_must_be_written_is_left_out() -> None:
    for head, base in BASES.items():
        for member in getattr(base, "__abstractmethods__", ()):
            assert f"{head}.{member}" in listed()


def test_what_else_the_page_states() -> None:
    assert f"two numbers, now {API_VERSION}" in REFERENCE
    assert DISABLE in REFERENCE
    for registry in ALL:
        assert f"`{registry.group}`" in REFERENCE
