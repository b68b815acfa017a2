"""Which files the code of a plugin stands in, and their hash: code changes more often than its version."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Final

_STANDARD: Final = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_OWN_PACKAGE: Final = "leukokit"


def source_sha256(module: str) -> str | None:
    """Return the SHA-256 of a module's source and of what it imports; None if there is no file.

    The files are those of the module's package, or the file of a module on its own, and in turn those of the
    modules that they import from outside the installed packages and the standard library.
    """
    digest = hashlib.sha256()
    files = sorted(_source_files(module))
    try:
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        # Typed in, or out of an archive.
        return None
    return digest.hexdigest() if files else None


def _source_files(module: str) -> set[Path]:
    found: set[Path] = set()
    first = module.partition(".")[0]
    waiting, known = [first], {_OWN_PACKAGE, *sys.stdlib_module_names}
    while waiting:
        top = waiting.pop()
        place = None if top in known else _place_of(top)
        known.add(top)
        # What is installed has a version; the plugin itself counts wherever it lies.
        if place is None or (top != first and _is_installed(place)):
            continue
        files = set(place.rglob("*.py")) if place.is_dir() else {place}
        found |= files
        waiting += [name.partition(".")[0] for file in files for name in _imports(file)]
    return found


def _place_of(top: str) -> Path | None:
    """Return the folder of a top-level package, or the file of a top-level module."""
    loaded = sys.modules.get(top)
    try:
        spec = loaded.__spec__ if loaded else importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    # A script has a file, but no spec.
    origin = spec.origin if spec and spec.has_location else getattr(loaded, "__file__", None)
    return Path(origin).resolve() if origin else None


def _is_installed(place: Path) -> bool:
    return bool(_INSTALLED & set(place.parts)) or any(place.is_relative_to(folder) for folder in _STANDARD)


def _imports(file: Path) -> set[str]:
    """Return the modules that a file imports anywhere in it; none of a file that is not Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names
