"""Shards of a batch, done on several machines, joined in one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from leukokit._files import make_folder
from leukokit._text import printable
from leukokit.batch.manifest import Manifest
from leukokit.batch.manifest_files import LOCK, MANIFEST_NAME, PARTS, changes, settings_of
from leukokit.batch.outputs.tables import FILES, PARQUET
from leukokit.batch.outputs.write import OutputOptions, require_classifier, require_free_tables, write_outputs
from leukokit.batch.shard import Shard
from leukokit.batch.summary import BatchSummary
from leukokit.errors import ConfigError, OutputError

OWN_FILES: Final = frozenset({*FILES, *PARTS, PARQUET, LOCK})
"""What every batch writes anew, and no image is called."""
_ASIDE: Final = ".before-merge"


def merge_shards(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    group_by: str | None = None,
    target: int | None = None,
    parquet: bool = False,
    bom: bool = False,
    restart: bool = False,
    command: str | None = None,
) -> BatchSummary:
    """Join the shards of a batch: tables, report and files as one run over all images writes them.

    >>> import tempfile
    >>> from leukokit.batch import BatchOptions, merge_shards, run_batch
    >>> parts = [tempfile.mkdtemp() for _ in range(2)]
    >>> for number, part in enumerate(parts, 1):
    ...     _ = run_batch("examples/smear.png", part, options=BatchOptions(shard=f"{number}/2"))
    >>> merge_shards(parts, tempfile.mkdtemp()).whole.done
    1

    Args:
        shards: output folders of batches that have the same settings but for their shard; may be read-only.
        out: folder for the whole; holds no batch yet.
        group_by: count images together by ``folder``, or by a regular expression on their path.
        target: leukocytes that each differential count should have.
        parquet: also write ``cells.parquet``; needs pyarrow.
        bom: start CSV files with a byte order mark, by which Excel on Windows knows their encoding.
        restart: replace a batch that ``out`` holds; it stays where the merge is refused.
        command: the command line, for the record.

    Raises:
        ConfigError: no batch in a folder, other settings, an image done twice, ``out`` among them or taken.
        OutputError: something cannot be written.
    """
    folders = [Path(os.path.abspath(shard)) for shard in shards]  # noqa: PTH100
    out = Path(os.path.abspath(out))  # noqa: PTH100
    outputs = OutputOptions.checked(group_by, target, parquet, bom)
    settings = [settings_of(folder) for folder in folders]
    require_classifier(target, all(each.get("classifier") for each in settings))
    require_free_tables(out, restart)
    manifest, problems = _join(folders, settings, out, restart)
    with manifest:
        return write_outputs(manifest, outputs, {"command": command}, problems)


def _join(
    folders: Sequence[Path], settings: Sequence[dict[str, Any]], out: Path, restart: bool
) -> tuple[Manifest, list[str]]:
    """The manifest of all, open, and a line for each thing that is missing: inputs, shards, images."""
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise ConfigError(f"{printable(out)}: is one of the batches to merge; choose another --out")
    if (out / MANIFEST_NAME).exists() and not restart:
        raise ConfigError(f"{printable(out)}: holds a batch; choose another --out, or use --restart")
    shards = [each.pop("shard", None) for each in settings]
    for folder, other in zip(folders[1:], settings[1:], strict=True):
        if changed := changes(settings[0], other):
            raise ConfigError(
                f"{printable(folder)}: was done with other settings than {printable(folders[0])} "
                f"({'; '.join(changed[:4])}); do one of the two again"
            )
    with _set_aside(out):
        manifest = Manifest(out, {**settings[0], "shard": None})
        try:
            all_facts = [manifest.absorb(folder) for folder in folders]
            # What shards of one folder did not find, each of them says.
            not_found = _once(all_facts, "not_found")
            manifest.remember(
                {
                    **all_facts[-1],
                    "not_found": not_found,
                    "input_notes": _once(all_facts, "input_notes"),
                    "merged": [
                        {"folder": printable(folder), "command": facts.get("command")}
                        for folder, facts in zip(folders, all_facts, strict=True)
                    ],
                }
            )
            for folder in folders:
                _copy_files(folder, out)
        except BaseException:
            # It would stand in the way of the merge that puts right what was wrong.
            manifest.discard()
            raise
    return manifest, [*_missing_shards(shards), *_other_images(folders, all_facts), *not_found]


@contextmanager
def _set_aside(out: Path) -> Iterator[None]:
    """Let a new manifest take the place of one in the folder, which returns where that fails."""
    make_folder(out)
    present = [name for name in PARTS if (out / name).exists()]
    for name in present:
        (out / name).replace(out / f"{name}{_ASIDE}")
    try:
        yield
    except BaseException:
        for name in present:
            (out / f"{name}{_ASIDE}").replace(out / name)
        raise
    for name in present:
        (out / f"{name}{_ASIDE}").unlink(missing_ok=True)


def _once(all_facts: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(line for facts in all_facts for line in facts.get(key, [])))


def _missing_shards(shards: Sequence[str | None]) -> list[str]:
    found = [Shard.parse(shard) for shard in shards if shard]
    numbers = {shard.number for shard in found}
    of = max((shard.of for shard in found), default=0)
    missing = [str(number) for number in range(1, of + 1) if number not in numbers]
    if not missing:
        return []
    return [f"shard {', '.join(missing)} of {of} is not among them: the counts are not complete"]


def _other_images(folders: Sequence[Path], all_facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each shard that was made of other images than most: it lacks some, or has too many."""
    made_of = [facts.get("all_images") or {} for facts in all_facts]
    largest = max(made_of, key=lambda images: images.get("count", 0))
    return [
        f"{printable(folder)}: was made when there were {images.get('count', '?')} images, "
        f"another shard with {largest.get('count', '?')}: the counts are not complete; "
        "run its command again, then merge"
        for folder, images in zip(folders, made_of, strict=True)
        if images != largest
    ]


def _copy_files(folder: Path, out: Path) -> None:
    """Copy what writers saved of the images; hidden files are unfinished ones."""
    try:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            is_own = inside.as_posix() in OWN_FILES
            if path.is_file() and not is_own and not path.name.startswith("."):
                target = out / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    except OSError as error:
        raise OutputError(
            f"{printable(error.filename or out)}: cannot be copied ({error.strerror}); "
            "free space, then merge again"
        ) from error
