"""What ``leukokit plugins`` prints: tables of plugins, parameters, weights' cards and checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from rich.table import Column, Table
from rich.text import Text

from leukokit import weights
from leukokit._text import printable
from leukokit.cli.consoles import make_console
from leukokit.errors import WeightsError
from leukokit.registry import PluginRow
from leukokit.weights import Card

if TYPE_CHECKING:
    from leukokit.testing import Report


def print_rows(rows: Iterable[PluginRow]) -> None:
    """Print a row per plugin: where it comes from, and whether it can be used."""
    table = Table("kind", "name", "package", "status", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        colour = "red" if row.error else "dim" if row.disabled else ""
        table.add_row(row.kind, _text(row.name), _text(row.origin), _text(row.status, colour))
    make_console().print(table)


def print_plugin(kind: str, plugin: type[Any]) -> None:
    """Print what a plugin is and takes, and the card of its weights."""
    console = make_console()
    console.print(
        Text.assemble(
            (printable(f"{kind} {plugin.name}"), "bold"),
            f" {printable(plugin.version)}: {printable(plugin.summary)}",
        ),
        soft_wrap=True,
    )
    for table in (_params_table(plugin), _card_table(plugin)):
        if table.row_count:
            console.print(table)


def print_report(report: Report, verbose: bool) -> None:
    """Print how many checks passed, and the failed ones; all of them if ``verbose``."""
    failed = [outcome for outcome in report.outcomes if not outcome.passed]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "check", "seconds", "message"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    printed: set[str] = set()
    for outcome in report.outcomes if verbose else failed:
        mark = Text("ok", "green") if outcome.passed else Text("failed", "red")
        message = outcome.message.removeprefix(f"{report.plugin}: ").removeprefix(f"{outcome.name}: ")
        # One cause may fail every check.
        is_repeated = message in printed
        printed |= {message} - {""}
        cause = "the same" if is_repeated else message
        table.add_row(mark, _text(outcome.name), f"{outcome.seconds:.2f}", _text(cause))
    console = make_console()
    passed = f"{len(report.outcomes) - len(failed)} of {len(report.outcomes)} checks passed"
    console.print(
        Text.assemble(
            (printable(report.plugin), "bold"), f": {passed}; {report.seconds:.1f} s{_memory_line(report)}"
        ),
        soft_wrap=True,
    )
    if table.row_count:
        console.print(table)


def _text(text: str, style: str = "") -> Text:
    """Return text of a plugin for a terminal: no markup, no control characters."""
    return Text(printable(text), style)


def _memory_line(report: Report) -> str:
    if report.peak_mb is None or report.grown_mb is None:
        return ""
    return f", peak memory {report.peak_mb:.0f} MB ({report.grown_mb:.0f} MB of it the checks')"


def _params_table(plugin: type[Any]) -> Table:
    table = Table("parameter", "type", "default", "meaning", box=None, header_style="bold", pad_edge=False)
    for key, field in plugin.Params.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) or str(field.annotation)
        kind = str(field.annotation) if "|" in str(field.annotation) else kind
        if get_origin(field.annotation) is Literal:
            kind = " | ".join(map(str, get_args(field.annotation)))
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        table.add_row(_text(key), _text(kind), _text(default), _text(field.description or ""))
    return table


def _card_table(plugin: type[Any]) -> Table:
    """Return the card beside the weights that the parameter ``weights`` names; empty without one."""
    table = Table("", Column(overflow="fold"), box=None, show_header=False, pad_edge=False)
    field = plugin.Params.model_fields.get("weights")
    default = None if field is None else field.get_default(call_default_factory=True)
    if not isinstance(default, str | Path):
        return table
    try:
        path = weights.find(default)
        card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
    except WeightsError as error:
        table.add_row("weights", _text(str(error), "red"))
    else:
        for key, value in _card_lines(card, path.stat().st_size):
            table.add_row(key, _text(value))
    return table


def _card_lines(card: Card, size: int) -> Iterator[tuple[str, str]]:
    """The parts of a card that users need: all but its recipe and details."""
    yield "weights", f"{card.name} ({card.architecture}), {size / 1e6:.1f} MB"
    yield "sha256", card.sha256
    names = getattr(card, "classes", None) or getattr(card, "kinds", None)
    if names:
        yield "classes", ", ".join(names)
    if graph := getattr(card, "graph", None):
        yield "graph in training", " ".join(str(value) for value in graph.values())
    for key, entries in (("trained on", card.data), ("result", card.metrics)):
        for entry in entries:
            facts = {word: value for word, value in entry.items() if not isinstance(value, dict | list)}
            yield key, "; ".join(f"{word}: {value}" for word, value in facts.items())
    if card.command:
        yield "made by", card.command
    yield "use", card.use
