"""Plugins of real installed packages (made here) and of single files; one that is broken harms no other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leukokit.errors import PluginError
from leukokit.registry import DISABLE, PluginRow, Registry, load_plugin_file, writers
from leukokit.writers.base import Writer

HEAVY = ("torch", "ultralytics", "matplotlib", "cv2", "supervision", "pandas", "scipy")
PLUGIN = """
from leukokit.writers.base import Writer

class {cls}(Writer):
    name = "{name}"
    version = "3.2"
    summary = "made for a test"
    {extra}

    def write(self, result):
        pass
"""


class Site:
    """A folder on ``sys.path`` into which packages are installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch

    def install(self, package: str, entries: dict[str, str], modules: dict[str, str]) -> None:
        info = self.folder / f"{package.replace('-', '_')}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        lines = [f"{name} = {target}" for name, target in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[leukokit.writers]", *lines]) + "\n")
        for name, text in modules.items():
            (self.folder / f"{name}.py").write_text(text)
        self._monkeypatch.syspath_prepend(self.folder)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = set(sys.modules)
    yield Site(tmp_path / "site", monkeypatch)
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]


@pytest.fixture
def registry() -> Registry[Writer]:
    return Registry("writer", "leukokit.writers", "leukokit.writers.base:Writer")


def source(name: str, cls: str = "Thing", extra: str = "") -> str:
    return PLUGIN.format(name=name, cls=cls, extra=extra)


def row(registry: Registry[Writer], name: str) -> PluginRow:
    (found,) = [row for row in registry.rows() if row.name == name]
    return found


def refusal(registry: Registry[Writer], name: str) -> str:
    with pytest.raises(PluginError) as caught:
        registry.get(name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("arguments", [None, ["--help"], ["plugins", "list"]])
def test_nothing_heavy_is_imported(arguments: list[str] | None) -> None:
    program = f"""
import json, sys
import leukokit
if {arguments!r} is not None:
    from leukokit.cli import main
    sys.argv = ["leukokit", *{arguments!r}]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    loaded = json.loads(last)
    assert "leukokit" in loaded
    assert not {*HEAVY, "leukokit.writers.png", "leukokit.detectors.yolo.detector"}.intersection(loaded)
    if arguments == ["plugins", "list"]:
        listed = [line.split()[:2] for line in shown]
        assert ["detector", "yolo"] in listed
        assert ["writer", "geojson"] in listed


def test_an_installed_plugin_is_listed_unimported_and_loaded_when_asked(
    site: Site, registry: Registry[Writer]
) -> None:
    site.install("acme-writers", {"acme": "acme_good:Thing"}, {"acme_good": source("acme")})
    assert "acme" in registry.names()
    assert row(registry, "acme") == PluginRow("acme", "writer", "1.5", "acme-writers", "acme_good:Thing")
    assert "acme_good" not in sys.modules
    plugin = registry.get("acme")
    assert issubclass(plugin, Writer)
    assert (plugin.name, plugin.version) == ("acme", "3.2")


def test_built_in_writers_all_keep_the_contract(registry: Registry[Writer]) -> None:
    assert {"coco", "csv", "geojson", "json", "png", "yolo"} <= set(registry.names())
    for listed in list(registry.rows()):
        if listed.package == "leukokit":
            assert listed.error == ""
            assert registry.get(listed.name).name == listed.name


@pytest.mark.parametrize(("asked", "first"), [("jsn", "json"), ("cvs", "csv"), ("geo-json", "geojson")])
def test_an_unknown_name_is_answered_nearest_first(
    registry: Registry[Writer], asked: str, first: str
) -> None:
    message = refusal(registry, asked)
    assert message.startswith(f"no writer is called '{asked}'; there are: {first}, ")
    assert all(name in message for name in registry.names())


def test_an_empty_group_says_none() -> None:
    empty: Registry[Writer] = Registry("writer", "leukokit.no_such_group", "leukokit.writers.base:Writer")
    assert "there are: none" in refusal(empty, "json")
    assert list(empty.rows()) == []


def test_a_name_used_twice_is_an_error_of_both(site: Site, registry: Registry[Writer]) -> None:
    site.install("acme-one", {"acme": "acme_one:Thing"}, {"acme_one": source("acme")})
    site.install("acme-two", {"acme": "acme_two:Thing"}, {"acme_two": source("acme")})
    errors = [listed.error for listed in registry.rows() if listed.name == "acme"]
    assert len(errors) == 2
    assert all("used 2 times" in error for error in errors)
    assert "acme-one, acme-two" in refusal(registry, "acme")
    assert registry.get("json").name == "json"


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("acme_bad:Thing", "raise RuntimeError('no licence\\nfound')", "RuntimeError: no licence found"),
        ("acme_bad:Thing", "import acme_not_there", "No module named 'acme_not_there'"),
        ("acme_bad:Thing", "def (", "SyntaxError"),
        ("acme_bad:Thing", "import sys; sys.exit(3)", "SystemExit: 3"),
        ("acme_bad:Other", source("acme"), "has no attribute 'Other'"),
    ],
)
def test_a_plugin_that_does_not_import_fails_alone(
    site: Site, registry: Registry[Writer], target: str, text: str, said: str
) -> None:
    site.install("acme-bad", {"acme": target}, {"acme_bad": text})
    assert row(registry, "acme").error == ""
    message = refusal(registry, "acme")
    assert message.startswith(f"writer 'acme' ({target}) does not import: ")
    assert said in message
    assert registry.get("json").name == "json"


@pytest.mark.parametrize("target", ["acme_gone.deep:Thing", "not a module!", "(acme)"])
def test_a_package_without_its_module_is_a_row_with_an_error(
    site: Site, registry: Registry[Writer], target: str
) -> None:
    site.install("acme-gone", {"acme": target}, {})
    assert "reinstall acme-gone" in row(registry, "acme").error
    assert row(registry, "json").error == ""
    assert "does not import" in refusal(registry, "acme")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Thing = 3", "not a class derived from leukokit.writers.base.Writer"),
        ("class Thing: name = 'acme'", "not a class derived from leukokit.writers.base.Writer"),
        ("from leukokit.plugin import Plugin as Thing", "not a class derived from"),
        ("from leukokit.writers.base import Writer as Thing", "declares no 'name'"),
        (source("acme").replace("summary", "resume"), "declares no 'summary'"),
        (source("acme").replace('"3.2"', "3.2"), "declares no 'version'"),
        (source("other"), "calls itself 'other'"),
        (source("acme", extra='api_version = "2.0"'), "written for plugin API 2.0, this is 1."),
        (source("acme", extra='api_version = "10.0"'), "written for plugin API 10.0, this is 1."),
        (source("acme", extra='api_version = "0.9"'), "written for plugin API 0.9, this is 1."),
        (source("acme", extra='api_version = "1.99"'), "needs plugin API 1.99, this is 1."),
        (source("acme", extra="api_version = 1.0"), "declares api_version 1.0; it must be a text"),
        *[
            (source("acme", extra=f"api_version = {text!r}"), f"declares api_version {text!r}")
            for text in ("1", "1.0.0", "v1.0", "1.x", "-1.0", "", "1.0\n", "\u0661.\u0660")
        ],
        (source("acme", extra="Params = dict"), "Params must derive"),
        (source("acme", extra="Params = {}"), "Params must derive"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_told_how(
    site: Site, registry: Registry[Writer], text: str, said: str
) -> None:
    site.install("acme-odd", {"acme": "acme_odd:Thing"}, {"acme_odd": text})
    assert said in refusal(registry, "acme")


@pytest.mark.parametrize(
    ("ours", "wanted", "said"),
    [
        ("1.4", "1.4", ""),
        ("1.4", "1.0", ""),
        ("1.10", "1.9", ""),
        ("1.9", "1.10", "needs plugin API 1.10, this is 1.9; install a newer leukokit"),
        ("2.0", "1.9", "is written for plugin API 1.9, this is 2.0; install a release of it that fits"),
        ("2.3", "2.1", ""),
    ],
)
def test_which_versions_of_the_contract_are_welcome(
    site: Site, registry: Registry[Writer], monkeypatch: pytest.MonkeyPatch, ours: str, wanted: str, said: str
) -> None:
    monkeypatch.setattr("leukokit.plugin.API_VERSION", ours)
    site.install(
        "acme-now",
        {"acme": "acme_now:Thing"},
        {"acme_now": source("acme", extra=f'api_version = "{wanted}"')},
    )
    if said:
        assert refusal(registry, "acme") == f"writer 'acme' {said}"
    else:
        assert registry.get("acme").api_version == wanted


def test_nobody_takes_the_name_of_one_of_leukokits_own(site: Site, registry: Registry[Writer]) -> None:
    site.install("acme-json", {"json": "acme_json:Thing"}, {"acme_json": source("json")})
    errors = {listed.package: listed.error for listed in registry.rows() if listed.name == "json"}
    assert errors == {"leukokit": "", "acme-json": "the name is leukokit's own; rename it"}
    assert registry.get("json").__module__ == "leukokit.writers.json"
    assert "acme_json" not in sys.modules


@pytest.mark.parametrize(
    ("disabled", "off"),
    [
        ("acme", {"acme"}),
        ("acme-one", {"acme", "also"}),
        ("ACME_One", {"acme", "also"}),
        (" other ,, acme-two", {"other"}),
        ("acme,json", {"acme", "json"}),
        ("all", {"acme", "also", "other"}),
        ("leukokit", {"coco", "csv", "geojson", "graphml", "json", "png", "yolo"}),
        ("", set()),
        ("nobody", set()),
    ],
)
def test_plugins_can_be_switched_off(
    site: Site, registry: Registry[Writer], monkeypatch: pytest.MonkeyPatch, disabled: str, off: set[str]
) -> None:
    module = source("acme") + source("also", "Also") + source("other", "Other")
    site.install("acme-one", {"acme": "acme_all:Thing", "also": "acme_all:Also"}, {"acme_all": module})
    site.install("acme-two", {"other": "acme_all:Other"}, {})
    before = set(registry.names())
    monkeypatch.setenv(DISABLE, disabled)
    own = {row.name for row in registry.rows() if row.package in ("leukokit", "acme-one", "acme-two")}
    assert {row.name for row in registry.rows() if row.disabled and row.name in own} == off
    assert {row.status for row in registry.rows() if row.name in off} <= {"disabled"}
    assert set(registry.names()) & own == (before & own) - off
    for name in off:
        message = refusal(registry, name)
        assert f"writer '{name}' of " in message and f"is disabled by {DISABLE}" in message
    for name in own - off:
        assert registry.get(name).name == name


def test_switching_one_of_two_off_makes_the_other_usable(
    site: Site, registry: Registry[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("acme-one", {"acme": "acme_one:Thing"}, {"acme_one": source("acme")})
    site.install("acme-two", {"acme": "acme_two:Thing"}, {"acme_two": source("acme")})
    monkeypatch.setenv(DISABLE, "acme-two")
    assert registry.get("acme").__module__ == "acme_one"
    assert [row.status for row in registry.rows() if row.name == "acme"] == ["ok", "disabled"]


def test_a_file_can_stand_in_for_what_is_switched_off(
    site: Site, registry: Registry[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("acme-one", {"acme": "acme_one:Thing"}, {"acme_one": source("acme")})
    mine = thing("acme")
    with pytest.raises(PluginError, match="exists in an installed package"):
        registry.register(mine)
    monkeypatch.setenv(DISABLE, "acme-one")
    assert registry.register(mine) is mine
    assert registry.get("acme") is mine
    monkeypatch.setenv(DISABLE, "acme")
    assert "is disabled" in refusal(registry, "acme")


def thing(name: str, **attributes: Any) -> type[Writer]:
    def write(self: Writer, result: object) -> None:
        return None

    body = {"name": name, "version": "1", "summary": "made for a test", "write": write, **attributes}
    return type("Thing", (Writer,), body)


def test_the_decorator_registers_and_refuses_a_taken_name(registry: Registry[Writer]) -> None:
    mine = thing("mine")
    assert registry.register(mine) is mine
    assert registry.register(mine) is mine
    assert registry.get("mine") is mine
    assert row(registry, "mine").package == "(file)"
    with pytest.raises(PluginError, match="'mine' is registered already"):
        registry.register(thing("mine"))
    with pytest.raises(PluginError, match="'json' exists in an installed package"):
        registry.register(thing("json"))
    assert registry.get("json").__module__ == "leukokit.writers.json"


def test_the_decorator_refuses_what_breaks_the_contract(registry: Registry[Writer]) -> None:
    with pytest.raises(PluginError, match="plugin API 2"):
        registry.register(thing("mine", api_version="2.0"))
    with pytest.raises(PluginError, match="not a class derived from"):
        registry.register(int)  # type: ignore[arg-type]  # what is refused
    assert "mine" not in registry.names()


DECORATED = "from leukokit.registry import writers\n" + source("acme-file").replace(
    "class Thing", "@writers.register\nclass Thing"
)


def test_a_single_file_brings_its_plugins(tmp_path: Path) -> None:
    path = tmp_path / "my plugin.py"
    path.write_text(DECORATED)
    assert [plugin.name for plugin in load_plugin_file(path)] == ["acme-file"]
    assert writers.get("acme-file").version == "3.2"
    assert row(writers, "acme-file").version == "3.2"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("boom.py", "raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("boom.py", "x = = 1", "SyntaxError"),
        ("boom.py", "raise SystemExit", "SystemExit"),
        ("boom.txt", DECORATED, "ends in .py"),
        ("none.py", "x = 1", "registers no plugin; decorate the class"),
        ("boom.py", DECORATED.replace('"acme-file"', '"csv"'), "'csv' exists in an installed package"),
        ("boom.py", DECORATED + "    api_version = '7.0'\n", "plugin API 7.0"),
    ],
)
def test_a_file_that_fails_says_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(PluginError) as caught:
        load_plugin_file(path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "acme-file" not in writers.names()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no such plugin file"):
        load_plugin_file(tmp_path / "gone.py")
    with pytest.raises(PluginError, match="a folder; install a package"):
        load_plugin_file(tmp_path)
