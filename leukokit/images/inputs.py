"""From what a user typed (files, folders, patterns) to the images meant, in one fixed order."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import Final

from leukokit._text import printable
from leukokit.images.places import OWN_STEMS, FoundImage, place
from leukokit.images.png import is_drawn_by_leukokit

__all__ = [
    "IMAGE_SUFFIXES",
    "OWN_PICTURES",
    "OWN_STEMS",
    "FoundImage",
    "FoundImages",
    "find_images",
]

IMAGE_SUFFIXES: Final = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi", ".mpo"),
        *(".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".btf", ".tf8"),
    }
)
"""Suffixes, in lower case, by which folders and patterns know an image; a named file may have any."""

UNREADABLE_SUFFIXES: Final = frozenset(
    {
        *(".heic", ".heif", ".hif", ".avif", ".gif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".psd"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"),
        *(".svs", ".ndpi", ".czi", ".lif", ".vsi", ".scn", ".mrxs", ".nd2", ".oib", ".oif", ".bif", ".dcm"),
    }
)
"""Suffixes of images that are not read; files with these in a folder deserve the user's attention."""

OWN_PICTURES: Final = ".cells.png"
"""Suffix of the pictures that the writer ``png`` makes: folders skip them, and so do patterns without it."""

SYSTEM_FOLDERS: Final = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("lost+found", "__macosx", "network trash folder", "temporary items"),
    }
)
"""Names, in lower case, of folders in which storage devices and operating systems keep copies of images."""
_TRASH: Final = ".trash"

_Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundImages:
    """What ``find_images`` found.

    Attributes:
        images: in the order of the arguments, within one argument sorted by path; no file twice.
        problems: one line for each argument, folder or link that gave nothing: what, where, what to do.
        skipped: number of files in folders that are not images by their names, by suffix.
        skipped_folders: number of folders of the operating system or storage device, by name.
    """

    images: tuple[FoundImage, ...]
    problems: tuple[str, ...]
    skipped: tuple[tuple[str, int], ...] = ()
    skipped_folders: tuple[tuple[str, int], ...] = ()

    @property
    def unreadable(self) -> tuple[tuple[str, int], ...]:
        """The part of ``skipped`` that holds images of formats that are not read."""
        return tuple((suffix, count) for suffix, count in self.skipped if suffix in UNREADABLE_SUFFIXES)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what was skipped; the first is the most important one."""
        others = [entry for entry in self.skipped if entry not in self.unreadable]
        texts = (
            ("images left out, of a format that is not read (export them as TIFF or PNG)", self.unreadable),
            ("files skipped, which are not images by their names", others),
            ("folders of the system skipped", self.skipped_folders),
        )
        return tuple(
            f"{text}: " + ", ".join(f"{count} {printable(name)}" for name, count in entries)
            for text, entries in texts
            if entries
        )

    @property
    def note(self) -> str:
        """The notes in one line; empty where nothing was skipped."""
        return "; ".join(self.notes)


@dataclass(slots=True)
class _Search:
    """What a search comes upon beside images: problems, and (real folder, name) of what it skips."""

    problems: list[str] = field(default_factory=list)
    skipped: set[tuple[str, str]] = field(default_factory=set)
    skipped_folders: set[tuple[str, str]] = field(default_factory=set)


def find_images(arguments: Sequence[str | Path]) -> FoundImages:
    """Find the images that files, folders and patterns name; one that cannot be found never stops the rest.

    Args:
        arguments: each a file (any suffix), a folder (searched with its subfolders for ``IMAGE_SUFFIXES``;
            linked folders are followed, each folder once) or, where no such file exists, a pattern of ``*``,
            ``?``, ``[...]`` and ``**`` (any folders); a folder that matches a pattern is searched as if
            named. Folders and patterns skip hidden names, ``SYSTEM_FOLDERS`` and pictures drawn by leukokit.

    Two names are one file where they are equal and lie in the same real folder.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.jpg", "b.TIF", "notes.txt"):
        ...         _ = (Path(folder) / name).write_bytes(b"...")
        ...     found = find_images([folder])
        >>> [image.stem_path.as_posix() for image in found.images]
        ['a', 'b']
        >>> found.note
        'files skipped, which are not images by their names: 1 .txt'
    """
    images: list[FoundImage] = []
    search = _Search()
    known: set[tuple[str, str]] = set()
    for argument in arguments:
        for image in _of_argument(argument, search):
            identity = (os.path.realpath(image.path.parent), image.path.name)
            if identity not in known:
                known.add(identity)
                images.append(image)
    return FoundImages(
        tuple(place(images)),
        tuple(dict.fromkeys(search.problems)),
        tuple(sorted(Counter(_suffix(name) for _, name in search.skipped).items())),
        tuple(sorted(Counter(name for _, name in search.skipped_folders).items())),
    )


def _of_argument(argument: str | Path, search: _Search) -> list[FoundImage]:
    if not str(argument):
        search.problems.append("an empty name was given; name a file, a folder or a pattern")
        return []
    path = Path(argument)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if has_magic(str(argument)):
            return _of_pattern(path, search)
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file or folder" if missing else f"cannot be read ({_reason(error)})"
        search.problems.append(f"{printable(path)}: {reason}; check the path")
        return []
    if not stat.S_ISDIR(mode):
        return [FoundImage(path, path.parent)]
    before = len(search.problems)
    found = _images(path, sorted(_walk(path, search, _everywhere, _is_photograph)), search)
    if not found and len(search.problems) == before:
        search.problems.append(f"{printable(path)}: folder without images; those end in {_suffix_list()}")
    return found


def _of_pattern(pattern: Path, search: _Search) -> list[FoundImage]:
    fixed = next(index for index, part in enumerate(pattern.parts) if has_magic(part))
    root, wanted = Path(*pattern.parts[:fixed]), pattern.parts[fixed:]
    before = len(search.problems)
    found: list[FoundImage] = []
    if root.is_dir():
        accepts = _is_image if wanted[-1].casefold().endswith(OWN_PICTURES) else _is_photograph
        # Whoever wrote a pattern wants to leave out what it leaves out: that is not reported.
        own = _Search(search.problems)
        below = sorted(_walk(root, own, lambda parts: _may_match(parts, wanted), accepts))
        # A folder that matches stands for all that is in it, as when the shell expands the pattern.
        matching = [
            (parts, exists)
            for parts, exists in below
            if any(_matches(parts[:length], wanted) for length in range(1, len(parts) + 1))
        ]
        found = _images(root, matching, search)
    if not found and len(search.problems) == before:
        search.problems.append(
            f"{printable(pattern)}: no image matches this pattern ({_suffix_list()}); check it"
        )
    return found


def _images(root: Path, below: Sequence[tuple[_Parts, bool]], search: _Search) -> list[FoundImage]:
    """Return what ``_walk`` yielded as images; links to nothing become problems."""
    search.problems += [
        f"{printable(root.joinpath(*parts))}: link that leads to nothing; check it"
        for parts, exists in below
        if not exists
    ]
    return [FoundImage(root.joinpath(*parts), root) for parts, exists in below if exists]


def _walk(
    root: Path, search: _Search, enter: Callable[[_Parts], bool], accepts: Callable[[Path], bool]
) -> Iterator[tuple[_Parts, bool]]:
    """Yield the parts of the paths below ``root`` of files that ``accepts`` takes, each real folder once.

    Links to nothing that may have led to images are among them; the second value says whether it exists.
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
            search.problems.append(
                f"{printable(folder)}: folder cannot be read ({_reason(error)}); check its permissions"
            )
            continue
        for entry in listed:
            below = (*parts, entry.name)
            is_folder = _is_true(entry.is_dir)
            if is_folder and _is_of_system(entry.name):
                search.skipped_folders.add((real, entry.name))
            elif entry.name.startswith("."):
                continue
            elif is_folder:
                if enter(below):
                    folders.append(below)
            elif _is_true(entry.is_file):
                if accepts(Path(entry.path)):
                    yield below, True
                else:
                    search.skipped.add((real, entry.name))
            elif entry.is_symlink() and _may_be_image(entry.name):
                yield below, False


def _is_of_system(name: str) -> bool:
    return name.casefold() in SYSTEM_FOLDERS or name.casefold().startswith(_TRASH)


def _may_be_image(name: str) -> bool:
    """Whether a link of that name was one to an image or, without a suffix, to a folder."""
    return _is_image(Path(name)) or not Path(name).suffix


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("~$")


def _is_photograph(path: Path) -> bool:
    if not _is_image(path) or path.name.casefold().endswith(OWN_PICTURES):
        return False
    return path.suffix.lower() != ".png" or not is_drawn_by_leukokit(path)


def _suffix(name: str) -> str:
    if not _is_image(Path(name)):
        return Path(name).suffix.lower() or "without a suffix"
    return OWN_PICTURES if name.casefold().endswith(OWN_PICTURES) else "drawn by leukokit"


def _is_true(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a link in a circle is neither file nor folder
        return False


def _everywhere(_: _Parts) -> bool:
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


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _suffix_list() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
