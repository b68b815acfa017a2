"""From what a user typed (files, folders, patterns) to the images meant, in one fixed order.

Results mirror the images' places: an image is written under ``stem_path``, its path below the root it was
found under, without the suffix. No two images found together share a ``stem_path``:

- where images were found under several roots (``a/x.png b/y.png``), all of them are placed relative to the
  nearest common folder of these: ``a/x`` and ``b/y``;
- images of one folder with one stem (``x.png x.jpg``) keep their suffixes: ``x.png`` and ``x.jpg``; so do
  those that are called as a file over all images is (``OWN_STEMS``).

Names compare without regard to case, because the output's file system may do so.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import Final

from leukokit._text import printable

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Suffixes, in lower case, by which folders and patterns know an image; a named file may have any."""

OWN_STEMS: Final = frozenset(
    {"cells", "classes", "coco", "counts", "differential", "failures", "report", "run"}
)
"""Stems of files over all images: an image of that name keeps its suffix, never ``run.json``."""

OWN_PICTURES: Final = ".cells.png"
"""How pictures end that the writer ``png`` makes: folders pass them over, and patterns that do not end so."""

_Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file and where it was found.

    Attributes:
        path: the file, spelled as the user began it.
        root: the folder its results are placed relative to.
        keeps_suffix: whether another found image would share its ``stem_path`` otherwise.
    """

    path: Path
    root: Path
    keeps_suffix: bool = False

    @property
    def relative(self) -> Path:
        """``path`` relative to ``root``."""
        return _absolute(self.path).relative_to(_absolute(self.root))

    @property
    def stem_path(self) -> Path:
        """Relative path that results are named after: add ``.json`` to its name, never replace a suffix."""
        relative = self.relative
        return relative if self.keeps_suffix else relative.with_name(relative.stem)


@dataclass(frozen=True, slots=True)
class FoundImages:
    """What ``find_images`` found.

    Attributes:
        images: in the order of the arguments, within one sorted by path; no file twice.
        problems: one line for each argument, folder or link that gave nothing: what, where, what to do.
        passed_over: how many files of folders are no images by their names, by how these end.
    """

    images: tuple[FoundImage, ...]
    problems: tuple[str, ...]
    passed_over: tuple[tuple[str, int], ...] = ()

    @property
    def note(self) -> str:
        """What was passed over, for people; empty where nothing was."""
        if not self.passed_over:
            return ""
        endings = ", ".join(f"{count} {ending}" for ending, count in self.passed_over)
        return f"files passed over, being no images by their names: {endings}"


def find_images(arguments: Sequence[str | Path]) -> FoundImages:
    """Find the images that files, folders and patterns name; what cannot be found never stops the rest.

    Args:
        arguments: each a file (any suffix), a folder (searched with its subfolders for ``IMAGE_SUFFIXES``;
            hidden names and ``OWN_PICTURES`` skipped, linked folders followed, each folder once) or, where
            no such file is, a pattern of ``*``, ``?``, ``[...]`` and ``**`` (any folders); a folder that
            matches a pattern is searched as if named.

    A file is the same as another if it has the same name in the same real folder.
    """
    images: list[FoundImage] = []
    problems: list[str] = []
    passed: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for argument in arguments:
        for image in _of_argument(argument, problems, passed):
            identity = (os.path.realpath(image.path.parent), image.path.name)
            if identity not in seen:
                seen.add(identity)
                images.append(image)
    once = dict.fromkeys(problems)
    endings = tuple(sorted(Counter(_ending(name) for _, name in passed).items()))
    return FoundImages(tuple(_with_own_stems(_with_common_root(images))), tuple(once), endings)


def _of_argument(argument: str | Path, problems: list[str], passed: set[tuple[str, str]]) -> list[FoundImage]:
    if not str(argument):
        problems.append("an empty name was given; name a file, a folder or a pattern")
        return []
    path = Path(argument)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if has_magic(str(argument)):
            return _of_pattern(path, problems)
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file or folder" if missing else f"cannot be read ({_reason(error)})"
        problems.append(f"{printable(path)}: {reason}; check the path")
        return []
    if not stat.S_ISDIR(mode):
        return [FoundImage(path, path.parent)]
    known = len(problems)
    found = _images(path, sorted(_walk(path, problems, _everywhere, _is_photograph, passed)), problems)
    if not found and len(problems) == known:
        problems.append(f"{printable(path)}: folder without images; those are named {_suffix_list()}")
    return found


def _of_pattern(pattern: Path, problems: list[str]) -> list[FoundImage]:
    fixed = next(index for index, part in enumerate(pattern.parts) if has_magic(part))
    root, wanted = Path(*pattern.parts[:fixed]), pattern.parts[fixed:]
    known = len(problems)
    found: list[FoundImage] = []
    if root.is_dir():
        accepts = _is_image if wanted[-1].casefold().endswith(OWN_PICTURES) else _is_photograph
        # What a pattern leaves out is what whoever wrote it wanted to leave out.
        below = sorted(_walk(root, problems, lambda parts: _may_match(parts, wanted), accepts, set()))
        # A folder that matches stands for all that is in it, as when the shell expands the pattern.
        matching = [
            (parts, there)
            for parts, there in below
            if any(_matches(parts[:length], wanted) for length in range(1, len(parts) + 1))
        ]
        found = _images(root, matching, problems)
    if not found and len(problems) == known:
        problems.append(f"{printable(pattern)}: pattern without an image ({_suffix_list()}); check it")
    return found


def _images(root: Path, below: Sequence[tuple[_Parts, bool]], problems: list[str]) -> list[FoundImage]:
    """What ``_walk`` came upon: the images; of links to nothing it is said that they are."""
    problems += [
        f"{printable(root.joinpath(*parts))}: link that leads to nothing; check it"
        for parts, there in below
        if not there
    ]
    return [FoundImage(root.joinpath(*parts), root) for parts, there in below if there]


def _walk(
    root: Path,
    problems: list[str],
    enter: Callable[[_Parts], bool],
    accepts: Callable[[str], bool],
    passed: set[tuple[str, str]],
) -> Iterator[tuple[_Parts, bool]]:
    """Paths below ``root``, as their parts, of files whose name ``accepts`` takes; each real folder once.

    Links to nothing that may have led to images are among them; the second of each says whether it is there.
    """
    folders: list[_Parts] = [()]
    entered: set[str] = set()
    while folders:
        parts = folders.pop()
        folder = root.joinpath(*parts)
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            problems.append(
                f"{printable(folder)}: folder cannot be read ({_reason(error)}); check its permissions"
            )
            continue
        for entry in listed:
            below = (*parts, entry.name)
            if entry.name.startswith("."):
                continue
            if _is(entry.is_dir):
                if enter(below):
                    folders.append(below)
            elif _is(entry.is_file):
                if accepts(entry.name):
                    yield below, True
                else:
                    passed.add((real, entry.name))
            elif entry.is_symlink() and _may_be_image(entry.name):
                yield below, False


def _may_be_image(name: str) -> bool:
    """Whether a link of that name was one to an image or, without a suffix, to a folder."""
    return _is_image(name) or not Path(name).suffix


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_photograph(name: str) -> bool:
    return _is_image(name) and not name.casefold().endswith(OWN_PICTURES)


def _ending(name: str) -> str:
    return OWN_PICTURES if _is_image(name) else Path(name).suffix.lower() or "without an ending"


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a link in a circle is neither file nor folder
        return False


def _everywhere(parts: _Parts) -> bool:
    return True


def _matches(parts: _Parts, pattern: _Parts) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_match(parts: _Parts, pattern: _Parts) -> bool:
    """Whether something in the folder ``parts``, or the folder itself, can match ``pattern``."""
    if not parts or not pattern or pattern[0] == "**":
        return True
    return fnmatch(parts[0], pattern[0]) and _may_match(parts[1:], pattern[1:])


def _with_common_root(images: list[FoundImage]) -> list[FoundImage]:
    roots = {_absolute(image.root) for image in images}
    if len(roots) < 2:
        return images
    # Whatever the names: those of an image's results are not to depend on what else is in the folders.
    common = Path(os.path.commonpath(roots))
    return [replace(image, root=common) for image in images]


def _with_own_stems(images: list[FoundImage]) -> list[FoundImage]:
    images = [replace(i, keeps_suffix=True) if _folded(i.stem_path) in OWN_STEMS else i for i in images]
    while True:
        stems = Counter(_folded(image.stem_path) for image in images)
        # x.png and x.jpg keep theirs, and so then does x.png.jpg, whose stem is x.png.
        kept = [
            image if stems[_folded(image.stem_path)] == 1 else replace(image, keeps_suffix=True)
            for image in images
        ]
        if kept == images:
            return images
        images = kept


def _absolute(path: Path) -> Path:
    # Not Path.resolve, which leaves the folder for the target of a linked image.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _folded(path: Path) -> str:
    return path.as_posix().casefold()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _suffix_list() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
