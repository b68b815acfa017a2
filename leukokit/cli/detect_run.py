"""The run behind ``leukokit detect``: images one after another, each result printed and saved as it comes."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from leukokit._files import make_folder
from leukokit._text import printable
from leukokit.batch.manifest_files import MANIFEST_NAME
from leukokit.batch.results import open_results
from leukokit.batch.writing import open_writers
from leukokit.cli.consoles import make_console
from leukokit.cli.detect_output import (
    print_classes,
    print_differential,
    print_files,
    print_notes,
    print_row,
)
from leukokit.cli.streams import SafeStream
from leukokit.config import PipelineConfig
from leukokit.differential import differential
from leukokit.errors import ConfigError, FileNameError, LeukokitError, PluginError
from leukokit.images.inputs import find_images
from leukokit.registry import writers
from leukokit.results import SmearResult
from leukokit.writers.base import close_all, write_with
from leukokit.writers.record import ForeignFiles


def split_writer_names(save: str) -> list[str]:
    """Return the names in ``--save``, each once; an empty list for ``none``."""
    names = (name.strip() for name in save.split(","))
    return [name for name in dict.fromkeys(names) if name not in ("", "none")]


class Detection:
    """One run of ``leukokit detect``.

    Args:
        config: the pipeline and the parameters of writers.
        device: as on the command line.
        names: of the writers.
        out: folder for their files.
        overwrite: replace files there that leukokit did not write.

    Attributes:
        exit_code: 0 if every image is done and every file is there; see ``run``.

    Raises:
        ConfigError: ``out`` holds a batch, or a file about all images that leukokit did not write.
        PluginError: there is no such writer.
    """

    def __init__(
        self, config: PipelineConfig, device: str, names: Sequence[str], out: Path, overwrite: bool
    ) -> None:
        self.exit_code = 0
        self._folder = Path.cwd()
        self._out = out
        self._config, self._device = config, device
        # An image that one of its own files cannot be written of must not stand in a table about all.
        names = sorted(names, key=lambda name: not writers.get(name).file_per_image)
        if names:
            if (out / MANIFEST_NAME).exists():
                raise ConfigError(
                    f"{printable(out)}: holds a batch, whose tables would be replaced; choose another --out"
                )
            make_folder(out)
        self._foreign = ForeignFiles(out) if names else None
        self._earlier = set(out.glob("*"))
        protected = () if overwrite or self._foreign is None else self._foreign
        self._writers = open_writers(names, config, out, protected)
        self._refuse_foreign_tables()

    def run(
        self, images: Sequence[str], people: SafeStream, documents: SafeStream | None, quiet: bool
    ) -> None:
        """Process images; print counts for people, or one JSON document per image.

        ``exit_code`` is then 1 if nothing could be done or a file of all images is missing, 3 if some images
        failed, and 130 after Ctrl-C.

        Raises:
            OutputError: the disk is full, or the output cannot be written.
            PluginError: a plugin does not exist or cannot be started.
            WeightsError: a plugin has no network that works.
        """
        console = make_console(people, quiet=quiet)
        found = find_images(images)
        failed, done = len(found.problems), 0
        for problem in found.problems:
            self._report(problem)
        if found.note:
            console.print(found.note, style="dim", markup=False, soft_wrap=True)
        classes: Counter[str] = Counter()
        try:
            with self._closing_writers(), open_results(self._config, self._device) as results_of:
                for result in self._saved(results_of(found.images)):
                    if isinstance(result, LeukokitError):
                        failed += 1
                        self._report(str(result))
                        continue
                    done += 1
                    # Zeros stay: a class without a cell has its row, too.
                    classes.update(result.cells.class_counts)
                    if documents is not None:
                        self._print_document(documents, result)
                    elif not quiet:
                        print_row(console, result, first=done == 1)
                        print_classes(console, result)
                    print_notes(console, result.notes)
                    # The image is let go of before the next one is read.
                    del result
        except KeyboardInterrupt:
            verb = "saved" if self._writers else "done"
            typer.echo(f"stopped: {done} of {len(found.images)} images are {verb}", err=True)
            self.exit_code = 130
            return
        if classes:
            print_differential(console, differential(classes), done)
        if done and not quiet:
            print_files(console, self._writers, self._earlier)
        people.require_success()
        if failed and not self.exit_code:
            self.exit_code = 3 if done else 1

    def _saved(self, results: Iterator[SmearResult | LeukokitError]) -> Iterator[SmearResult | LeukokitError]:
        """Yield each result once it is saved, or what was wrong with its image: no other is lost."""
        for result in results:
            self._return_to_folder()
            if isinstance(result, LeukokitError):
                yield result
                continue
            try:
                self._save(result)
            except (FileNameError, PluginError) as error:
                yield error
            else:
                yield result
            # The image is let go of before the next one is read.
            del result

    def _save(self, result: SmearResult) -> None:
        for writer in self._writers:
            before = len(writer.files)
            try:
                write_with(writer, result)
            finally:
                self._return_to_folder()
                self._record(writer.files[before:])

    @contextlib.contextmanager
    def _closing_writers(self) -> Iterator[None]:
        """Close the writers at the end, whatever happens, and check that every file is there."""
        try:
            yield
        finally:
            before = [len(writer.files) for writer in self._writers]
            errors = [str(error) for error in close_all(self._writers)]
            self._return_to_folder()
            for writer, count in zip(self._writers, before, strict=True):
                self._record(writer.files[count:])
            errors += [
                f"{printable(path)}: is not there any more; something removed it during the run"
                for writer in self._writers
                for path in writer.files
                if not path.exists()
            ]
            for error in errors:
                self._report(error)
                self.exit_code = 1

    def _record(self, files: Sequence[Path]) -> None:
        if self._foreign is not None:
            self._foreign.add(file for file in files if file.is_relative_to(self._out))

    def _refuse_foreign_tables(self) -> None:
        try:
            for writer in self._writers:
                for name in writer.shared_files:
                    writer.require_free(writer.out / name)
        except FileNameError as error:
            close_all(self._writers)
            raise ConfigError(str(error)) from error

    def _return_to_folder(self) -> None:
        """Undo a plugin's change of the current folder, below which relative paths lie."""
        with contextlib.suppress(OSError):
            os.chdir(self._folder)

    def _print_document(self, stream: SafeStream, result: SmearResult) -> None:
        stream.write(json.dumps(result.to_json(), allow_nan=False) + "\n")
        stream.flush()
        if stream.failure is not None and not self._writers:
            # Nobody gets the documents, and nothing else is made of them.
            stream.require_success()
            raise BrokenPipeError

    @staticmethod
    def _report(error: str) -> None:
        with contextlib.suppress(OSError):
            typer.echo(f"error: {printable(error)}", err=True)
