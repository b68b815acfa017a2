"""The checks of a plugin of any kind, and a report of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from leukokit.errors import PluginError
from leukokit.plugin import PluginParams
from leukokit.registry import ALL, Registry, classifiers, detectors, graph_builders, registry_of, writers
from leukokit.testing.check import TIME_LIMIT, Check, HangError, Subject
from leukokit.testing.classifiers import classifier_checks
from leukokit.testing.declarations import declaration_checks
from leukokit.testing.detectors import detector_checks
from leukokit.testing.graph_builders import graph_builder_checks
from leukokit.testing.guards import peak_mb
from leukokit.testing.writers import writer_checks

_OF_KIND: Final[dict[str, Callable[[Subject, float], Iterator[Check]]]] = {
    detectors.kind: detector_checks,
    graph_builders.kind: graph_builder_checks,
    classifiers.kind: classifier_checks,
    writers.kind: writer_checks,
}


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """The outcome of one check; ``message`` is empty if it passed."""

    name: str
    passed: bool
    message: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of all checks of a plugin.

    Attributes:
        plugin: its kind and name.
        outcomes: one per check, in order.
        seconds: of all checks together.
        peak_mb: peak memory of the process, in MB; None if the system does not report it.
        grown_mb: how much of it the checks added.
    """

    plugin: str
    outcomes: tuple[CheckOutcome, ...]
    seconds: float
    peak_mb: float | None
    grown_mb: float | None

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(outcome.passed for outcome in self.outcomes)


def checks(
    plugin: type[Any] | str,
    params: PluginParams | dict[str, Any] | None = None,
    kind: str | None = None,
    seconds: float = TIME_LIMIT,
) -> list[Check]:
    """All checks of a plugin. No code of the plugin runs before the first check.

    Args:
        plugin: the class, or the name of one that is installed or registered.
        params: values for its parameters; None for its defaults.
        kind: ``detector``, ``graph builder``, ``classifier`` or ``writer``, if several kinds have a plugin of
            this name.
        seconds: time limit of each check.

    Raises:
        PluginError: no such plugin, several of that name, or a class that is not a plugin.
    """
    registry, found = _found(plugin, kind)
    subject = Subject(registry.kind, found, params)
    return [*declaration_checks(subject, registry, seconds), *_OF_KIND[registry.kind](subject, seconds)]


def run_checks(
    plugin: type[Any] | str,
    params: PluginParams | dict[str, Any] | None = None,
    kind: str | None = None,
    seconds: float = TIME_LIMIT,
    each: Callable[[CheckOutcome], None] = lambda _: None,
) -> Report:
    """Run all checks of a plugin, and measure time and memory.

    If a check exceeds its time limit, the rest are not run: the code that hangs may still occupy the
    processor.

    Args:
        plugin: as for ``checks``, and so are ``params``, ``kind`` and ``seconds``.
        params: see there.
        kind: see there.
        seconds: see there.
        each: called with every outcome as it comes.

    Raises:
        PluginError: as ``checks``; never for a check that fails.
    """
    todo = checks(plugin, params, kind, seconds)
    started, memory = time.perf_counter(), peak_mb()
    outcomes: list[CheckOutcome] = []
    hung = ""
    for check in todo:
        if hung:
            outcome = CheckOutcome(
                check.name, False, f"{check.plugin}: not run, because '{hung}' did not finish", 0.0
            )
        else:
            outcome, ended = _outcome(check)
            hung = "" if ended else check.name
        outcomes.append(outcome)
        each(outcome)
    peak = peak_mb()
    grown = None if peak is None or memory is None else peak - memory
    return Report(todo[0].plugin, tuple(outcomes), time.perf_counter() - started, peak, grown)


def _found(plugin: type[Any] | str, kind: str | None) -> tuple[Registry[Any], type[Any]]:
    if not isinstance(plugin, str):
        return registry_of(plugin), plugin
    registries = [registry for registry in ALL if kind in (None, registry.kind)]
    if not registries:
        raise PluginError(f"no kind '{kind}'; there are: {', '.join(registry.kind for registry in ALL)}")
    having = [registry for registry in registries if any(row.name == plugin for row in registry.rows())]
    if len(having) > 1:
        kinds = " and ".join(registry.kind for registry in having)
        raise PluginError(f"'{plugin}' is the name of a {kinds}; say which kind")
    if not having and kind is None:
        known = ", ".join(sorted({name for registry in ALL for name in registry.names()}))
        raise PluginError(f"no plugin is called '{plugin}'; there are: {known}")
    registry = having[0] if having else registries[0]
    return registry, registry.get(plugin)


def _outcome(check: Check) -> tuple[CheckOutcome, bool]:
    """The outcome of a check, and whether it finished at all."""
    started, message, ended = time.perf_counter(), "", True
    try:
        check.run()
    except (AssertionError, PluginError) as error:
        message, ended = str(error), not isinstance(error, HangError)
    return CheckOutcome(check.name, not message, message, time.perf_counter() - started), ended
