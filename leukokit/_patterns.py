"""Regular expressions of users, searched for in a process that can be ended: some take too long."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from leukokit._text import printable
from leukokit.errors import ConfigError

MAX_SECONDS: Final = 10.0
"""Seconds that an expression may take over all texts, and a millisecond for each of them."""
MAX_QUOTED: Final = 200
"""Characters of an expression that a message shows."""
# Python's own engine keeps the interpreter while it searches: no thread could end it.
_PROGRAM: Final = """
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
        raise refused_pattern(pattern, option, f"not a regular expression ({error})") from error


def search_all(
    pattern: str, texts: Sequence[str], option: str, max_seconds: float | None = None
) -> list[tuple[str | None, ...] | None]:
    """Search each text for a regular expression.

    Args:
        pattern: one that ``compile_pattern`` accepts.
        texts: what is searched.
        option: where the user gave the expression.
        max_seconds: time for all texts; by default ``MAX_SECONDS``, and a millisecond per text.

    Returns:
        For each text the match and its groups; None where there is none.

    Raises:
        ConfigError: the search does not end in time.
    """
    if not texts:
        return []
    limit = MAX_SECONDS + len(texts) / 1000 if max_seconds is None else max_seconds
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM],
            input=json.dumps([pattern, list(texts)]),
            capture_output=True,
            text=True,
            timeout=limit,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        why = "takes too long over the names; write it without nested repeats such as (a+)+"
        raise refused_pattern(pattern, option, why) from error
    except subprocess.CalledProcessError as error:
        cause = (error.stderr.strip().splitlines() or ["it ended"])[-1]
        raise refused_pattern(pattern, option, f"cannot be searched for ({printable(cause)})") from error
    return [None if match is None else tuple(match) for match in json.loads(ended.stdout)]


def refused_pattern(pattern: str, option: str, why: str) -> ConfigError:
    """Return the error that names a user's expression and what is wrong with it."""
    shown = printable(pattern)
    shown = shown if len(shown) <= MAX_QUOTED else shown[:MAX_QUOTED] + "..."
    return ConfigError(f"{option} {shown}: {why}")
