"""What a check watches while a plugin runs: connections, the GPU, memory."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from leukokit.testing.check import require


@contextlib.contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuse connections to other machines and name look-ups; yield a list of the attempts.

    Attempts are listed because a plugin may catch the error. Sockets in the file system, by which processes
    of this machine talk to each other, are allowed.
    """
    tried: list[str] = []
    stored = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(original: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family not in (socket.AF_INET, socket.AF_INET6):
                return original(self, address)
            tried.append(str(address[0]))
            raise OSError(f"no network in this check: connection to {address[0]}")

        return connect

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        tried.append(str(host))
        raise OSError(f"no network in this check: look-up of {host}")

    patched: Any = socket.socket
    patched.connect, patched.connect_ex = guarded(stored[0]), guarded(stored[1])
    socket.getaddrinfo = look_up
    try:
        yield tried
    finally:
        patched.connect, patched.connect_ex = stored[:2]
        socket.getaddrinfo = stored[2]


@contextlib.contextmanager
def no_gpu() -> Iterator[None]:
    """Fail if CUDA is started within the context.

    Raises:
        AssertionError: it was.
    """
    before = _cuda_started()
    yield
    require(before or not _cuda_started(), "started CUDA although its device is 'cpu'")


def _cuda_started() -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def peak_mb() -> float | None:
    """Peak memory of this process so far, in MB; None if the system does not report it."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
