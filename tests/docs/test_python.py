"""docs/how-to/python.md: its code runs, one block after another."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from consoles import ROOT, draw_smears

PAGE = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "smear.png", tmp_path / "examples")
    draw_smears(tmp_path / "smears")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(block, known)
    assert len(blocks) == 7
    assert repr(known["result"].cells).startswith("<Cells: 10 leukocyte, ")
    assert set(known["table"]["kind"]) == {"leukocyte"}
    assert known["graph"].number_of_nodes() == len(known["other"].cells)
    assert {path.name for path in Path("results").iterdir()} == {"cells.csv", "counts.csv", "smear.cells.png"}
    assert known["summary"].whole.images == 4
