"""The report of a batch: one HTML file that holds all it shows, and asks nothing of a network.

Whatever a page shows of names, errors and settings was written by others: it is escaped by the template,
unprintable characters are spelt out, and the page's own policy lets no script run but the one it came with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from leukokit._files import write_atomically
from leukokit._text import escape_formula, printable
from leukokit.batch.outputs.totals import GroupCounts, Totals, images_needed, still_needed
from leukokit.batch.outputs.trust import trust_of
from leukokit.batch.processing import GALLERY
from leukokit.batch.records import Entry, Thumbnail
from leukokit.differential import MIN_LEUKOCYTES, Differential
from leukokit.taxonomy import KINDS, UNCLASSIFIED, UNKNOWN, colour_of

REPORT_NAME: Final = "report.html"
MAX_GROUPS: Final = 1000
"""Most rows of the table of groups; all are in differential.csv."""
MAX_FAILURES: Final = 500
"""Most rows of the table of failures; all are in failures.csv."""
MAX_LINES: Final = 20
"""Most lines of what one should know; all are in run.json."""
_TOPS: Final = (20, 40, 60, 80, 100)
_TICKS: Final = 4
_NOTHING: Final = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as a reader sees it, and as the table sorts it; None sorts last."""

    text: str
    value: float | None = None
    small: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A class of the differential count; ``start`` to ``end`` are its interval, in percent of the axis."""

    label: str
    colour: str
    count: Figure
    percent: Figure
    interval: Figure
    length: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A row of the table of groups."""

    name: str
    figures: list[Figure]


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """A leukocyte of the gallery; ``source`` is a data URI."""

    source: str
    percent: str
    name: str
    cell: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """The leukocytes of one label, the least certain first; ``total`` is how many there are in all."""

    label: str
    colour: str
    total: int
    pictures: list[GalleryPicture]


def write_report(
    out: Path,
    totals: Totals,
    thumbnails: Iterable[Thumbnail],
    failures: Iterable[Entry],
    run: Mapping[str, Any],
    target: int | None = None,
) -> Path:
    """Write ``report.html``: self-contained, and the same for the same arguments.

    Args:
        out: folder to write to; exists.
        totals: the counts, as ``write_tables`` gives them.
        thumbnails: leukocytes for the gallery, in any order; ``GALLERY`` of each label are shown.
        failures: images without results, in their order; the first ``MAX_FAILURES`` are shown.
        run: the document of ``run.json``.
        target: leukocytes that a differential count should have, if the user said.

    Returns:
        The file written.

    Raises:
        OutputError: it cannot be written.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style, script = _beside("report.css"), _beside("report.js")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    page = environment.from_string(_beside("report.html.j2")).render(
        # Both are files of the package, with nothing of the batch in them.
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        **_view(totals, thumbnails, failures, run, target),
    )
    path = out / REPORT_NAME
    write_atomically(path, page)
    return path


def _view(
    totals: Totals,
    thumbnails: Iterable[Thumbnail],
    failures: Iterable[Entry],
    run: Mapping[str, Any],
    target: int | None,
) -> dict[str, Any]:
    """All that the template shows, as text."""
    whole = totals.whole
    count = whole.differential
    labels = list(count.shares)
    top = _top(count)
    settings = {key: value for key, value in run["provenance"].items() if not isinstance(value, Mapping)}
    plugins = {key: value for key, value in run["provenance"].items() if isinstance(value, Mapping)}
    run_facts = {
        key: run[key]
        for key in ("command", "shard", "finished", "seconds_of_last_run", "seconds_over_images")
        if run.get(key) is not None
    }
    return {
        "finished": run["finished"],
        "date": f"{datetime.fromisoformat(run['finished']):%Y-%m-%d %H:%M %Z}",
        "use": run["use"],
        "images": whole.images,
        "done": whole.done,
        "failed": whole.failed,
        "waiting": whole.waiting,
        "attention": [escape_formula(printable(line)) for line in run["attention"][:MAX_LINES]],
        "more_attention": max(len(run["attention"]) - MAX_LINES, 0),
        "kinds": [(kind, whole.kinds[kind]) for kind in KINDS],
        "classified": bool(whole.classes),
        "classifier": run["provenance"].get("classifier"),
        "count": count,
        "fewest": MIN_LEUKOCYTES,
        "trust": trust_of(count, run),
        "target": target,
        "groups_in_need": sum(
            still_needed(group.differential, target or 0) > 0 for group in totals.groups.values()
        ),
        "needed": 0 if target is None else still_needed(count, target),
        "more_images": None if target is None else images_needed(whole, target),
        "bars": [_bar(label, count, top) for label in labels],
        "ticks": [(f"{100 * tick / _TICKS:g}%", f"{top * tick / _TICKS:g}") for tick in range(_TICKS + 1)],
        "columns": _columns(labels, bool(whole.classes), target),
        "groups": [
            _group_row(escape_formula(printable(name)), group, labels, target)
            for name, group in islice(sorted(totals.groups.items()), MAX_GROUPS)
        ],
        "all_groups": len(totals.groups),
        "all_images": _group_row("all images", whole, labels, target),
        "shelves": _shelves(thumbnails, whole),
        "most_pictures": GALLERY,
        "review_threshold": f"{100 * run['review_threshold']:.4g}%" if run.get("review_threshold") else None,
        "failures": [
            (escape_formula(printable(entry.name.as_posix())), escape_formula(printable(entry.error)))
            for entry in islice(failures, MAX_FAILURES)
        ],
        "facts": _flat({**run_facts, **settings}),
        "plugins": [(printable(key), _flat(value)) for key, value in plugins.items()],
    }


def _bar(label: str, count: Differential, top: int) -> Bar:
    share, (low, high) = count.shares[label], _range(count, label)
    percent = None if count.is_withheld else share.percent
    return Bar(
        label=printable(label),
        colour=colour_of(label),
        count=Figure(f"{share.count:,}", share.count),
        percent=Figure(_NOTHING) if percent is None else Figure(f"{percent:.1f}", percent),
        interval=Figure(f"{low:.1f} to {high:.1f}", low),
        length=f"{100 * (percent or 0.0) / top:.2f}%",
        start=f"{100 * low / top:.2f}%",
        end=f"{100 * high / top:.2f}%",
    )


def _range(count: Differential, label: str) -> tuple[float, float]:
    """The interval of a percentage, or its bounds where it is withheld."""
    share = count.shares[label]
    return count.bounds(label) if count.is_withheld else (share.low, share.high)


def _top(count: Differential) -> int:
    """Where the axis ends: the bars of a count without large classes would be too short to compare."""
    largest = max((_range(count, label)[1] for label in count.shares), default=100.0)
    return next((top for top in _TOPS if largest <= top), _TOPS[-1])


def _columns(labels: Sequence[str], classified: bool, target: int | None) -> list[str]:
    columns = ["group", "images", "failed", "leukocytes"]
    if classified:
        # Beside what it is needed for, and in sight where the table is wider than the window.
        needed = [] if target is None else ["still needed"]
        columns += ["classified", *needed, *(f"{printable(label)} %" for label in labels), UNCLASSIFIED]
    return columns


def _group_row(name: str, group: GroupCounts, labels: Sequence[str], target: int | None) -> GroupRow:
    figures = [
        _whole_figure(group.images),
        _whole_figure(group.failed),
        _whole_figure(group.kinds["leukocyte"]),
    ]
    # The row of a group whose images all failed has the columns of the others.
    if labels:
        count = group.differential
        figures.append(Figure(f"{count.n:,}", count.n, "few" if count.below_minimum else ""))
        if target is not None:
            figures.append(_whole_figure(still_needed(count, target)))
        figures += [_share(count, label) for label in labels]
        figures.append(_whole_figure(count.unclassified))
    return GroupRow(name, figures)


def _share(count: Differential, label: str) -> Figure:
    if label not in count.shares or (share := count.shares[label]).percent is None:
        return Figure(_NOTHING)
    low, high = _range(count, label)
    if count.is_withheld:
        return Figure(_NOTHING, None, f"between {low:.1f} and {high:.1f}")
    return Figure(f"{share.percent:.1f}", share.percent, f"{low:.1f} to {high:.1f}")


def _whole_figure(number: int) -> Figure:
    return Figure(f"{number:,}", number)


def _shelves(thumbnails: Iterable[Thumbnail], whole: GroupCounts) -> list[Shelf]:
    """The gallery; what no class is certain enough of comes first, then the classes in their order."""
    by_label: dict[str, list[Thumbnail]] = {}
    for thumbnail in thumbnails:
        by_label.setdefault(thumbnail.label, []).append(thumbnail)
    places = {label: place for place, label in enumerate(whole.classes, 2)} | {UNKNOWN: 0, UNCLASSIFIED: 1}
    return [
        Shelf(
            printable(label),
            colour_of(label),
            whole.classes[label],
            [
                _gallery_picture(t)
                for t in sorted(found, key=lambda t: (t.probability, t.name, t.cell))[:GALLERY]
            ],
        )
        for label, found in sorted(
            by_label.items(), key=lambda item: (places.get(item[0], len(places)), item[0])
        )
    ]


def _gallery_picture(thumbnail: Thumbnail) -> GalleryPicture:
    encoded = base64.b64encode(thumbnail.jpeg).decode("ascii")
    return GalleryPicture(
        source=f"data:image/jpeg;base64,{encoded}",
        percent=f"{100 * thumbnail.probability:.1f}%",
        name=printable(thumbnail.name.as_posix()),
        cell=thumbnail.cell,
    )


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Settings within settings as lines, each with its path: ``params.confidence``, ``0.4``."""
    if isinstance(value, Mapping) and value:
        inner = ((f"{key}.{name}" if key else str(name), part) for name, part in value.items())
        return [line for path, part in inner for line in _flat(part, path)]
    if isinstance(value, list | tuple):
        text = ", ".join(map(str, value))
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = str(value) if value is not None and value != {} else ""
    return [(printable(key), printable(text) or "none")]


def _policy(style: str, script: str) -> str:
    """The page's content security policy: its own style and script, pictures within it, nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
