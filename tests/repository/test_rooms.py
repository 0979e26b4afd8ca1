"""The rooms of the three packages: who imports whom, how many modules a folder holds, and that their page is true."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.checkout import ROOT

PACKAGES = ("service", "training", "export")
MOST_MODULES = 16
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS: dict[str, list[str]] = {
    contract["containers"][0]: contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"
}
PAGE = (ROOT / "docs" / "architecture.md").read_text()
# | `service/pictures/` | Untrusted bytes ... | exif, header, ... |
_ROW = re.compile(r"^\| `((?:service|training|export)[\w/]*)/` \| (.+?) \| (.+?) \|$", re.MULTILINE)

Graph = dict[str, set[str]]


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def find_imports(source: str, modules: Mapping[str, object]) -> Iterator[str]:
    """Name the modules that a source imports anywhere: within functions and for types only, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:  # `from a.b import c`: a module a.b.c, or something in a.b
            found = name if name in modules else name.rpartition(".")[0]
            if found in modules:
                yield found


def build_graph(sources: Mapping[str, str]) -> Graph:
    """Each module with those that it imports; packages, which are empty but for their sentence, left out."""
    return {name: set(find_imports(source, sources)) - {name} for name, source in sources.items()}


def find_cycle(graph: Graph) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def group(graph: Graph, package: str) -> Graph:
    """The graph of a package's rooms: what lies in one folder, or stands at the top as a file, is one."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:2])

    rooms: Graph = {}
    for name, imported in graph.items():
        if name.split(".")[0] == package and name.count(".") >= 1:
            others = {room(one) for one in imported if one.split(".")[0] == package and one.count(".") >= 1}
            rooms.setdefault(room(name), set()).update(others - {room(name)})
    return rooms


def rank(package: str, layers: list[str]) -> dict[str, int]:
    """The height of each room, from the contract that import-linter holds."""
    return {f"{package}.{room.strip()}": -depth for depth, layer in enumerate(layers) for room in layer.split("|")}


def find_upward(rooms: Graph, heights: Mapping[str, int]) -> list[str]:
    """Imports of what is not below: rooms of one layer do not know each other either."""
    return [f"{one} -> {two}" for one in rooms for two in sorted(rooms[one]) if heights[two] >= heights[one]]


def folders() -> list[Path]:
    found = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    return sorted(path.relative_to(ROOT) for path in found)


def modules_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


@pytest.fixture(scope="module")
def graph() -> Graph:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return build_graph({name_of(path.relative_to(ROOT)): path.read_text() for path in paths})


def test_no_module_imports_itself_by_way_of_others(graph: Graph) -> None:
    assert len(graph) > 150
    assert find_cycle(graph) == []


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_rooms_import_downward_only(graph: Graph, package: str) -> None:
    rooms = group(graph, package)
    heights = rank(package, LAYERS[package])
    assert set(rooms) - set(heights) == set(), "a room has no place among the layers in pyproject.toml"
    assert find_upward(rooms, heights) == []
    assert find_cycle(rooms) == []


def test_every_package_has_layers() -> None:
    assert set(LAYERS) == set(PACKAGES)


def test_a_cycle_and_an_import_upward_are_seen() -> None:
    sources = {
        "service.low.one": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from service.high.two import Two",
        "service.high.two": "def late():\n    import service.low.one",
    }
    graph = build_graph(sources)
    assert set(find_cycle(graph)) == set(sources)
    heights = rank("service", ["high", "low | beside"])
    assert find_upward(group(graph, "service"), heights) == ["service.low -> service.high"]
    assert find_upward({"service.low": {"service.beside"}, "service.beside": set()}, heights) != []


@pytest.mark.parametrize("folder", folders(), ids=str)
def test_no_folder_holds_more_than_16_modules(folder: Path) -> None:
    assert len(modules_in(folder)) <= MOST_MODULES


def test_the_page_names_every_folder_with_its_sentence_and_its_modules() -> None:
    rows = {Path(folder): (sentence, modules) for folder, sentence, modules in _ROW.findall(PAGE)}
    assert set(rows) == set(folders())
    for folder, (sentence, modules) in rows.items():
        assert sorted(re.findall(r"\w+", modules)) == modules_in(folder), folder
        assert ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) == sentence, folder


def test_the_page_shows_the_layers_as_they_are_held() -> None:
    for package, layers in LAYERS.items():
        assert "\n".join(["```text", *layers, "```"]) in PAGE, package
