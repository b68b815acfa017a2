"""The first files of a new plugin: a package that installs and passes its tests, or a single file."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from pathlib import Path
from string import Template
from typing import Final, Literal

from leukokit import __version__
from leukokit.errors import ConfigError, OutputError
from leukokit.plugin import API_VERSION
from leukokit.registry import ALL, Registry

TEMPLATES: Final = Path(__file__).parent / "templates"
NewKind = Literal["detector", "graph-builder", "classifier", "writer"]
NEW_KINDS: Final[tuple[NewKind, ...]] = ("detector", "graph-builder", "classifier", "writer")

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
# 'all' stands for every package where plugins are switched off.
_NO_NAMES = ("all", "none", "leukokit")
_USE: Final[dict[str, str]] = {
    "detector": "--detector {name}",
    "graph-builder": "--graph {name}",
    "classifier": "--classifier {name}",
    "writer": "--save {name}",
}


def package_files(kind: NewKind, name: str) -> dict[str, str]:
    """Text of every file of a package ``leukokit-NAME``, by its path within the package's folder.

    Raises:
        ConfigError: ``name`` is not a valid name for a plugin.
    """
    values = _values(kind, name)
    values["docstring"] = f"The {values['kind']} ``{name}``."
    module = values["module"]
    return {
        "pyproject.toml": _rendered("pyproject.toml", values),
        "README.md": _rendered("README.md", values),
        f"src/{module}/__init__.py": _rendered("init.py", values),
        f"src/{module}/plugin.py": _rendered(f"{kind}.py", values),
        f"tests/test_{name.replace('-', '_')}.py": _rendered("test.py", values),
    }


def file_text(kind: NewKind, name: str) -> str:
    """Text of a single file for ``--plugin``.

    Raises:
        ConfigError: ``name`` is not a valid name for a plugin.
    """
    values = _values(kind, name)
    file = _file_name(name)
    use = f"leukokit detect smear.png --plugin {file} {_USE[kind].format(name=name)}"
    values["docstring"] = (
        f"The {values['kind']} ``{name}`` in one file. To use it, and to check it:\n\n"
        f"    {use}\n    leukokit plugins check {file}\n\n"
        "A package is found without --plugin: 'leukokit plugins new' without --single-file makes one.\n"
    )
    values["register"] = ", register"
    values["decorator"] = "@register\n"
    return _rendered(f"{kind}.py", values)


def create(kind: NewKind, name: str, out: Path, single_file: bool = False) -> Path:
    """Write the first files of a plugin; all of them or none.

    Args:
        kind: of the plugin.
        name: of the plugin: lower-case letters, digits and single hyphens.
        out: folder to put it into; created if it does not exist.
        single_file: whether to write one file instead of a package.

    Returns:
        The package's folder, or the file.

    Raises:
        ConfigError: the name is not valid, or is taken.
        OutputError: the target exists, or cannot be written.
    """
    _refuse_taken(kind, name, single_file)
    target = out / (_file_name(name) if single_file else f"leukokit-{name}")
    if target.exists() or target.is_symlink():
        raise OutputError(f"{target} exists already; choose another --out, or move it away")
    files = {"": file_text(kind, name)} if single_file else package_files(kind, name)
    partial = out / f".{target.name}.{os.getpid()}.part"
    try:
        for path, text in files.items():
            place = partial / path if path else partial
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        partial.rename(target)
    except OSError as error:
        # A folder, a file or neither: cleaning up must not hide the error.
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose another --out") from error
    return target


def kind_registry(kind: NewKind) -> Registry[object]:
    """The registry of a kind's plugins."""
    (found,) = [registry for registry in ALL if registry.kind == kind.replace("-", " ")]
    return found


def _values(kind: NewKind, name: str) -> dict[str, str]:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or name in _NO_NAMES:
        raise ConfigError(
            f"'{ascii(name)[1:-1]}' is not a valid name for a plugin; use lower-case letters, digits and "
            f"single hyphens, a letter first, at most {_LONGEST}, such as 'my-net'"
        )
    if name.startswith("leukokit-"):
        raise ConfigError(f"'{name}': the package is called leukokit-NAME anyway; leave 'leukokit-' out")
    registry = kind_registry(kind)
    words, suffix = _camel(name), _camel(kind)
    return {
        "name": name,
        "kind": registry.kind,
        "group": registry.group,
        "package": f"leukokit-{name}",
        "module": f"leukokit_{name.replace('-', '_')}",
        "class_name": words if words.endswith(suffix) else words + suffix,
        "api_version": API_VERSION,
        "leukokit_version": __version__,
        "register": "",
        "decorator": "",
        "use": f"leukokit detect smear.png {_USE[kind].format(name=name)}",
    }


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _file_name(name: str) -> str:
    return f"{name.replace('-', '_')}.py"


def _rendered(template: str, values: dict[str, str]) -> str:
    text = (TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _refuse_taken(kind: NewKind, name: str, single_file: bool) -> None:
    values, registry = _values(kind, name), kind_registry(kind)
    for row in registry.rows():
        if row.name == name:
            raise ConfigError(f"a {row.kind} '{name}' exists already ({row.package}); choose another name")
    if single_file:
        return
    try:
        importlib.metadata.distribution(values["package"])
    except importlib.metadata.PackageNotFoundError:
        if importlib.util.find_spec(values["module"]) is None:
            return
    raise ConfigError(f"a package {values['package']} is installed already; choose another name")
