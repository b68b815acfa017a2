"""What stands between leukokit and the code of plugins: time limit, contract, errors, GPU memory."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar, Final, Generic, TypeVar

from leukokit.errors import DeviceMemoryError, LeukokitError, PluginError, WeightsError, cause_of

Item = TypeVar("Item")
Answer = TypeVar("Answer")
T = TypeVar("T")
_ABANDONED: Final = "abandoned plugin"
_Call = tuple[Callable[[], Any], "Future[Any]"]
_log = logging.getLogger("leukokit")


class ContractError(ValueError):
    """A plugin's answer breaks its contract; the message follows the plugin's name."""


class TimeLimit:
    """Runs calls one after another in its own thread, which is abandoned where a call hangs.

    Args:
        seconds: what a call may take; 0 for no limit, and calls in the caller's thread.

    Attributes:
        on_start: called with the seconds that a call may take, before each call that has a limit. A process
            that another one watches tells it so.
    """

    on_start: ClassVar[Callable[[float], None] | None] = None

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._thread: _Thread | None = None
        self._pending: Future[Any] | None = None
        self._stopped = False
        self._process, self._turn = os.getpid(), threading.Lock()

    def run(self, call: Callable[[], T], times: int = 1) -> T:
        """Return what ``call`` returns, or raise what it raises, within ``times`` the limit.

        Raises:
            TimeoutError: the call takes longer. Python code is interrupted; native code that never returns
                keeps its thread, and ends with the process.
        """
        if not self.seconds:
            return self._run_here(call)
        if self._process != os.getpid():
            # Threads do not survive a fork, and a lock that one held stays locked.
            self._process, self._turn, self._thread = os.getpid(), threading.Lock(), None
        with self._turn:
            if (on_start := type(self).on_start) is not None:
                on_start(times * self.seconds)
            return self._run_in_thread(call, times * self.seconds)

    def _run_here(self, call: Callable[[], T]) -> T:
        self._pending = Future()
        if self._stopped:
            raise KeyboardInterrupt
        return call()

    def _run_in_thread(self, call: Callable[[], T], limit: float) -> T:
        future: Future[T] = Future()
        # Before all else: either ``stop`` finds this call, or the call finds that it is stopped.
        self._pending = future
        if self._stopped:
            raise KeyboardInterrupt
        if self._thread is None:
            self._thread = _Thread()
            weakref.finalize(self, self._thread.calls.put, None)
        self._thread.calls.put((call, future))
        try:
            return future.result(min(limit, threading.TIMEOUT_MAX))
        except TimeoutError as error:
            if future.done():
                # The call raised it, or ended just as the time was up.
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
        """From another thread: interrupt the call at work; it and later calls raise KeyboardInterrupt."""
        self._stopped = True
        if (pending := self._pending) is None:
            return
        with contextlib.suppress(InvalidStateError):
            pending.set_exception(KeyboardInterrupt())
            # Read only now: a thread made later finds the call settled, and does not start it.
            if (thread := self._thread) is not None:
                thread.abandon()


def is_any_abandoned() -> bool:
    """Whether a call that was given up on still runs in this process."""
    return any(thread.name == _ABANDONED for thread in threading.enumerate())


class _Thread(threading.Thread):
    def __init__(self) -> None:
        # A daemon: a call that hangs does not keep the process.
        super().__init__(name="plugin", daemon=True)
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Run calls until None comes, or until the thread is abandoned."""
        with contextlib.suppress(SystemExit):
            while (pending := self.calls.get()) is not None:
                self._run_one(*pending)
                # What the call held on to, an image above all, goes before the next one comes.
                del pending

    def _run_one(self, call: Callable[[], Any], future: Future[Any]) -> None:
        # ``TimeLimit.stop`` has settled it: nobody waits for it any more.
        if future.done():
            return
        with contextlib.suppress(InvalidStateError):
            try:
                answer = call()
            except KeyboardInterrupt as error:
                # Ctrl-C reaches the main thread alone: this one is the plugin's doing.
                future.set_exception(RuntimeError(f"raised {cause_of(error)}"))
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


def translate(subject: str, error: BaseException) -> LeukokitError:
    """Return the error that a user sees for what a plugin raised.

    Args:
        subject: image and plugin, which begin the message, e.g. ``a.png: detector 'yolo'``.
        error: what the plugin raised; a ``LeukokitError`` is returned as it is.
    """
    if isinstance(error, LeukokitError):
        return error
    if isinstance(error, ContractError):
        return PluginError(f"{subject} {error}")
    if type(error).__name__ == "OutOfMemoryError":
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
            return DeviceMemoryError(f"{subject}: the GPU's memory is too small for this image; --device cpu")
    return PluginError(f"{subject} failed ({cause_of(error)})")


class Guard(Generic[Item, Answer]):
    """Asks one plugin for several images at once, and keeps the failure of one from the others.

    Args:
        subject: the plugin in messages, e.g. ``detector 'yolo'``.
        ask: the plugin's answer to several items.
        check: turns the answer into one valid value per item, or raises ``ContractError``.
        name: an item's image, for messages.
        limit: what a call may take, per item.
        on_cpu: the guard of the same plugin on the CPU; None where there is none.
    """

    def __init__(
        self,
        subject: str,
        ask: Callable[[Sequence[Item]], Any],
        check: Callable[[Sequence[Item], Any], list[Answer]],
        name: Callable[[Item], str],
        limit: TimeLimit,
        on_cpu: Callable[[], Guard[Item, Answer] | None] = lambda: None,
    ) -> None:
        self.subject, self.limit = subject, limit
        self._ask, self._check, self._name, self._on_cpu = ask, check, name, on_cpu
        self._most: int | None = None

    def run(self, items: Sequence[Item]) -> list[Answer | LeukokitError]:
        """Return the plugin's answer to each item, or the error that it failed with.

        Where the GPU's memory does not hold all items at once, half as many are tried from then on, and a
        single one is done on the CPU.

        Raises:
            WeightsError: no item's fault; the next would meet it, too.
        """
        answers: list[Answer | LeukokitError] = []
        alone = 0
        while len(answers) < len(items):
            most = 1 if len(answers) < alone else self._most or len(items)
            part = items[len(answers) : len(answers) + most]
            subject = f"{self._name(part[0])}: {self.subject}"
            try:
                answers += self._check(part, self.limit.run(partial(self._ask, part), len(part)))
            except (KeyboardInterrupt, WeightsError):
                raise
            except BaseException as error:
                failure = translate(subject, error)
                if len(part) == 1:
                    answers += self._last_resort(part, failure)
                elif isinstance(failure, DeviceMemoryError):
                    self._most = len(part) // 2
                    _log.warning(
                        "GPU memory does not hold %d images at once: from now on %d", len(part), self._most
                    )
                else:
                    # One of several is to blame: each has its own turn.
                    alone = len(answers) + len(part)
        return answers

    def _last_resort(self, part: Sequence[Item], failure: LeukokitError) -> Sequence[Answer | LeukokitError]:
        if not isinstance(failure, DeviceMemoryError) or (on_cpu := self._on_cpu()) is None:
            return [failure]
        _log.warning("%s: GPU memory is too small for it: done on the CPU", self._name(part[0]))
        return on_cpu.run(part)
