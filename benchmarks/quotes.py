"""Figures of the benchmarks that the documentation quotes, kept equal to the newest recorded run.

A page quotes a figure between comments, which readers do not see:

    links 100,000 cells in <!-- bench graphs medians/knn/leukokit/seconds .2f -->0.23<!-- /bench --> s

``python benchmarks/run.py --update-docs`` writes all quotes anew; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from records import ROOT, flatten, read_runs

QUOTE: Final = re.compile(
    r"<!-- bench (?P<name>\w+) (?P<path>[^<>]+) (?P<form>,?\.\d+f) -->(?P<text>[^<]*)<!-- /bench -->"
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A figure as a page quotes it, and as the newest run has it; None where no run has it."""

    page: Path
    name: str
    path: str
    quoted: str
    measured: str | None

    @property
    def fault(self) -> str | None:
        """One sentence where the two differ, else None."""
        if self.quoted == self.measured:
            return None
        place = f"{self.page.relative_to(ROOT).as_posix()} quotes {self.quoted} for {self.name} {self.path}"
        if self.measured is None:
            return f"{place}, which benchmarks/results/{self.name}.json does not hold"
        return f"{place}, measured {self.measured}; run python benchmarks/run.py --update-docs"


def documentation() -> list[Path]:
    """Return all pages that may quote a figure."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def quotes_of(page: Path) -> Iterator[Quote]:
    """Yield the quotes of a page."""
    for match in QUOTE.finditer(page.read_text(encoding="utf-8")):
        measured = newest(match["name"], match["path"], match["form"])
        yield Quote(page, match["name"], match["path"], match["text"], measured)


def newest(name: str, path: str, form: str) -> str | None:
    """Return a figure of the newest run that has it, as text; None where none has it."""
    for run in reversed(read_runs(name)):
        figures = flatten(run["figures"])
        if path in figures:
            return format(figures[path], form)
    return None


def update(page: Path) -> bool:
    """Write the quotes of a page anew; return whether it changed."""

    def renewed(match: re.Match[str]) -> str:
        measured = newest(match["name"], match["path"], match["form"])
        return match[0] if measured is None else match[0].replace(f">{match['text']}<", f">{measured}<")

    text = page.read_text(encoding="utf-8")
    changed = QUOTE.sub(renewed, text)
    if changed != text:
        page.write_text(changed, encoding="utf-8")
    return changed != text
