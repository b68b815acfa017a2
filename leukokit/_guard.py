"""A limit on the time that foreign code may take."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")
_ABANDONED: Final = "abandoned plugin"
_Call = tuple[Callable[[], Any], "Future[Any]"]


class TimeLimit:
    """Runs calls one after another in a thread of its own, which is left behind where a call hangs.

    Args:
        seconds: what a call may take; 0 for no limit, and calls in the caller's own thread.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._thread: _Thread | None = None
        self._asked: Future[Any] | None = None
        self._stopped = False

    def run(self, call: Callable[[], T], times: int = 1) -> T:
        """What ``call`` returns or raises, within ``times`` the limit.

        Raises:
            TimeoutError: it takes longer. Python code is interrupted; native code that never returns keeps
                its thread, and ends with the process.
        """
        future: Future[T] = Future()
        # Before all else: either ``stop`` finds this call, or the call finds that it is stopped.
        self._asked = future
        if self._stopped:
            raise KeyboardInterrupt
        if not self.seconds:
            return call()
        if self._thread is None:
            self._thread = _Thread()
            weakref.finalize(self, self._thread.calls.put, None)
        self._thread.calls.put((call, future))
        limit = times * self.seconds
        try:
            return future.result(limit)
        except TimeoutError as error:
            if future.done():
                # Its own error, or it ended just as the time was up.
                return future.result()
            self._thread.abandon()
            self._thread = None
            raise TimeoutError(f"took longer than {limit:g} s; 'time_limit' is the setting") from error
        except BaseException:
            if not future.done():
                # The caller is to stop: the thread is of no more use.
                self._thread.abandon()
                self._thread = None
            raise

    def stop(self) -> None:
        """From another thread: interrupt what is at work; that and later calls raise KeyboardInterrupt."""
        self._stopped = True
        if (asked := self._asked) is None:
            return
        with contextlib.suppress(InvalidStateError):
            asked.set_exception(KeyboardInterrupt())
            # Looked for only now: one that is made later finds the call settled, and does not begin it.
            if (thread := self._thread) is not None:
                thread.abandon()


def is_any_abandoned() -> bool:
    """Whether a call that was given up on is still at work in this process."""
    return any(thread.name == _ABANDONED for thread in threading.enumerate())


class _Thread(threading.Thread):
    def __init__(self) -> None:
        # A daemon: a call that hangs does not keep the process.
        super().__init__(name="plugin", daemon=True)
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Do what is asked, until None is, or until the thread is abandoned."""
        with contextlib.suppress(SystemExit):
            while (asked := self.calls.get()) is not None:
                self._do(*asked)
                # What the call held on to, an image above all, is let go of before the next one comes.
                del asked

    def _do(self, call: Callable[[], Any], future: Future[Any]) -> None:
        # A future that was settled by ``TimeLimit.stop`` is nobody's any more.
        if future.done():
            return
        with contextlib.suppress(InvalidStateError):
            try:
                answer = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(answer)

    def abandon(self) -> None:
        """Raise ``SystemExit`` in the thread as soon as it runs Python code again."""
        self.name = _ABANDONED
        self.calls.put(None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self.ident or 0), ctypes.py_object(SystemExit)
        )
