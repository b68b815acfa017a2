"""What the site has beside ``docs/``: generated references, pages from the root, the navigation.

MkDocs calls the functions named ``on_...``. Nothing is written into the source tree.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import history  # noqa: E402

PACKAGE = ROOT / "leukokit"
SECTIONS = {
    "tutorials": "Tutorials",
    "how-to": "How-to",
    "reference": "Reference",
    "explanation": "Explanation",
    "development": "Development",
}
"""Folders of docs/ in the order of the navigation."""
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "SECURITY.md": "reference/security.md",
}
"""Pages that stand at the root of the repository, and where the site has them."""
UNDOCUMENTED = frozenset({"cli", "templates", "weights"})
"""Rooms without Python interface for users."""
LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and put all pages into the navigation."""
    from mkdocs.structure.files import File

    generated = {target: root_page(source) for source, target in ROOT_PAGES.items()}
    generated["reference/cli.md"] = command_line()
    generated |= {f"reference/api/{name}.md": page for name, page in api_pages()}
    generated["development/benchmarks.md"] = history.page()
    generated |= {f"development/benchmarks/{name}.svg": svg for name, svg in history.drawings().items()}
    for path, content in generated.items():
        if files.get_file_from_path(path) is None:
            files.append(File.generated(config, path, content=content))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(
    markdown: str,
    page: Page,
    config: MkDocsConfig,  # noqa: ARG001 (MkDocs passes it by name)
    files: Files,
) -> str:
    """Show a link to a file of the repository that is not on the site as its text alone."""
    folder = PurePosixPath(page.file.src_uri).parent

    def keep_or_unlink(link: re.Match[str]) -> str:
        target = link["target"]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        place = os.path.normpath(folder / target)
        return link[0] if files.get_file_from_path(place) is not None else link["text"]

    return LINK.sub(keep_or_unlink, markdown)


def root_page(name: str) -> str:
    """Return a page from the root of the repository, its links as seen from its place on the site."""
    depth = len(PurePosixPath(ROOT_PAGES[name]).parts) - 1
    up = "../" * depth

    def moved(target: str) -> str:
        if target in ROOT_PAGES:
            return up + ROOT_PAGES[target]
        if target.startswith("docs/"):
            return up + target.removeprefix("docs/")
        return target if "://" in target else f"{up}../{target}"

    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"(\]\()([^)#\s]+)", lambda link: link[1] + moved(link[2]), text)


def command_line() -> str:
    """Return the reference of the commands, as typer writes it."""
    command = [sys.executable, "-m", "typer", "leukokit.cli", "utils", "docs", "--name", "leukokit"]
    # Without a terminal the text has no colours and no line breaks of its width.
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "1000"}
    command += ["--title", "Command line"]
    made = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return made.stdout


def stable_names() -> list[str]:
    """Return the names in the package's ``__all__``, in its order."""
    for node in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                return [str(name) for name in ast.literal_eval(node.value)]
    return []


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield the name and content of each page of the Python reference."""
    names = [name for name in stable_names() if not name.startswith("__")]
    listed = "\n".join(f"::: leukokit.{name}\n" for name in names)
    promise = "Names that `import leukokit` offers; they change only with a major version."
    yield "index", f"# Python\n\n{promise}\n\n{listed}"
    for path in sorted(PACKAGE.iterdir()):
        name = path.stem
        is_room = path.suffix == ".py" or (path / "__init__.py").is_file()
        if is_room and not name.startswith("_") and name not in UNDOCUMENTED:
            options = "    options:\n      show_root_heading: false\n"
            yield name, f"---\ntitle: {name}\n---\n# `leukokit.{name}`\n\n::: leukokit.{name}\n{options}"


def navigation(paths: list[str]) -> list[Any]:
    """Sort pages into the sections, an index first; pages at the top come before all sections."""
    tops = sorted((path for path in paths if "/" not in path), key=lambda path: (path != "index.md", path))
    nav: list[Any] = [{"Home": path} if path == "index.md" else path for path in tops]
    for folder, title in SECTIONS.items():
        pages = sorted((path for path in paths if path.startswith(f"{folder}/")), key=_place)
        api = [path for path in pages if path.startswith("reference/api/")]
        entries: list[Any] = [path for path in pages if path not in api]
        if api:
            entries.append({"Python": api})
        if entries:
            nav.append({title: entries})
    return nav


def _place(path: str) -> tuple[bool, str]:
    return (not path.endswith("/index.md"), path)
