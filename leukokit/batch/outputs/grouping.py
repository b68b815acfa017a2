"""Which images are counted together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from leukokit._patterns import compile_pattern, search_all

BY_FOLDER: Final = "folder"
NO_GROUP: Final = ""
OPTION: Final = "--group-by"


class Grouping:
    """Which group an image belongs to.

    Args:
        rule: ``folder``, or a regular expression searched for in the image's relative path: its first group,
            or else all that it matches, names the group. None for no groups.

    Raises:
        ConfigError: not a regular expression.
    """

    def __init__(self, rule: str | None) -> None:
        self.rule = rule
        if rule and rule != BY_FOLDER:
            compile_pattern(rule, OPTION)

    def groups_of(self, names: Sequence[str]) -> list[str]:
        """Return the group of each image; empty where it is in none.

        Args:
            names: relative paths with forward slashes.

        Raises:
            ConfigError: the regular expression takes too long.
        """
        if not self.rule or not names:
            return [NO_GROUP] * len(names)
        if self.rule == BY_FOLDER:
            return [PurePosixPath(name).parent.as_posix() for name in names]
        found = search_all(self.rule, names, OPTION)
        return [NO_GROUP if match is None else match[:2][-1] or NO_GROUP for match in found]
