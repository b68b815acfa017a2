"""Shards of a batch, done on several machines, brought together in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from leukokit._text import printable
from leukokit.batch.manifest import LOCK, NAME, Manifest, changes, settings_of
from leukokit.batch.outputs.tables import FILES
from leukokit.batch.shard import Shard
from leukokit.errors import ConfigError, OutputError

OWN_FILES = {*FILES, "cells.parquet", LOCK}
"""What every batch writes anew, and no image is called."""


def merge(folders: Sequence[Path], out: Path, restart: bool) -> tuple[Manifest, list[str]]:
    """Take batches over into ``out``: their results, and the files that writers saved of each image.

    Args:
        folders: output folders of batches that have the same settings but for their shard.
        out: the folder of the whole; holds no batch yet.
        restart: forget one that it holds.

    Returns:
        The manifest of all, open, and a line for each thing that lacks: inputs that were not found, shards.

    Raises:
        ConfigError: no batch in a folder, other settings, an image done twice, ``out`` among them or taken.
        OutputError: something cannot be written.
    """
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise ConfigError(f"{printable(out)}: is one of the batches to merge; choose another --out")
    if (out / NAME).exists() and not restart:
        raise ConfigError(f"{printable(out)}: holds a batch; choose another --out, or use --restart")
    settings = [settings_of(folder) for folder in folders]
    shards = [each.pop("shard", None) for each in settings]
    for folder, other in zip(folders[1:], settings[1:], strict=True):
        if changed := changes(settings[0], other):
            raise ConfigError(
                f"{printable(folder)}: was done with other settings than {printable(folders[0])} "
                f"({'; '.join(changed[:4])}); do one of the two again"
            )
    manifest = Manifest(out, {**settings[0], "shard": None}, restart)
    try:
        parts, not_found = [], []
        for folder in folders:
            facts = manifest.absorb(folder)
            parts.append({"folder": printable(folder), "command": facts.get("command")})
            not_found += facts.get("not_found", [])
        # What shards of one folder did not find, each of them says.
        not_found = list(dict.fromkeys(not_found))
        lacking = [*_lacking(shards), *not_found]
        manifest.remember({**facts, "not_found": not_found, "merged": parts})
        for folder in folders:
            _copy_files(folder, out)
    except BaseException:
        # It would stand in the way of the merge that puts right what was wrong.
        manifest.discard()
        raise
    return manifest, lacking


def _lacking(shards: Sequence[str | None]) -> list[str]:
    found = [Shard.parse(shard) for shard in shards if shard]
    there = {shard.number for shard in found}
    lacking = [str(number) for number in range(1, max((s.of for s in found), default=0) + 1)]
    lacking = [number for number in lacking if int(number) not in there]
    if not lacking:
        return []
    return [f"shard {', '.join(lacking)} of {found[0].of} is not among them: the counts are not complete"]


def _copy_files(folder: Path, out: Path) -> None:
    """Copy what writers saved of the images; hidden files are unfinished ones."""
    try:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            own = inside.as_posix() in OWN_FILES or path.name.startswith(NAME)
            if path.is_file() and not own and not path.name.startswith("."):
                target = out / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    except OSError as error:
        raise OutputError(
            f"{printable(error.filename or out)}: cannot be copied ({error.strerror}); "
            "free space, then merge again"
        ) from error
