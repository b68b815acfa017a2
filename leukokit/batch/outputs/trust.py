"""How far the classes of a batch can be trusted: what the weights were measured on, and what shows here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leukokit._text import printable
from leukokit.differential import MAX_WITHOUT_CLASS, Differential


@dataclass(frozen=True, slots=True)
class TestedShare:
    """One test of the weights, as text: the share ``without`` a class, and ``wrong``, of the rest."""

    title: str
    cells: str
    without: str
    wrong: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What the report says of it.

    Attributes:
        here: what this batch shows, a sentence.
        is_doubtful: whether that speaks against the classes.
        tests: how the weights did where the right classes were known.
    """

    here: str
    is_doubtful: bool
    tests: Sequence[TestedShare]


def trust_of(count: Differential, run: Mapping[str, Any]) -> Trust | None:
    """Return how far the classes can be trusted; None where there are none.

    Args:
        count: the differential count of all images.
        run: the document of ``run.json``; ``classifier_tests`` is from the card of the weights.
    """
    total = count.n + count.without_class
    if not total:
        return None
    share = count.without_class / total
    if count.is_withheld:
        here = (
            f"Here {share:.0%} of the leukocytes have no class, as is usual in laboratories that the weights "
            "do not know: this stain, camera or focus is probably new to them."
        )
    else:
        here = (
            f"Here {share:.0%} of the leukocytes have no class. Up to {MAX_WITHOUT_CLASS:.0%} does not speak "
            "against a known stain, but does not prove one: compare cells of the gallery with their class."
        )
    tests = [_measured(test) for test in run.get("classifier_tests") or []]
    return Trust(here, count.is_withheld, [test for test in tests if test is not None])


def _measured(test: Mapping[str, Any]) -> TestedShare | None:
    try:
        coverage, right = float(test["coverage"]), float(test["accuracy_of_classified"])
        cells = f"{int(test['cells']):,}"
    except (KeyError, TypeError, ValueError):
        return None
    title = printable(str(test.get("title", "")))
    return TestedShare(title, cells, f"{100 * (1 - coverage):.1f}%", f"{100 * (1 - right):.1f}%")
