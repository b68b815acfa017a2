"""Foreign code is given up on after its time, whatever it does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from leukokit import _guard
from leukokit._guard import TimeLimit, is_any_abandoned


def test_what_is_in_time_is_returned_and_raised() -> None:
    limit = TimeLimit(30)
    assert [limit.run(lambda: threading.current_thread().name) for _ in range(2)] == ["plugin", "plugin"]
    with pytest.raises(ZeroDivisionError):
        limit.run(lambda: 1 // 0)
    with pytest.raises(TimeoutError, match="its own"):
        limit.run(lambda: (_ for _ in ()).throw(TimeoutError("its own")))
    assert limit.run(lambda: 3) == 3


def test_without_a_limit_it_is_the_callers_own_thread() -> None:
    assert TimeLimit(0).run(threading.current_thread) is threading.current_thread()


def test_a_call_that_waits_is_left_behind() -> None:
    limit, freed = TimeLimit(0.1), threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"longer than 0\.2 s"):
        limit.run(lambda: freed.wait(60), times=2)
    assert time.monotonic() - started < 20
    assert limit.run(lambda: "next") == "next"
    freed.set()


def test_a_call_that_computes_is_interrupted() -> None:
    ended = threading.Event()

    def compute() -> None:
        try:
            while True:
                pass
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        TimeLimit(0.1).run(compute)
    assert ended.wait(20)


def test_a_call_is_stopped_from_another_thread() -> None:
    limit, begun, freed = TimeLimit(60), threading.Event(), threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        begun.set()
        freed.wait(60)

    def ask() -> None:
        try:
            limit.run(wait)
        except BaseException as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(20)
    limit.stop()
    asking.join(20)
    assert [type(error) for error in ended] == [KeyboardInterrupt]
    assert is_any_abandoned()
    with pytest.raises(KeyboardInterrupt):
        limit.run(lambda: 3)
    freed.set()


def test_a_stop_while_the_first_call_is_handed_over_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, called = TimeLimit(60), list[int]()

    class Late(_guard._Thread):
        def __init__(self) -> None:
            limit.stop()
            super().__init__()

    monkeypatch.setattr(_guard, "_Thread", Late)
    with pytest.raises(KeyboardInterrupt):
        limit.run(lambda: called.append(1))
    assert limit._thread is not None
    limit._thread.calls.put(None)
    limit._thread.join(20)
    assert not called


def test_a_call_that_ends_as_its_time_is_up_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class JustInTime(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            answer = super().result()
            if timeout is not None:
                raise TimeoutError
            return answer

    monkeypatch.setattr(_guard, "Future", JustInTime)
    assert TimeLimit(60).run(lambda: 3) == 3


def test_a_thread_ends_with_its_limit() -> None:
    limit = TimeLimit(30)
    thread = limit.run(threading.current_thread)
    del limit
    thread.join(20)
    assert not thread.is_alive()
