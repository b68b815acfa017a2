"""Commands in README and docs run, and print what the pages show."""

import sys
from pathlib import Path

import pytest
from consoles import ROOT, pages, run_page


@pytest.mark.skipif(sys.platform == "win32", reason="the pages' commands are those of a POSIX shell")
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    text = run_page(page, tmp_path)
    assert text == page.read_text(encoding="utf-8"), "python tests/docs/consoles.py writes the outputs anew"
