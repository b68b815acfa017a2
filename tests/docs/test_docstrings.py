"""The examples in docstrings run, and give what they show."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_with_examples() -> list[str]:
    found = []
    for path in sorted((ROOT / "leukokit").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(name.removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0, "see the captured output"


def test_examples_stand_under_the_heading_that_the_site_knows() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "leukokit").rglob("*.py")}
    assert [
        path.name for path, text in sources.items() if re.search(r"^ +Example:$", text, re.MULTILINE)
    ] == []
