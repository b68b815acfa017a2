"""The hash of a plugin's code: what changes it, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukokit._sources import source_sha256
from leukokit.registry import load_plugin_file

PLUGIN = """
from leukokit import cells  # leukokit's own version tells this
import numpy as np          # and NumPy's this
from leukokit.registry import writers
from leukokit.writers.base import Writer

@writers.register
class Noted(Writer):
    name, version, summary = "noted", "1", "writes through a module of its own"

    def write(self, result):
        import beside_helper
        beside_helper.note(result)
"""


def hash_of(path: Path) -> str:
    (plugin,) = load_plugin_file(path)
    digest = plugin.source_sha256()
    assert isinstance(digest, str) and len(digest) == 64
    return digest


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin file that imports a module, which imports another; both lie beside it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "noted.py").write_text(PLUGIN)
    (tmp_path / "beside_helper.py").write_text("from beside_second import note\n")
    (tmp_path / "beside_second.py").write_text("def note(result): pass\n")
    return tmp_path / "noted.py"


def test_the_same_code_has_the_same_hash(plugin: Path) -> None:
    assert hash_of(plugin) == hash_of(plugin)


@pytest.mark.parametrize("changed", ["noted.py", "beside_helper.py", "beside_second.py"])
def test_a_change_in_a_module_that_the_plugin_imports_changes_the_hash(plugin: Path, changed: str) -> None:
    before = hash_of(plugin)
    path = plugin.with_name(changed)
    path.write_text(path.read_text() + "# changed\n")
    assert hash_of(plugin) != before


def test_a_file_that_the_plugin_does_not_import_counts_for_nothing(plugin: Path) -> None:
    before = hash_of(plugin)
    plugin.with_name("beside_third.py").write_text("x = 1\n")
    assert hash_of(plugin) == before


def test_all_modules_of_a_package_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "acme_hashed"
    folder.mkdir()
    for name in ("__init__", "plugin", "network"):
        (folder / f"{name}.py").write_text("")
    before = source_sha256("acme_hashed.plugin")
    (folder / "network.py").write_text("layers = 3\n")
    assert source_sha256("acme_hashed.plugin") not in (before, None)


def test_code_without_a_file_and_code_that_does_not_parse(tmp_path: Path) -> None:
    assert source_sha256("no_such_module") is None
    assert source_sha256("leukokit.detectors.yolo.detector") is None
