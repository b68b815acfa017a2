"""``leukokit graph``: every format reads back, and what is wrong is one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from PIL import Image

from leukokit.cli import main
from leukokit.graph import CellGraph
from leukokit.registry import isolated
from leukokit.taxonomy import LEUKOCYTE_CLASSES

EXAMPLE = Path(__file__).parents[2] / "examples" / "smear.png"

PLUGIN = '''
import numpy as np
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import graph_builders


@graph_builders.register
class Star(GraphBuilder):
    """All with the first."""

    name, version, summary = "star", "0.1", "all with the first"

    def pairs(self, points, unit):
        others = np.arange(1, len(points))
        return np.stack([np.zeros_like(others), others])


@graph_builders.register
class Broken(Star):
    """Fails."""

    name = "broken"

    def pairs(self, points, unit):
        return points.T
'''


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``leukokit graph`` in this process."""
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["leukokit", "graph", *map(str, arguments), "--device", "cpu"])
        patch.setenv("COLUMNS", "140")
        with isolated(), pytest.raises(SystemExit) as stop:
            main()
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return int(stop.value.code or 0), out, err


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "small.png"
    Image.open(EXAMPLE).crop((0, 0, 600, 500)).save(path)
    return path


def test_graphml_gexf_and_json_hold_the_same_graph(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graphs: dict[str, CellGraph] = {}
    for suffix in (".graphml", ".gexf", ".json"):
        out = tmp_path / "new" / f"smear{suffix}"
        code, said, err = run(capfd, EXAMPLE, "--graph", "delaunay", "--out", out)
        assert (code, err) == (0, "")
        assert str(out) in said and "leukocytes" in said and "(delaunay)" in said
        if suffix == ".json":
            linked = nx.node_link_graph(json.loads(out.read_text()), edges="edges")
        else:
            linked = (nx.read_graphml if suffix == ".graphml" else nx.read_gexf)(out)
        graphs[suffix] = CellGraph.from_networkx(linked)
    first = graphs[".graphml"]
    assert 9 <= first.cells.counts["leukocyte"] <= 11
    assert first.edges.shape[1] > len(first)
    assert first.params["max_distance"] == 4.0
    for graph in graphs.values():
        np.testing.assert_array_equal(graph.cells.boxes, first.cells.boxes)
        np.testing.assert_array_equal(graph.cells.scores, first.cells.scores)
        np.testing.assert_array_equal(graph.cells.kinds, first.cells.kinds)
        np.testing.assert_array_equal(graph.edges, first.edges)
        assert graph.builder == "delaunay"
    assert graphs[".json"].params == first.params
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"smear{suffix}" for suffix in graphs}


def test_gexf_is_laid_out_as_the_smear(
    capfd: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    run(capfd, small, "--out", tmp_path / "g.gexf")
    for node in nx.read_gexf(tmp_path / "g.gexf").nodes.values():
        place = node["viz"]["position"]
        assert node["x1"] <= place["x"] <= node["x2"]
        assert node["y1"] <= -place["y"] <= node["y2"]


def test_png_shows_links_over_the_original(
    capfd: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    pictures = []
    for radius in (0.01, 3):
        out = tmp_path / f"r{radius}.PNG"
        code, _, _ = run(capfd, small, "--graph", "radius", "--set", f"graph.radius={radius}", "--out", out)
        assert code == 0
        with Image.open(out) as picture:
            assert picture.format == "PNG"
            pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    original = np.asarray(Image.open(small).convert("RGB")).astype(int)
    alone, linked = pictures
    assert alone.shape == linked.shape and alone.shape[0] > original.shape[0]
    # Without links most of the smear is as it was; links are where the two differ, and dark.
    same = (alone[: original.shape[0]] == original).all(axis=2).mean()
    assert same > 0.7
    changed = (alone != linked).any(axis=2)
    assert 0.005 < changed.mean() < 0.3
    assert linked[changed].mean() < alone[changed].mean() - 40


def test_settings_come_from_a_file_then_from_the_line(
    capfd: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    config = tmp_path / "pipeline.yaml"
    config.write_text("graph: {name: knn, k: 1, nodes: leukocytes}\n")
    out = tmp_path / "g.json"
    code, said, _ = run(capfd, small, "--config", config, "--set", "graph.nodes=all", "--out", out, "--quiet")
    assert (code, said) == (0, "")
    labels = json.loads(out.read_text())["graph"]
    assert labels["builder"] == "knn"
    assert json.loads(labels["params"]) == {
        "k": 1,
        "max_distance": None,
        "nodes": "all",
        "unit": "diameters",
    }


def test_builder_from_a_file(capfd: pytest.CaptureFixture[str], small: Path, tmp_path: Path) -> None:
    plugin, out = tmp_path / "star.py", tmp_path / "g.json"
    plugin.write_text(PLUGIN)
    code, _, err = run(capfd, small, "--plugin", plugin, "--graph", "star", "--out", out)
    assert (code, err) == (0, "")
    document = json.loads(out.read_text())
    assert {edge["source"] for edge in document["edges"]} == {0}
    assert len(document["edges"]) == len(document["nodes"]) - 1
    code, _, err = run(capfd, small, "--plugin", plugin, "--graph", "broken", "--out", tmp_path / "b.json")
    assert code == 1
    assert "small.png: graph builder 'broken' failed" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--out", "g.txt"], 2, "must end in .graphml, .gexf, .json or .png"),
        (["--out", "graphml"], 2, "must end in .graphml, .gexf, .json or .png"),
        (["--out", "g.json", "--graph", "nearest"], 2, "there are: "),
        (["--out", "g.json", "--set", "graph.k=0"], 2, "knn: k: "),
        (["--out", "g.json", "--graph", "radius", "--set", "graph.k=4"], 2, "radius: k: "),
        (["--out", "file/g.json"], 1, "file/g.json: cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    found, out, err = run(capfd, small, *arguments)
    assert found == code and out == ""
    assert err.startswith("error: ") and said in err and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_image_is_not_overwritten(capfd: pytest.CaptureFixture[str], small: Path) -> None:
    before = small.read_bytes()
    code, _, err = run(capfd, small, "--out", small)
    assert code == 2 and "is the image itself" in err
    assert small.read_bytes() == before


def test_no_image(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capfd, tmp_path / "none.png", "--out", tmp_path / "g.json")
    assert code == 1 and "none.png: no such file" in err and len(err.splitlines()) == 1


def test_a_blank_field_is_an_empty_graph(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (300, 200), (235, 225, 225)).save(blank)
    for suffix in (".graphml", ".gexf", ".json", ".png"):
        out = tmp_path / f"g{suffix}"
        code, said, _ = run(capfd, blank, "--out", out)
        assert code == 0 and "0 links" in said
    assert len(CellGraph.from_networkx(nx.read_graphml(tmp_path / "g.graphml"))) == 0
    assert len(CellGraph.from_networkx(nx.read_gexf(tmp_path / "g.gexf"))) == 0


def test_leukocytes_are_named_where_a_classifier_is_asked(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "g.gexf"
    assert run(capfd, EXAMPLE, "--classifier", "cnn", "--out", out)[0] == 0
    nodes = [node for _, node in nx.read_gexf(out).nodes(data=True)]
    assert {node["kind"] for node in nodes if node.get("label") in LEUKOCYTE_CLASSES} == {"leukocyte"}
