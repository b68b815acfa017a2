"""Regular expressions of users, matched in a process that can be ended: a few can take for ever."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from leukokit.errors import ConfigError

TIME_LIMIT_S: Final = 20.0
"""Seconds that a pattern may take over all its texts."""
# Python's own engine keeps the interpreter while it searches: no thread could end it.
_SEARCH: Final = """
import json, re, sys
pattern, texts = json.load(sys.stdin)
found = (re.search(pattern, text) for text in texts)
json.dump([None if match is None else [match[0], *match.groups()] for match in found], sys.stdout)
"""


def compile_pattern(pattern: str, option: str) -> re.Pattern[str]:
    """Return a user's regular expression.

    Args:
        pattern: the expression.
        option: where the user gave it, such as ``--photo-pattern``.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{option} '{pattern}' is not a regular expression ({error})") from error


def search_all(
    pattern: re.Pattern[str], texts: Sequence[str], option: str, time_limit: float = TIME_LIMIT_S
) -> list[tuple[str | None, ...] | None]:
    """Search each text for a pattern.

    Args:
        pattern: of ``compile_pattern``.
        texts: what is searched.
        option: where the user gave the pattern.
        time_limit: seconds for all texts.

    Returns:
        For each text the match and its groups, as ``[match, *groups]``; None where there is none.

    Raises:
        ConfigError: the search does not end in time.
    """
    if not texts:
        return []
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", _SEARCH],
            input=json.dumps([pattern.pattern, list(texts)]),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=time_limit,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"{option} '{pattern.pattern}' takes more than {time_limit:g} s over {len(texts)} names; "
            "write it without nested repetitions such as (a+)+"
        ) from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"{option} '{pattern.pattern}' cannot be searched for ({error})") from error
    return [None if match is None else tuple(match) for match in json.loads(ended.stdout)]
