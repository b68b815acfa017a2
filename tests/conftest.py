"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from leukokit.registry import isolated


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Let what tests start hear Ctrl-C, also where they run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_plugins() -> Iterator[None]:
    """Forget after each test the plugins that it registered."""
    with isolated():
        yield
