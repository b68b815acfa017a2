"""The documentation quotes the benchmarks as they were recorded; records are kept and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import history
import pytest
import quotes
import records

MACHINE = {"processor": "A CPU", "cores": 2, "load_at_start": 0.0}


def test_the_documentation_quotes_the_newest_figures() -> None:
    faults = [quote.fault for page in quotes.documentation() for quote in quotes.quotes_of(page)]
    assert [fault for fault in faults if fault] == []


def test_recorded_runs_name_machine_and_commit_but_no_host() -> None:
    for path in sorted(records.RESULTS.glob("*.json")):
        assert path.stem in records.BENCHMARKS
        for run in json.loads(path.read_text(encoding="utf-8"))["runs"]:
            assert {"commit", "date", "arguments", "machine", "figures"} == set(run)
            assert "processor" in run["machine"]
            assert not {"host", "hostname", "node", "user"} & set(run["machine"])


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recorded runs of ``graphs``, in a folder of results of their own."""
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(records, "current_commit", iter(["aaaa", "bbbb"]).__next__)
    for seconds in (0.25, 0.125):
        figures: dict[str, Any] = {"medians": {"knn": {"leukokit": {"seconds": seconds, "links": 1234}}}}
        records.add_run("graphs", {"machine": MACHINE, **figures})
    return tmp_path


def test_a_run_is_added_behind_the_others(recorded: Path) -> None:
    assert [run["commit"] for run in records.read_runs("graphs")] == ["aaaa", "bbbb"]
    assert records.drawn_figures("graphs") == {"medians/knn/leukokit/seconds": [(0, 0.25), (1, 0.125)]}


def test_figures_have_four_digits() -> None:
    assert records.round_figures({"a": {"b": 1.23456}, "c": 123456, "d": "x"}) == {
        "a": {"b": 1.235},
        "c": 123456,
        "d": "x",
    }


def test_a_quote_that_differs_is_a_fault_until_the_page_is_updated(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotes, "ROOT", recorded)
    page = recorded / "page.md"
    page.write_text(
        "It takes <!-- bench graphs medians/knn/leukokit/seconds .2f -->0.25<!-- /bench --> s for "
        "<!-- bench graphs medians/knn/leukokit/links ,.0f -->1,234<!-- /bench --> links.\n"
    )
    faults = [quote.fault for quote in quotes.quotes_of(page)]
    assert faults == [
        "page.md quotes 0.25 for graphs medians/knn/leukokit/seconds, measured 0.12; "
        "run python benchmarks/run.py --update-docs",
        None,
    ]
    assert quotes.update(page)
    assert [quote.fault for quote in quotes.quotes_of(page)] == [None, None]
    assert not quotes.update(page)


def test_a_quote_of_nothing_recorded_is_a_fault(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes, "ROOT", recorded)
    page = recorded / "page.md"
    page.write_text("<!-- bench batch medians/x/seconds .1f -->8.9<!-- /bench -->")
    (quote,) = quotes.quotes_of(page)
    assert quote.fault is not None
    assert "benchmarks/results/batch.json does not hold" in quote.fault


def test_the_history_shows_and_draws_every_run(recorded: Path) -> None:
    page = history.page()
    assert "| bbbb | " in page
    assert "| aaaa | " in page
    assert "benchmarks/graphs.svg" in page
    assert set(history.drawings()) == {"graphs"}
    assert "</svg>" in history.drawings()["graphs"]
