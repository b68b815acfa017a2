"""Which images are counted together."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from leukokit._text import printable
from leukokit.errors import ConfigError

BY_FOLDER: Final = "folder"
NO_GROUP: Final = ""
MAX_SECONDS: Final = 10.0
"""Seconds that a regular expression may take over all names, and a millisecond for each of them."""
_GROUP_SEARCH: Final = """
import json, re, sys
rule, names = json.load(sys.stdin)
pattern = re.compile(rule)
groups = []
for name in names:
    found = pattern.search(name)
    groups.append("" if found is None else (found[1] if pattern.groups else found[0]) or "")
json.dump(groups, sys.stdout)
"""


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
        if not rule or rule == BY_FOLDER:
            return
        try:
            re.compile(rule)
        except (re.error, OverflowError, RecursionError) as error:
            raise self._refused(f"not a regular expression ({error}); 'folder' groups by folder") from error

    def groups_of(self, names: Sequence[str]) -> list[str]:
        """Return the group of each image; empty where it is in none.

        A regular expression is searched for in a process that can be ended: some take for ever over a name.

        Args:
            names: relative paths with forward slashes.

        Raises:
            ConfigError: the regular expression takes too long.
        """
        if not self.rule or not names:
            return [NO_GROUP] * len(names)
        if self.rule == BY_FOLDER:
            return [PurePosixPath(name).parent.as_posix() for name in names]
        try:
            searched = subprocess.run(
                [sys.executable, "-I", "-c", _GROUP_SEARCH],
                input=json.dumps([self.rule, list(names)]),
                capture_output=True,
                text=True,
                check=True,
                timeout=MAX_SECONDS + len(names) / 1000,
            )
        except subprocess.TimeoutExpired as error:
            raise self._refused("takes too long over the names; write it without nested repeats") from error
        except subprocess.CalledProcessError as error:
            cause = (error.stderr.strip().splitlines() or ["it ended"])[-1]
            raise self._refused(f"cannot be searched for ({printable(cause)})") from error
        groups: list[str] = json.loads(searched.stdout)
        return groups

    def _refused(self, why: str) -> ConfigError:
        rule = printable(self.rule or "")
        return ConfigError(f"--group-by {rule if len(rule) <= 200 else rule[:200] + '...'}: {why}")
