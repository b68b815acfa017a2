"""Standard output that survives its reader, and that plugins do not write to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from leukokit.errors import OutputError


class SafeStream:
    """A text stream that remembers why it cannot be written to, instead of ending what is being done.

    Attributes:
        failure: the first error; nothing is written after it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; letters that the stream's encoding lacks are escaped."""
        if self.failure is None:
            with self._noting_failure():
                encoding = self._stream.encoding or "utf-8"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        if self.failure is None:
            with self._noting_failure():
                self._stream.flush()

    def require_success(self) -> None:
        """Report that output was lost; a reader that closed its end knows.

        Raises:
            OutputError: the output could not be written.
        """
        if self.failure is not None and not isinstance(self.failure, BrokenPipeError):
            raise OutputError(
                f"the output cannot be written ({self.failure.strerror}); free space, or use --out"
            )

    def __getattr__(self, name: str) -> Any:
        # What rich asks of a stream: isatty, encoding, fileno.
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            # What is still in the stream's buffer must not fail again when the process ends.
            with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def private_stdout() -> Iterator[SafeStream]:
    """Yield standard output for the command alone; whatever else is printed goes to standard error.

    Plugins print, and so does the native code that they call.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        private = os.dup(1)
    except OSError:
        # Closed by whoever started the process: there is nothing to protect.
        yield SafeStream(sys.stdout)
        return
    try:
        os.dup2(2, 1)
        with (
            open(
                private, "w", encoding=sys.stdout.encoding, errors="backslashreplace", closefd=False
            ) as stream,
            contextlib.redirect_stdout(sys.stderr),
        ):
            safe = SafeStream(stream)
            yield safe
            safe.flush()
    finally:
        os.dup2(private, 1)
        os.close(private)
