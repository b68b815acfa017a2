"""The contract of a writer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from leukokit._files import write_atomically, write_error
from leukokit._text import printable
from leukokit.errors import FileNameError, LeukokitError, OutputError, PluginError, cause_of
from leukokit.plugin import P_co, Plugin
from leukokit.results import SmearResult


class Writer(Plugin[P_co], ABC):
    """Saves results one by one, so that memory does not grow with their number. A context manager.

    Args:
        params: the plugin's parameters; None for its defaults.
        out: folder to write under; exists.

    Attributes:
        files: what has been written so far.
        protected: paths below ``out``, with forward slashes, that ``save`` does not replace.
        shared_files: names, below ``out``, of the files about all images.
        file_per_image: whether ``write`` finishes the files of its image, so that a stopped batch can go on;
            False where a file holds all images.
    """

    file_per_image: ClassVar[bool] = True
    shared_files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, out: Path, params: P_co | None = None) -> None:
        super().__init__(params)
        self.out = out
        self.files: list[Path] = []
        self.protected: Container[str] = ()

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
            raise write_error(path, error) from error
        return path

    def require_free(self, path: Path) -> None:
        """Refuse to replace a file that is protected.

        Raises:
            FileNameError: it is.
        """
        if path.is_relative_to(self.out) and path.relative_to(self.out).as_posix() in self.protected:
            raise FileNameError(
                f"{printable(path)}: exists, and leukokit did not write it; "
                "choose another --out, or replace it with --overwrite"
            )

    def save(self, path: Path, content: bytes | str) -> None:
        """Write a file whole or not at all, and list it in ``files``.

        Raises:
            FileNameError: the file cannot have this name, or is protected.
            OutputError: the disk is full, the folder may not be written to, ...
        """
        self.require_free(path)
        write_atomically(path, content)
        self.files.append(path)


def write_with(writer: Writer, result: SmearResult) -> None:
    """Have a writer save a result.

    Raises:
        OutputError: it cannot be written.
        PluginError: the writer failed on it, or would have ended the process.
    """
    try:
        writer.write(result)
    except (OutputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        image = printable(result.smear.path or result.output_stem)
        raise PluginError(f"{image}: writer '{writer.name}' failed ({cause_of(error)})") from error


def close_with(writer: Writer) -> None:
    """Have a writer finish.

    Raises:
        LeukokitError: as the writer raises it, e.g. ``OutputError``.
        PluginError: the writer failed, or would have ended the process.
    """
    try:
        writer.close()
    except (LeukokitError, KeyboardInterrupt):
        raise
    except BaseException as error:
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
