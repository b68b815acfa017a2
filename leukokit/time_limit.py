"""A limit on the time that foreign code may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_AFTER = 1.0
"""Seconds after which code that caught the interruption and went on is interrupted again."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer than ``seconds``; 0 for no limit.

    The interruption comes by a signal, so it works in the main thread of systems that have ``SIGALRM``
    (elsewhere there is no limit), and as soon as native code returns to the interpreter.

    Raises:
        TimeoutError: the time is over.
    """
    here = threading.current_thread() is threading.main_thread()
    if not seconds or not here or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took longer than {seconds:g} s; 'time_limit' is the setting")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_AFTER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
