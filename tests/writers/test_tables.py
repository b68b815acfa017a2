"""The tables of cells and counts, as text and as files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukokit._text import FORMULA_STARTS, escape_formula, unescape_formula
from leukokit.errors import ConfigError
from leukokit.writers.csv import CsvWriter
from leukokit.writers.tables import GrowingFile, Table, lines


@given(st.text())
def test_inert_text_starts_no_formula_and_is_changed_no_more_than_needed(text: str) -> None:
    assert not escape_formula(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert escape_formula(text) == (f"'{text}" if text[:1] in {*FORMULA_STARTS} else text)
    assert unescape_formula(escape_formula(text)) == text or text.startswith("'")


@given(st.lists(st.lists(st.text() | st.none() | st.booleans() | st.floats() | st.integers(), min_size=1)))
def test_lines_are_what_a_table_writes(rows: list[list[object]]) -> None:
    with TemporaryDirectory() as folder:
        table, path = Table(Path(folder) / "one.csv", ["image"]), Path(folder) / "many.csv"
        for row in rows:
            table.row(row)
        many = Table(path, ["image"])
        many.write(lines(rows))
        assert many.finish().read_bytes() == table.finish().read_bytes()


def test_a_growing_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    growing = GrowingFile(tmp_path / "table.csv")
    growing.write("half")
    assert not (tmp_path / "table.csv").exists()
    assert growing.finish().read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_tables_for_excel_have_its_mark_and_its_delimiter(tmp_path: Path) -> None:
    params = CsvWriter.parse({"bom": True, "delimiter": "semicolon"})
    with CsvWriter(tmp_path, params):
        pass
    content = (tmp_path / "cells.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfimage;id;kind;")
    with CsvWriter(tmp_path, CsvWriter.parse({})):
        pass
    assert (tmp_path / "cells.csv").read_bytes().startswith(b"image,id,kind,")
    with pytest.raises(ConfigError, match="csv: delimiter"):
        CsvWriter.parse({"delimiter": "|"})
