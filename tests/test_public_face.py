"""The stable names: lazy, complete, and all that the plugin tutorial and the plugin packages import."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import leukokit

ROOT = Path(__file__).parents[1]
PUBLIC = (
    "leukokit",
    *("leukokit.batch", "leukokit.classifiers", "leukokit.crops", "leukokit.datasets", "leukokit.detectors"),
    *("leukokit.detectors.yolo", "leukokit.evaluation", "leukokit.graph_builders", "leukokit.images"),
    *(
        "leukokit.metrics",
        "leukokit.pipeline",
        "leukokit.synthetic",
        "leukokit.testing",
        "leukokit.training",
        "leukokit.writers",
    ),
)
"""Packages with an ``__all__``."""
MODULES = ("leukokit.config", "leukokit.errors", "leukokit.registry", "leukokit.taxonomy", "leukokit.weights")
"""Documented modules whose public names do not begin with an underscore."""
HEAVY = {"torch", "ultralytics", "matplotlib", "pandas", "scipy", "cv2", "numpy", "pydantic", "yaml", "typer"}


def test_importing_leukokit_imports_nothing_else() -> None:
    check = "import sys, leukokit; print(sorted(name for name in sys.modules if name.startswith('leukokit')))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "['leukokit', 'leukokit._lazy']"
    check = f"import sys, leukokit; print({HEAVY!r} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'leukokit' has no attribute 'Smears'"):
        _ = leukokit.Smears


@pytest.mark.parametrize(
    "package", [name for name in PUBLIC if "_MODULES" in vars(importlib.import_module(name))]
)
def test_type_checkers_and_python_see_the_same_names(package: str) -> None:
    """The imports under TYPE_CHECKING stand beside the mapping that serves Python: they must agree."""
    module = importlib.import_module(package)
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    (block,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    typed = {
        alias.name: str(node.module).removeprefix(f"{package}.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert module._MODULES.items() <= typed.items()


def imports(text: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "leukokit":
            yield from ((str(node.module), alias.name) for alias in node.names)


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of every Python source that a plugin author reads."""
    for path in [*(ROOT / "plugins").glob("*/src/*/*.py"), *(ROOT / "examples").glob("*.py")]:
        yield path.name, path.read_text(encoding="utf-8")
    for page in ("tutorials/your-own-plugin.md", "how-to/python.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            yield f"{page}, block {number}", block


@pytest.mark.parametrize(("name", "text"), [pytest.param(name, text, id=name) for name, text in sources()])
def test_plugins_and_pages_import_stable_names_only(name: str, text: str) -> None:
    unstable = [
        f"{module}.{imported}"
        for module, imported in imports(text)
        if not (module in MODULES and not imported.startswith("_"))
        and not (module in PUBLIC and imported in importlib.import_module(module).__all__)
        and f"{module}.{imported}" not in MODULES
    ]
    assert not unstable


def test_the_documentation_lists_every_stable_name() -> None:
    """The page of the reference is made from ``__all__`` as it stands in the source."""
    assert sorted(leukokit.__all__) == sorted(["__version__", *leukokit._MODULES])
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        docs_site = importlib.import_module("docs_site")
    except ImportError as error:
        pytest.skip(f"the documentation's tools are not installed ({error})")
    finally:
        sys.path.remove(str(ROOT / "tools"))
    index = dict(docs_site.api_pages())["index"]
    for name in leukokit._MODULES:
        assert f"::: leukokit.{name}\n" in index


def test_the_face_is_small() -> None:
    assert len(leukokit.__all__) <= 35
    assert not [
        name for name in leukokit.__all__ if name in {m.name for m in pkgutil.iter_modules(leukokit.__path__)}
    ]
