"""What keeps the house readable and no linter knows: unique names, no circles, no citations that lead nowhere."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
COMPONENTS = sorted(path for path in ROOT.glob("*/t2i*") if (path / "__init__.py").is_file())
TOP = {path.name for path in ROOT.iterdir() if path.is_dir()}
MAX_PARAMETERS = 7
PRESCRIBED = {  # diffusers reads a pipeline's signature
    "worker/t2i_worker/pipelines/scenes.py: __init__",
    "worker/t2i_worker/pipelines/scenes.py: __call__",
}


def sources() -> Iterator[Path]:
    """Every source file of ours; generated code is not."""
    folders = [*COMPONENTS, ROOT / "bench"]
    return (path for folder in folders for path in folder.rglob("*.py") if "_pb2" not in path.name)


def parsed() -> Iterator[tuple[str, ast.Module]]:
    """Name of the file, and its tree."""
    return ((str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in sources())


def test_a_public_class_name_exists_once() -> None:
    """Whoever reads a name, or searches for it, finds one thing."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in parsed():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_imports_itself_in_a_circle() -> None:
    """Dependencies point one way inside a component as well, also those of types alone."""
    graph = grimp.build_graph(*(path.name for path in COMPONENTS), cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_notes_are_cited_by_the_names_of_their_files() -> None:
    """A number of some page outside the repository leads nowhere; neither does a note that was renamed."""
    notes = {path.name for path in (ROOT / "docs" / "decisions").glob("*.md")}
    for path in (*sources(), ROOT / "pyproject.toml"):
        text = path.read_text()
        assert not re.search(r"\bdecisions? \d", text), f"{path}: cite docs/decisions/FILE.md"
        assert set(re.findall(r"docs/decisions/([\w.-]+\.md)", text)) <= notes, path


def test_calls_can_be_read() -> None:
    """More than seven parameters are a value that has no name yet. Options of commands are parameters to typer."""
    long = [
        f"{name}: {node.name}"
        for name, tree in parsed()
        if not name.startswith("ctl/")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len([one for one in (*node.args.args, *node.args.kwonlyargs) if one.arg not in ("self", "cls")])
        > MAX_PARAMETERS
    ]
    assert set(long) <= PRESCRIBED


def test_docstrings_say_something() -> None:
    """One that only points elsewhere is left out."""
    empty = [
        f"{name}: {node.name}"
        for name, tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and re.fullmatch(r"See [^;\n]*", ast.get_docstring(node) or "")
    ]
    assert empty == []


def test_the_map_leads_somewhere() -> None:
    """Each function that a story of docs/architecture.md names exists, and the picture has each component."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", page)
    assert len(named) > 30
    for file, name in named:
        assert name in definitions(ast.parse((ROOT / file).read_text())), f"{file}: {name}"
    picture = (ROOT / "docs" / "images" / "architecture.svg").read_text()
    assert [path.parent.name for path in COMPONENTS if f">{path.parent.name}<" not in picture] == []


def test_changes_are_sent_to_places_that_exist() -> None:
    """Files that CONTRIBUTING.md names are there, and so are the names in them that a row tells to look for."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    _, _, changes = page.partition("## Where a change goes")
    lines = [line for line in changes.partition("## Style")[0].splitlines() if line.startswith(("| ", "- "))]
    assert len(lines) > 20
    verbs = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in lines:
        folder, found, wanted = Path("*/*"), list[Path](), list[str]()  # any component's, until one is named
        for told in re.findall(r"`([^`]+)`", line):
            if told.startswith("make "):
                assert {*told.split()[1:]} <= verbs, line
            elif "/" in told or re.search(r"\.(py|js|md|proto)$", told):
                place = Path(told) if Path(told).parts[0] in TOP else folder / told  # beside what was named before
                matching = [*ROOT.glob(str(place))]
                assert matching, f"{told} of: {line}"
                found += matching
                folder = place if told.endswith("/") else place.parent
            elif re.fullmatch(r"_?[A-Za-z]+(_[a-z_]+)?|[A-Z_]+", told.partition(".")[0]):
                wanted.append(told)
        text = "\n".join(path.read_text() for path in found if path.is_file())
        for name in wanted:
            assert re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", text), f"{name} of: {line}"


def definitions(tree: ast.Module) -> set[str]:
    """Names of functions and classes, methods as `Class.method`."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for holder in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        members = (node for node in holder.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        found |= {f"{holder.name}.{node.name}" for node in members}
    return found
