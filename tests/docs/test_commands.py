"""Commands in README and docs that need the reader's own files: their options and settings exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consoles import ROOT
from typer.core import TyperGroup
from typer.main import get_command

from leukokit.cli import app
from leukokit.config import PipelineConfig, PluginChoice, load_config
from leukokit.registry import Registry, classifiers, detectors, graph_builders

PAGES = [
    *ROOT.glob("*.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
REGISTRIES: dict[str, Registry[Any]] = {
    "detector": detectors,
    "graph": graph_builders,
    "classifier": classifiers,
}
FOREIGN = ("LEUKOKIT_", "dark", "my-", "crop-net", "blob")
"""What begins so names a plugin that the page itself makes or installs."""


def _commands() -> Iterator[tuple[str, str]]:
    """Page and text of each command in a ``sh`` block, continued lines joined, without its comment."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|\|", line):
                    if command.strip().startswith("leukokit "):
                        yield page.relative_to(ROOT).as_posix(), command.strip()


COMMANDS = list(dict.fromkeys(_commands()))


def _parse(words: list[str]) -> Any:
    """The context of the command that the words call; nothing is run. A wrong option raises a usage error."""
    command: Any = get_command(app)
    context = command.make_context("leukokit", words)
    while isinstance(command, TyperGroup):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)
    return context


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda value: value)
def test_options_and_settings_exist(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    context = _parse(shlex.split(command, comments=True)[1:])
    settings = [
        text
        for option in context.command.params
        if "--set" in option.opts
        for text in context.params[option.name] or ()
    ]
    # The settings of a training are those of its recipe.
    if not command.startswith("leukokit train"):
        _check_settings(load_config(None, settings))


def _check_settings(config: PipelineConfig) -> None:
    for section, registry in REGISTRIES.items():
        choice = getattr(config, section)
        if isinstance(choice, PluginChoice) and not choice.name.startswith(FOREIGN):
            registry.get(choice.name).parse(choice.params)


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) > 30


def test_the_pipeline_of_the_configuration_page_is_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n# pipeline.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pipeline.yaml").write_text(text, encoding="utf-8")
    _check_settings(load_config(tmp_path / "pipeline.yaml"))
