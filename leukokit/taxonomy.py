"""Cell kinds, leukocyte classes, the names that other tools give them, and the colours they are drawn in."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("leukocyte", "erythrocyte", "platelet")
"""The kinds that a detector finds; a kind's number is its position here."""

LEUKOCYTE, ERYTHROCYTE, PLATELET = range(3)

LEUKOCYTE_CLASSES: Final = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""The five classes of a differential count, in the order in which they are usually reported."""

IMMATURE_GRANULOCYTE: Final = "immature granulocyte"
"""Class of promyelocytes, myelocytes and metamyelocytes, for classifiers trained on them."""

ERYTHROBLAST: Final = "erythroblast"
"""Class of nucleated erythrocytes: found as leukocytes, because of their nucleus, but counted apart."""

UNCLASSIFIED: Final = "unclassified"
"""Label of a leukocyte whose best probability is below the review threshold."""

UNKNOWN: Final = "unknown"
"""Class of what resembles no other class of a classifier: an abnormal cell, an artefact, a new stain."""

MAX_CLASS_NAME: Final = 100
"""Most characters of a class name."""

_KIND_ALIASES: Final = {
    "leukocyte": ("leucocyte", "wbc", "white blood cell", "white cell", "white"),
    "erythrocyte": ("rbc", "red blood cell", "red cell", "red"),
    "platelet": ("thrombocyte", "plt"),
}
_CLASS_ALIASES: Final = {
    "neutrophil": (
        *("neut", "neutrophil granulocyte", "neutrophilic granulocyte", "granulocyte neutrophil"),
        *("segmented neutrophil", "neutrophil segmented", "segmented", "segmented granulocyte", "seg", "sne"),
        *("band neutrophil", "neutrophil band", "band", "band cell", "banded neutrophil", "bne"),
    ),
    "lymphocyte": ("lymph", "lym", "ly"),
    "monocyte": ("mono", "mo"),
    "eosinophil": ("eos", "eo", "eosinophilic granulocyte", "eosinophil granulocyte"),
    "basophil": ("baso", "ba", "basophilic granulocyte", "basophil granulocyte"),
    IMMATURE_GRANULOCYTE: ("ig", "promyelocyte", "myelocyte", "metamyelocyte"),
    ERYTHROBLAST: ("normoblast", "nrbc", "nucleated red blood cell", "nucleated red cell"),
}
_NAMES: Final = {
    alias: name
    for aliases in (_KIND_ALIASES, _CLASS_ALIASES)
    for name, others in aliases.items()
    for alias in (name, *others)
}
"""Kind or class by each of its names: the one table that all readers of other tools' names use."""

COLOURS: Final[dict[str, str]] = {
    # Okabe & Ito's palette (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart.
    "leukocyte": "#0072B2",
    "erythrocyte": "#D55E00",
    "platelet": "#009E73",
}
"""Hexadecimal sRGB by kind."""

CLASS_COLOURS: Final[dict[str, str]] = {
    # Distinct from each other, from erythrocytes and platelets and from a smear's pink, also for
    # colour-blind readers as Machado et al. simulate them (doi:10.1109/TVCG.2009.113).
    "neutrophil": "#5500FF",
    "lymphocyte": "#BBFF33",
    "monocyte": "#BB99FF",
    "eosinophil": "#553300",
    "basophil": "#550099",
    IMMATURE_GRANULOCYTE: "#77FF99",
    ERYTHROBLAST: "#555577",
    UNCLASSIFIED: "#1A1A1A",
    UNKNOWN: "#DD0044",
}
"""Hexadecimal sRGB by class."""


def colour_of(name: str) -> str:
    """Return the hexadecimal sRGB of a kind or a class; an unknown class has the leukocytes' colour."""
    return CLASS_COLOURS.get(name) or COLOURS.get(name, COLOURS["leukocyte"])


def is_class_name(name: str) -> bool:
    """Whether tables and terminals can show a text as the name of a class."""
    return name.isprintable() and 0 < len(name) <= MAX_CLASS_NAME and name == name.strip()


def canonical_name(name: str) -> str | None:
    """Return the kind or class that a name of another tool or data set stands for, or None.

    Case, separators and a plural ``s`` do not matter.

    Examples:
        >>> canonical_name("WBC"), canonical_name("nRBCs"), canonical_name("Band-Neutrophils")
        ('leukocyte', 'erythroblast', 'neutrophil')
        >>> canonical_name("artefact") is None
        True
    """
    text = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return _NAMES.get(text) or _NAMES.get(text.removesuffix("s"))


def kind_of(name: str) -> str | None:
    """Return the kind that a name of another tool or data set stands for, or None.

    A class of leukocytes stands for a leukocyte, and so does an erythroblast, which is found as one.

    Examples:
        >>> kind_of("red_blood_cells"), kind_of("monocyte"), kind_of("NRBC")
        ('erythrocyte', 'leukocyte', 'leukocyte')
    """
    known = canonical_name(name)
    return known if known is None or known in KINDS else "leukocyte"


def class_of(name: str) -> str | None:
    """Return the leukocyte class that a name of another tool or data set stands for, or None.

    Examples:
        >>> class_of("segmented neutrophils"), class_of("IG"), class_of("WBC")
        ('neutrophil', 'immature granulocyte', None)
    """
    known = canonical_name(name)
    return None if known in KINDS else known
