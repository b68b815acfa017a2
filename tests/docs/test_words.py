"""The words that the glossary replaces do not come back, in pages or in help texts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from consoles import ROOT
from typer.main import get_command

from leukokit.cli import app

REPLACED = {
    r"\bscenes?\b": "field of view",
    r"\bnever (seen|saw|trained)\b": "unseen laboratory",
    r"\blook(s|ed|ing) at\b": "process",
    r"\b(is|are|was|were) (not )?(said|told)\b": "an active verb",
    r"\bgo(es|ne|ing)? on (where|with)\b": "resume",
    r"\bwhat there is\b|\bthose there are\b": "name what is listed",
    r"\b95 ?% limits\b|\bexact limits\b": "confidence interval",
    r"\bred[- ]cell diameters?\b": "erythrocyte diameter",
    r"\b(one|document|line|file|row|time|images?|cells?|process|ms|graph) an? "
    r"(image|line|cell|field|second|core|kind|file|leukocyte|detector|builder|class)\b": "per",
    r"(?<![\w.$*/-])[+-]?\.\d+\b(?!\w)": "a number with a leading zero",
    r"\bseed paper": "Altarawneh (2023)",
}
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/**/README.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]+`|<!-- table.*?<!-- end -->", re.DOTALL)


def _replaced_words(text: str) -> list[str]:
    """Each replaced word in a text, with the word to use."""
    return [f"'{found[0]}': {use}" for old, use in REPLACED.items() for found in re.finditer(old, text, re.I)]


def test_replaced_words_are_found() -> None:
    assert len(_replaced_words("A scene that it never saw has .98, one row a cell.")) == 4
    assert _replaced_words("An image of 0.98 and v1.2, x.5 or a file.") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_use_the_glossary(page: Path) -> None:
    assert _replaced_words(CODE.sub("", page.read_text(encoding="utf-8"))) == []


def _helps() -> Iterator[tuple[str, str]]:
    """The name and help texts of every command."""
    commands = [("leukokit", get_command(app))]
    for name, command in commands:
        texts = [command.help or "", *(getattr(param, "help", None) or "" for param in command.params)]
        yield name, "\n".join(texts)
        commands += [(f"{name} {sub}", part) for sub, part in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize(("command", "text"), [pytest.param(*both, id=both[0]) for both in _helps()])
def test_help_texts_use_the_glossary(command: str, text: str) -> None:
    assert _replaced_words(text) == [], command
