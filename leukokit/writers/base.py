"""The contract of a writer."""

from __future__ import annotations

import contextlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from leukokit.errors import LeukokitError, OutputError, PluginError, cause_of
from leukokit.plugin import Plugin, PluginParams
from leukokit.results import SmearResult
from leukokit.smear import shown


class Writer(Plugin, ABC):
    """Saves results one by one, so that memory does not grow with their number. A context manager.

    Args:
        params: the plugin's parameters; None for its defaults.
        out: folder to write under; exists.

    Attributes:
        files: what has been written so far.
        file_an_image: whether ``write`` finishes the files of its image, so that a stopped batch can go on;
            False where a file holds all images.
    """

    file_an_image: ClassVar[bool] = True

    def __init__(self, out: Path, params: PluginParams | None = None) -> None:
        super().__init__(params)
        self.out = out
        self.files: list[Path] = []

    @abstractmethod
    def write(self, result: SmearResult) -> None:
        """Save one result."""

    def close(self) -> None:
        """Finish what is written over all results. Called once, also after a failure."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def path_for(self, result: SmearResult, suffix: str) -> Path:
        """Where the file of one image goes: the input's relative path under ``out``, with ``suffix``.

        Raises:
            OutputError: its folder cannot be made.
        """
        path = self.out / result.output_stem.with_name(result.output_stem.name + suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path

    def save(self, path: Path, content: bytes | str) -> None:
        """Write a file whole or not at all, and list it in ``files``.

        Raises:
            OutputError: the disk is full, the folder may not be written to, ...
        """
        write_whole(path, content)
        self.files.append(path)


def write_with(writer: Writer, result: SmearResult) -> None:
    """Have a writer save a result.

    Raises:
        OutputError: it cannot be written.
        PluginError: the writer failed on it, or would have ended the process.
    """
    try:
        writer.write(result)
    except OutputError:
        raise
    except (Exception, SystemExit) as error:
        image = shown(result.smear.path or result.output_stem)
        raise PluginError(f"{image}: writer '{writer.name}' failed ({cause_of(error)})") from error


def close_with(writer: Writer) -> None:
    """Have a writer finish.

    Raises:
        LeukokitError: as the writer raises it, e.g. ``OutputError``.
        PluginError: the writer failed, or would have ended the process.
    """
    try:
        writer.close()
    except LeukokitError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"writer '{writer.name}' failed at its end ({cause_of(error)})") from error


def close_all(writers: Sequence[Writer]) -> list[LeukokitError]:
    """Have writers finish, each whatever another raises; returns what they raised."""
    errors = []
    for writer in writers:
        try:
            close_with(writer)
        except LeukokitError as error:
            errors.append(error)
    return errors


def partial_of(path: Path) -> Path:
    """What a file is called while it is written; not by two processes the same."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove_partials(folder: Path) -> None:
    """Remove files that were never finished, because what wrote them was killed; nothing writes there now."""
    for path in folder.glob(".*.part"):
        if re.search(r"\.\d+\.part$", path.name):
            # One that stays is in nobody's way.
            with contextlib.suppress(OSError):
                path.unlink()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader never sees half a file.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = partial_of(path)
    try:
        # A name on disk may hold bytes that are no text; JSON reads them back from the escape.
        partial.write_bytes(
            content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error that says which file could not be written, and why."""
    return OutputError(f"{path}: cannot be written ({error.strerror}); free space or choose another --out")


def make_folder(out: Path) -> None:
    """Make an output folder, where it is not there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot make the folder ({error.strerror}); choose another --out"
        ) from error
