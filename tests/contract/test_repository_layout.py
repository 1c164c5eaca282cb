"""The layout rules that no linter knows."""

import subprocess
import sys
import tomllib
from pathlib import Path

from t2i_runtime.product import PRODUCT, VERSION

ROOT = Path(__file__).parents[2]


def test_standard_operator_not_shadowed() -> None:
    """`operator/__init__.py` would break every Python started at the root; plain pytest would not notice."""
    done = subprocess.run(
        [sys.executable, "-c", "import operator, collections, dataclasses; print(operator.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).is_relative_to(ROOT)


def test_component_folders_hold_one_package_and_no_init() -> None:
    """A component folder with an `__init__.py` becomes importable by its plain name and shadows others."""
    packages = [path for path in ROOT.glob("*/t2i*") if path.is_dir() and path.name.isidentifier()]
    assert packages
    for package in packages:
        assert (package / "__init__.py").is_file(), package
        assert not (package.parent / "__init__.py").exists(), package.parent


def test_tests_have_no_init() -> None:
    """With importlib mode a single `tests/operator/__init__.py` breaks collection of everything."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_version_is_said_once() -> None:
    """Image files carry it; containers have the code alone, so it cannot be read from the package's metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["version"]) == (PRODUCT, VERSION)
