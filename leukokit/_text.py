"""Text for people and tables: printable, on one line, and inert in a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters that make a spreadsheet run a cell's text as a formula."""


def printable(text: Path | str) -> str:
    """Return a path or name as one printable line: control characters and undecodable bytes are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text)
    )


def one_line(text: object) -> str:
    """Return text with every run of white space, line breaks included, as one space."""
    return " ".join(str(text).split())


def escape_formula(text: str) -> str:
    """Return text that no spreadsheet runs as a formula; an apostrophe goes before what it would run."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def unescape_formula(text: str) -> str:
    """Return the text that ``escape_formula`` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text
