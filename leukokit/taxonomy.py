"""Cell kinds, leukocyte classes, the names other tools give them, and the colours they are drawn in."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("leukocyte", "erythrocyte", "platelet")
"""What a detector tells apart; a kind's number is its position here."""

LEUKOCYTE, ERYTHROCYTE, PLATELET = range(3)

LEUKOCYTE_CLASSES: Final = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""The five classes of a differential count, in the order in which they are usually reported."""

_ALIASES: Final = {
    "leukocyte": ("leucocyte", "wbc", "white blood cell", "white"),
    "erythrocyte": ("rbc", "red blood cell", "red"),
    "platelet": ("thrombocyte", "plt"),
}

COLOURS: Final[dict[str, str]] = {
    # Okabe & Ito's palette (https://jfly.uni-koeln.de/color/), told apart by colour-blind readers too.
    "leukocyte": "#0072B2",
    "erythrocyte": "#D55E00",
    "platelet": "#009E73",
}
"""Hexadecimal sRGB by kind."""


def kind_of(name: str) -> str | None:
    """The kind that a class name of another tool or data set stands for, or None.

    Case, plural and separators do not matter: ``WBC``, ``Platelets`` and ``red_blood_cell`` are known,
    and a leukocyte class stands for a leukocyte.
    """
    plain = name.strip().lower().replace("_", " ").replace("-", " ")
    plain = plain.removesuffix("s")
    if plain in LEUKOCYTE_CLASSES:
        return "leukocyte"
    for kind, aliases in _ALIASES.items():
        if plain == kind or plain in aliases:
            return kind
    return None
