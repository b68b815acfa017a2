"""What all tests share."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Let what tests start hear Ctrl-C, also where they run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
