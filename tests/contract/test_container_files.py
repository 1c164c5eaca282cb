"""Container files: never root, any base, each with the packages that its process imports, code in the last layers."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {path.name: path for path in ROOT.glob("*/t2i*") if (path / "__init__.py").is_file()}
NAMES = ("operator", "gateway", "worker")


def text_of(name: str) -> str:
    """The container file."""
    return (ROOT / "containers" / f"{name}.Containerfile").read_text()


def copied(name: str) -> set[str]:
    """Our packages in the image."""
    return set(re.findall(r"^COPY \w+/(t2i_\w+) \1$", text_of(name), re.MULTILINE))


def imported(package: str) -> set[str]:
    """Our packages that a package's modules import, inside functions too."""
    found: set[str] = set()
    for path in FOLDERS[package].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
    return found & FOLDERS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_image_holds_what_its_process_imports(name: str) -> None:
    """A package that is missing shows at the first start in a cluster, or here."""
    here = copied(name)
    assert f"t2i_{name}" in here
    for package in here:
        assert imported(package) <= here, package


@pytest.mark.parametrize("name", NAMES)
def test_build_sees_what_the_image_takes(name: str) -> None:
    """The build's context leaves out what the list of exceptions does not name."""
    let_in = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    taken = re.findall(r"^COPY (?!--from)(\S+) ", text_of(name), re.MULTILINE)
    assert [path for path in taken if not any((path + "/").startswith(one + "/") for one in let_in)] == []


@pytest.mark.parametrize("name", NAMES)
def test_image_never_runs_as_root_on_any_base(name: str) -> None:
    """Restricted Pod Security asks for a numeric user; mirrors and Debian ask for another base."""
    text = text_of(name)
    assert "USER 65532:65532" in text
    assert "FROM ${BASE_IMAGE}\n" in text
    assert text.index("COPY --from=packages") < text.index("COPY protos/t2i_protos")


def test_only_workers_take_torch() -> None:
    """Its wheels are gigabytes."""
    extras = {name: re.findall(r"install-packages /opt/site (\w+)", text_of(name)) for name in NAMES}
    assert extras == {name: [name] for name in NAMES}
