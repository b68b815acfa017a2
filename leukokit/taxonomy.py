"""Cell kinds, leukocyte classes, the names other tools give them, and the colours they are drawn in."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("leukocyte", "erythrocyte", "platelet")
"""What a detector tells apart; a kind's number is its position here."""

LEUKOCYTE, ERYTHROCYTE, PLATELET = range(3)

LEUKOCYTE_CLASSES: Final = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""The five classes of a differential count, in the order in which they are usually reported."""

IMMATURE_GRANULOCYTE: Final = "immature granulocyte"
"""Class of promyelocytes, myelocytes and metamyelocytes, told apart by classifiers that have learnt them."""

ERYTHROBLAST: Final = "erythroblast"
"""Class of nucleated red cells: found as leukocytes, for their nucleus, but counted apart from them."""

UNCLASSIFIED: Final = "unclassified"
"""Label of a leukocyte that no class is certain enough of."""

_ALIASES: Final = {
    "leukocyte": (
        *("leucocyte", "wbc", "white blood cell", "white"),
        *LEUKOCYTE_CLASSES,
        *(IMMATURE_GRANULOCYTE, "ig"),
        *(ERYTHROBLAST, "normoblast", "nrbc", "nucleated red blood cell"),
    ),
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

CLASS_COLOURS: Final[dict[str, str]] = {
    # Told apart from each other, from erythrocytes and platelets and from a smear's pink, also by
    # colour-blind readers as Machado et al. simulate them (doi:10.1109/TVCG.2009.113).
    "neutrophil": "#5500FF",
    "lymphocyte": "#BBFF33",
    "monocyte": "#BB99FF",
    "eosinophil": "#553300",
    "basophil": "#550099",
    IMMATURE_GRANULOCYTE: "#77FF99",
    ERYTHROBLAST: "#555577",
    UNCLASSIFIED: "#1A1A1A",
}
"""Hexadecimal sRGB by class."""


def colour_of(name: str) -> str:
    """Hexadecimal sRGB of a kind or a class; a class that the taxonomy does not know is a leukocyte's."""
    return CLASS_COLOURS.get(name) or COLOURS.get(name, COLOURS["leukocyte"])


def kind_of(name: str) -> str | None:
    """The kind that a class name of another tool or data set stands for, or None.

    Case, plural and separators do not matter: ``WBC``, ``Platelets`` and ``red_blood_cell`` are known,
    and a leukocyte class stands for a leukocyte, as an erythroblast does: that is what it is found as.
    """
    plain = name.strip().lower().replace("_", " ").replace("-", " ")
    plain = plain.removesuffix("s")
    for kind, aliases in _ALIASES.items():
        if plain == kind or plain in aliases:
            return kind
    return None
