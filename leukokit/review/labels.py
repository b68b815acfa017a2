"""A laboratory's own labels, from a YAML list."""

from __future__ import annotations

from pathlib import Path

from leukokit._text import printable
from leukokit._yaml import read_yaml
from leukokit.errors import ConfigError


def read_labels(path: Path) -> list[str]:
    """Read a YAML list of labels, e.g. ``[plasma cell, hairy cell]``.

    Raises:
        ConfigError: unreadable, or no list of texts.
    """
    values = read_yaml(path)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{printable(path)}: must be a list of labels, e.g. [plasma cell, hairy cell]")
    return values
