"""A single check, and the plugin under test."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from leukokit._guard import TimeLimit
from leukokit._text import one_line
from leukokit.errors import LeukokitError, PluginError
from leukokit.plugin import PluginParams

TIME_LIMIT: Final = 60.0
"""Time limit of a check, in seconds."""


class HangError(PluginError):
    """A plugin did not finish within the time limit of a check."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a plugin must do.

    Attributes:
        name: what is checked.
        plugin: kind and name of the plugin, for messages.
        seconds: its time limit.
        source: file of the plugin's code, if there is one.
    """

    name: str
    plugin: str
    seconds: float
    body: Callable[[], None] = field(repr=False)
    source: str | None = field(default=None, repr=False)

    def run(self) -> None:
        """Run the check.

        Raises:
            AssertionError: the plugin breaks its contract; one line that says how.
            PluginError: the plugin raised an error, which the message names with its place, or exceeded the
                limit.
        """
        ended = False

        def whole() -> None:
            nonlocal ended
            try:
                self.body()
            finally:
                ended = True

        subject = f"{self.plugin}: {self.name}"
        try:
            TimeLimit(self.seconds).run(whole)
        except AssertionError as error:
            raise AssertionError(f"{subject}: {one_line(error)}") from error
        except TimeoutError as error:
            if not ended:
                raise HangError(f"{subject}: did not finish within {self.seconds:g} s") from error
            raise PluginError(f"{subject}: {raised(error, self.source)}") from error
        except (Exception, SystemExit) as error:
            raise PluginError(f"{subject}: {raised(error, self.source)}") from error

    def __str__(self) -> str:
        return self.name


class Subject:
    """Makes instances of a plugin under test.

    Args:
        kind: its registry's name for it.
        plugin: the class.
        params: values of its parameters, or a Params object; None for the defaults.
    """

    def __init__(self, kind: str, plugin: type[Any], params: PluginParams | dict[str, Any] | None) -> None:
        self.kind, self.plugin, self.given = kind, plugin, params
        self._idle: Any = None

    def __str__(self) -> str:
        return f"{self.kind} '{getattr(self.plugin, 'name', self.plugin.__qualname__)}'"

    def params(self) -> PluginParams:
        """The parameters that a user's values give."""
        if isinstance(self.given, PluginParams):
            return self.given
        parsed: PluginParams = self.plugin.parse(self.given or {})
        return parsed

    def fresh(self) -> Any:
        """A new instance, on the CPU if its kind has a device."""
        if self.kind == "graph builder":
            return self.plugin(self.params())
        return self.plugin(self.params(), "cpu")

    def writer(self, out: Path) -> Any:
        """A new writer."""
        return self.plugin(out, self.params())

    def check(self, name: str, seconds: float, body: Callable[[Any], None]) -> Check:
        """A check of an instance; an instance that exceeded the time limit is not used again."""

        def with_instance() -> None:
            # Reading weights takes longer than most checks: one instance serves several checks.
            instance, self._idle = self._idle, None
            if instance is None:
                instance = self.fresh()
            try:
                body(instance)
            finally:
                self._idle = instance

        return self.bare(name, seconds, with_instance)

    def bare(self, name: str, seconds: float, body: Callable[[], None]) -> Check:
        """A check that makes its own instances."""
        source = getattr(sys.modules.get(self.plugin.__module__), "__file__", None)
        return Check(name, str(self), seconds, body, source)


def require(condition: object, message: str) -> None:
    """Fail the check unless the condition holds.

    Raises:
        AssertionError: with the message.
    """
    if not condition:
        raise AssertionError(message)


def refuses(call: Callable[[], object], kinds: tuple[type[Exception], ...]) -> bool:
    """Whether a call raises one of these errors."""
    try:
        call()
    except kinds:
        return True
    return False


def raised(error: BaseException, source: str | None) -> str:
    """The error, with the line of the plugin's file that raised it."""
    if isinstance(error, LeukokitError):
        return one_line(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == source]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"raised {one_line(f'{type(error).__name__}: {error}')}{where}"
