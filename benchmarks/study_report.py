"""The tables of docs/development/study.md from the answers that benchmarks/study.py kept.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; what is around it is written by hand.
Intervals are at 95%, over photographs; a cell that two of three seeds got right counts as two thirds right,
unless they answer together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from study_answers import FEWEST, TOGETHER, Answers, Grouped, Kept
from study_folds import (
    BUILDERS,
    END_TO_END,
    END_TO_END_CONTROLS,
    GROUP_NORM,
    KNOWN,
    MEAN,
    PAPER,
    Study,
)
from study_larger import LARGER, LARGEST
from study_pictures import PICTURES

from leukokit.errors import DataError
from leukokit.metrics.bootstrap import (
    balanced_accuracies,
    bootstrap_photos,
    mcnemar,
    paired_bootstrap,
    photo_codes,
)
from leukokit.metrics.intervals import ConfidenceInterval, percentile_interval, wilson

METHODS = ("altarawneh", "cnn", *(f"hybrid {name}" for name in BUILDERS))
CONTROLS = ("picture alone", "without red cells", "without links", "lengths in pixels", "links shuffled")
LARGEST_BOTH = tuple(f"{name}, {LARGEST}" for name in END_TO_END)
KNOWN_TESTS = ("pbc", "raabin", "chula", "bccd")


def write_report(study: Study, out: Path, path: Path) -> None:
    """Put the tables into the document.

    Raises:
        DataError: the document has a place for a table that there is not.
    """
    kept = Kept(study, out)
    text = path.read_text(encoding="utf-8")

    def table(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise DataError(f"{path}: there is no table '{name}'")
        return f"<!-- table {name} -->\n{TABLES[name](kept)}\n<!-- end -->"

    text = re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)
    path.write_text(text, encoding="utf-8")


def unseen_table(kept: Kept) -> str:
    """Measurement c."""
    together = [f"{method}{TOGETHER}" for method in ("cnn", "hybrid knn", *END_TO_END)]
    rows = [[_named(method), *_unseen_row(kept, method)] for method in (*METHODS, *END_TO_END, *together)]
    return _unseen(kept, "method", rows)


def levers_table(kept: Kept) -> str:
    """Changes of the CNN's recipe."""
    first = kept.study.seeds[:1]
    rows = [["recipe as it is", *_unseen_row(kept, "cnn", first)]]
    changes = (*kept.study.levers, *PICTURES, GROUP_NORM)
    rows += [[name, *_unseen_row(kept, f"lever {name}", first)] for name in changes]
    rows.append(["recipe as it is, all seeds", *_unseen_row(kept, "cnn")])
    rows.append(["statistics of the laboratory's own crops, all seeds", *_unseen_row(kept, "cnn adapted")])
    rows.append(["mean of the weights of all seeds", *_unseen_row(kept, MEAN, first)])
    return _unseen(kept, "CNN", rows)


def larger_table(kept: Kept) -> str:
    """The hybrid trained end to end on a larger CNN and larger crops; the first two seeds."""
    two, rows = kept.study.seeds[:2], []
    for method in END_TO_END:
        rows.append([_named(method), *_unseen_row(kept, method, two)])
        rows += [
            [_named(f"{method}, {name}"), *_unseen_row(kept, f"{method}, {name}", two)] for name in LARGER
        ]
    return _unseen(kept, "method", rows)


def context_table(kept: Kept) -> str:
    """Measurement d on unseen laboratories: the hybrid in two steps against what lacks something."""
    controls = [f"hybrid {name}" for name in (*CONTROLS, *BUILDERS)]
    return _against(kept, "hybrid knn", ["cnn", *controls], "`knn`")


def context_known_table(kept: Kept) -> str:
    """The same on photographs of known laboratories."""
    full, rows = _known(kept, "hybrid knn"), []
    for name in ("cnn", *(f"hybrid {name}" for name in (*CONTROLS, *BUILDERS))):
        found = _known(kept, name)
        if found is None or full is None:
            rows.append([_named(name), *["-"] * 3])
        else:
            rows.append(
                [_named(name), _balanced(*found), *(_gain(full, found) if name != "hybrid knn" else ["", ""])]
            )
    return _markdown(["method", "balanced accuracy", "`knn` minus this", "p"], rows)


def end_to_end_table(kept: Kept) -> str:
    """Controls of the hybrid trained end to end, on unseen laboratories; all classes, and common ones."""
    hybrid, cnn = END_TO_END
    controls = [f"{hybrid} {control}" for control in END_TO_END_CONTROLS]
    return _against(kept, hybrid, ["cnn", cnn, *controls, hybrid], "end to end")


def _against(kept: Kept, method: str, names: Sequence[str], short: str) -> str:
    """A method beside others, on unseen laboratories; on the seeds that both have."""
    rows = []
    for name in names:
        row, runs = [_named(name)], "0"
        for common in (False, True):
            full, found = kept.unseen(method, common=common), kept.unseen(name, common=common)
            if full is None or found is None:
                row += ["-"] * 3
                continue
            row += [_balanced(*found), *(_gain(full, found) if name != method else ["", ""])]
            runs = str(len(found[0].right))
        rows.append([row[0], runs, *row[1:]])
    heads = []
    for which in ("all classes", f"classes of {FEWEST}+"):
        heads += [which, f"{short} minus this", "p"]
    return _markdown(["method", "seeds", *heads], rows)


def mcnemar_table(kept: Kept) -> str:
    """McNemar's test, first seed: cells that only one of the two names rightly."""
    first = kept.study.seeds[:1]
    rows = [[f"{lab}, unseen", *_mcnemar(kept, lab, lab, first)] for lab in kept.labs]
    rows += [[f"{test}, known", *_mcnemar(kept, KNOWN, test, first)] for test in KNOWN_TESTS]
    return _markdown(["cells of", "n", "only cnn", "only hybrid", "p"], rows)


def _on_known() -> list[str]:
    alone = ("altarawneh", "cnn", "hybrid knn", *END_TO_END, *LARGEST_BOTH)
    return [name for method in alone for name in (method, f"{method}{TOGETHER}")]


def known_table(kept: Kept) -> str:
    """Measurement b."""
    rows = []
    for method in _on_known():
        found = [kept.get(method, KNOWN, test) for test in KNOWN_TESTS]
        if any(found):
            rows.append([_named(method), *(_accuracy(answers) if answers else "-" for answers in found)])
    heads = [f"{test} (n {len(kept.tests(KNOWN)[test])})" for test in KNOWN_TESTS]
    return _markdown(["accuracy", *heads], rows)


def paper_table(kept: Kept) -> str:
    """Measurement a."""
    rows = []
    for method in _on_known():
        found = [kept.get(method, KNOWN, test) for test in PAPER]
        if any(found):
            figures = [[_accuracy(a), _photo_accuracy(a)] if a else ["-", "-"] for a in found]
            rows.append([_named(method), *figures[0], *figures[1]])
    heads = []
    for test in PAPER:
        cells = kept.tests(KNOWN)[test]
        photos = len({cell.field.source.photo for cell in cells})
        heads += [f"{test} ({len(cells)} files)", f"per photograph ({photos})"]
    return _markdown(["accuracy", *heads], rows)


def shift_table(kept: Kept) -> str:
    """Scale and stain shifted, on unseen laboratories (pbc and raabin)."""
    from study_shifts import SHIFTS

    hybrids = ("lengths in pixels", "without red cells", "without links", "knn")
    names = ("cnn", *(f"hybrid {name}" for name in hybrids))
    rows = []
    for shift in SHIFTS:
        row = [shift]
        for name in names:
            found = kept.unseen(name, test=shift)
            row.append(_balanced(*found) if found else "-")
        pair = kept.unseen("hybrid knn", test=shift), kept.unseen("cnn", test=shift)
        row += _gain(pair[0], pair[1]) if pair[0] and pair[1] else ["-", "-"]
        rows.append(row)
    return _markdown(["fields", *(_named(name) for name in names), "hybrid minus cnn", "p"], rows)


TABLES: dict[str, Callable[[Kept], str]] = {
    "unseen": unseen_table,
    "levers": levers_table,
    "larger": larger_table,
    "context": context_table,
    "context-known": context_known_table,
    "end-to-end": end_to_end_table,
    "mcnemar": mcnemar_table,
    "known": known_table,
    "paper": paper_table,
    "shift": shift_table,
}


def _unseen(kept: Kept, what: str, rows: list[list[str]]) -> str:
    heads = [what, "seeds", *_lab_heads(kept), "mean", "least", f"mean, classes of {FEWEST}+"]
    # A row without an answer was not run yet.
    return _markdown(heads, [row for row in rows if row[1] != "0"])


def _unseen_row(kept: Kept, method: str, seeds: Sequence[int] | None = None) -> list[str]:
    found = kept.unseen(method, seeds)
    if found is None:
        return ["0", *["-"] * (len(kept.labs) + 3)]
    answers, groups = found
    values = {}
    for lab in kept.labs:
        own = answers.take(groups == lab)
        values[lab] = float(balanced_accuracies(own.share[:, None], own.labels, own.photos, None, 1)[0][0])
    common = kept.unseen(method, seeds, common=True)
    assert common is not None
    return [
        str(len(kept.study.seeds) if method.endswith(TOGETHER) else len(answers.right)),
        *(f"{values[lab]:.3f}" for lab in kept.labs),
        _balanced(answers, groups),
        f"{min(values.values()):.3f}",
        _balanced(*common),
    ]


def _known(kept: Kept, method: str) -> Grouped | None:
    found = [kept.get(method, KNOWN, test) for test in KNOWN_TESTS]
    parts = [part for part in found if part is not None]
    if len(parts) < len(KNOWN_TESTS):
        return None
    groups = np.concatenate(
        [[test] * len(part.labels) for test, part in zip(KNOWN_TESTS, parts, strict=True)]
    )
    whole = Answers(
        np.concatenate([part.right for part in parts], axis=1),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.photos for part in parts]),
    )
    return whole, groups


def _gain(found: Grouped, other: Grouped) -> list[str]:
    (answers, groups), (baseline, _) = found, other
    runs = min(len(answers.right), len(baseline.right))
    mine, theirs = answers.right[:runs].mean(axis=0), baseline.right[:runs].mean(axis=0)
    gain = paired_bootstrap(mine, theirs, answers.labels, answers.photos, groups)
    return [f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", f"{gain.p:.3f}"]


def _mcnemar(kept: Kept, lab: str, test: str, seeds: Sequence[int]) -> list[str]:
    first, second = kept.get("cnn", lab, test, seeds), kept.get("hybrid knn", lab, test, seeds)
    if first is None or second is None:
        return ["-"] * 4
    result = mcnemar(first.right[0], second.right[0])
    return [str(len(first.labels)), str(result.only_a), str(result.only_b), f"{result.p:.3f}"]


def _balanced(answers: Answers, groups: npt.NDArray[np.str_]) -> str:
    values, samples = balanced_accuracies(answers.share[:, None], answers.labels, answers.photos, groups)
    low, high = percentile_interval(samples[:, 0])
    return f"{values[0]:.3f} ({low:.3f}-{high:.3f})"


def _accuracy(answers: Answers) -> str:
    share = answers.share
    if len(np.unique(answers.photos)) == len(share):
        low, high = wilson(float(share.sum()), len(share))
    else:
        low, high = _bootstrapped(share, answers.photos)
    return f"{share.mean():.3f} ({low:.3f}-{high:.3f})"


def _photo_accuracy(answers: Answers) -> str:
    """Every photograph counted once, whatever the number of its copies."""
    codes = photo_codes(answers.photos)
    of_photo = np.bincount(codes, weights=answers.share) / np.bincount(codes)
    low, high = wilson(float(of_photo.sum()), len(of_photo))
    return f"{of_photo.mean():.3f} ({low:.3f}-{high:.3f})"


def _bootstrapped(share: npt.NDArray[np.float64], photos: npt.NDArray[np.str_]) -> ConfidenceInterval:
    values = np.stack([share, np.ones(len(share))], axis=1)
    samples = bootstrap_photos(values, photos, lambda totals: totals[:, 0] / totals[:, 1])
    low, high = percentile_interval(samples)
    return float(low), float(high)


def _lab_heads(kept: Kept) -> list[str]:
    return [f"{lab} (n {len(kept.tests(lab)[lab])})" for lab in kept.labs]


def _named(method: str) -> str:
    return re.sub(r"^(cnn|altarawneh|hybrid)\b", r"`\1`", method)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
