"""Running the review page until the user stops it."""

from __future__ import annotations

import contextlib
import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer
from typing import Final

from leukokit.errors import ConfigError
from leukokit.review.session import ReviewSession

HOST: Final = "127.0.0.1"


def serve_review(
    results: Path,
    labels: Sequence[str] = (),
    port: int = 0,
    open_browser: bool = True,
    on_ready: Callable[[str], object] = print,
) -> None:
    """Serve the review page of a batch on this machine until Ctrl-C, then write its results.

    Args:
        results: folder that ``leukokit batch`` wrote.
        labels: further labels of the laboratory.
        port: where to listen; 0 takes any free port.
        open_browser: also open the page.
        on_ready: called once with the page's address, which holds the token.

    Raises:
        ConfigError: no finished batch, or the port is taken.
        OutputError: decisions cannot be stored in the folder.
    """
    import uvicorn

    from leukokit.review.server import ReviewServer

    session = ReviewSession(results, labels)
    try:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((HOST, port))
                # From here on a browser that comes early waits, and is not refused.
                listening.listen()
            except OSError as error:
                raise ConfigError(f"--port {port}: {error.strerror}; choose another, or none") from error
            token, taken = secrets.token_urlsafe(24), listening.getsockname()[1]
            address = f"http://{HOST}:{taken}/?token={token}"
            server = ReviewServer(session, token, taken)
            config = uvicorn.Config(server.app, log_level="error", access_log=False, lifespan="off")
            on_ready(address)
            if open_browser:
                Timer(0.5, webbrowser.open, [address]).start()
            # After Ctrl-C uvicorn shuts down, and then passes the signal on.
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
        session.finish()
    finally:
        session.close()
