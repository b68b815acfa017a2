"""Several methods on the same fields, with paired tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leukokit.evaluation.comparison.figures import MethodRow
    from leukokit.evaluation.comparison.methods import Comparison


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """What a comparison found.

    Attributes:
        rows: the figures of each method.
        files: tables that were written.
        failures: an error for each field that a method has no result for.
    """

    rows: list[MethodRow]
    files: list[Path]
    failures: list[str]


def compare(
    comparison: Comparison,
    out: Path,
    device: str = "auto",
    restart: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ComparisonReport:
    """Compare methods on the same fields, and write ``compare.json``, ``.csv``, ``.md`` and ``.html``.

    A stopped comparison resumes: results are kept in ``out`` field by field.

    Args:
        comparison: the methods, the tests and the baseline; see ``methods.Comparison``.
        out: folder for results and tables.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        restart: discard the results that ``out`` holds.
        progress: called with the steps done and the steps in all.

    Raises:
        DataError: a test has no field.  PluginError, ConfigError: a method cannot be made, or ``out`` holds
        results of other methods under the same names.  OutputError: ``out`` cannot be written.
    """
    from leukokit._files import make_folder
    from leukokit.evaluation.comparison.figures import rows_of
    from leukokit.evaluation.comparison.methods import fields_of, methods_of
    from leukokit.evaluation.comparison.report import write_all
    from leukokit.evaluation.comparison.results import run_methods

    methods, tests = methods_of(comparison), fields_of(comparison)
    make_folder(out)
    failures: list[str] = []
    results, pipelines = run_methods(methods, tests, out, device, restart, progress, failures.append)
    rows = rows_of(methods, tests, results, pipelines, comparison.baseline)
    provenance = {method.name: pipelines[method.name].provenance for method in methods}
    files = write_all(out, rows, comparison.baseline, provenance)
    return ComparisonReport(rows, files, failures)
