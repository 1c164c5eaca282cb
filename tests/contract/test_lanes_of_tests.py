"""`make test` runs pytest several times, two at once. No test may fall between them, and no failure may be lost."""

import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from t2i_testing_kit.lanes import INTERRUPTED, NONE_COLLECTED, run_lanes, split_tests
from t2i_testing_kit.programs import eventually

ROOT = Path(__file__).parents[2]
WITHIN_S = 120.0
HEAD = """
import pathlib, pytest, time
def ran(name):
    with pathlib.Path("ran").open("a") as file:
        file.write(name + " ")
"""
SERVER = "@pytest.mark.process\ndef test_server():\n    ran('server')\n"
NOISE = "import atexit\natexit.register(print, '= something else =')\n"
PLAIN = "def test_plain():\n    ran('plain')\n"
FAILS = "    raise ValueError\n"
HANGS = """
@pytest.fixture
def server():
    yield
    ran("ended")

def test_hangs(server):
    ran("began")
    while True:
        time.sleep(0.01)
"""

Project = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """`project({file: tests})` writes one and enters it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # plugins take seconds to import
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = process\nnorecursedirs = e2e\n")

    def write(files: Mapping[str, str]) -> Path:
        for name, tests in files.items():
            file = tmp_path / "tests" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(HEAD + tests)
        return tmp_path

    return write


def ran(folder: Path) -> list[str]:
    file = folder / "ran"
    return sorted(file.read_text().split()) if file.exists() else []


def test_every_file_of_ours_is_in_one_run() -> None:
    """Beside the run of what is marked, which looks into all of them."""
    servers, *others = split_tests(ROOT / "tests")
    assert servers.folder == ROOT / "tests"
    assert {servers.marked, *(run.marked for run in others)} == {"process", "not process"}
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if "e2e" not in file.parts]
    for file in files:
        assert sum(run.folder in (file, *file.parents) for run in others) == 1, file
    assert len({run.name for run in others}) == len(others)


@pytest.mark.parametrize(
    ("files", "status", "names"),
    [
        ({"a/test_a.py": SERVER + PLAIN, "b/test_b.py": PLAIN}, 0, ["plain", "plain", "server"]),
        ({"test_loose.py": PLAIN, "e2e/test_e2e.py": SERVER}, 0, ["plain"]),
        ({"a/test_a.py": SERVER}, 0, ["server"]),
        ({}, NONE_COLLECTED, []),
    ],
)
def test_every_test_runs_once(project: Project, files: Mapping[str, str], status: int, names: list[str]) -> None:
    """A run without tests is no failure; nothing but such runs is."""
    folder = project(files)
    assert run_lanes(Path("tests"), lambda _: None) == status
    assert ran(folder) == names


@pytest.mark.parametrize(
    ("name", "failing"), [("a", SERVER + FAILS), ("b", PLAIN + FAILS), ("c", PLAIN + FAILS)], ids=["server", "b", "c"]
)
def test_one_failure_fails_all(project: Project, name: str, failing: str) -> None:
    """The others run to their end, and the last lines name what failed."""
    lines: list[str] = []
    files = {"a/test_a.py": NOISE + SERVER, "b/test_b.py": NOISE + PLAIN, "c/test_c.py": PLAIN}
    folder = project({**files, f"{name}/test_{name}.py": NOISE + failing})
    assert run_lanes(Path("tests"), lines.append) == 1
    assert len(ran(folder)) == 3
    (failed,) = (line for line in lines if line.startswith("FAILED "))
    assert f"test_{name}.py::test_" in failed
    assert lines[-4] == failed  # after it, how each run ended
    assert sorted("1 failed" in line for line in lines[-3:]) == [False, False, True]


def test_file_that_cannot_be_read_fails_all(project: Project) -> None:
    """Its tests are not silently missing."""
    project({"a/test_a.py": "def", "b/test_b.py": PLAIN})
    assert run_lanes(Path("tests"), lambda _: None) not in (0, NONE_COLLECTED)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_its_servers(project: Project, how: signal.Signals) -> None:
    """Fixtures are torn down, as where pytest itself gets Ctrl-C, and nothing more is begun. So it is too where a shell
    started it as a background job, which ignores SIGINT.
    """
    folder = project({"a/test_a.py": HANGS})
    deaf = ["/bin/sh", "-c", 'trap "" INT; exec "$0" -m t2i_testing_kit.lanes', sys.executable]
    with subprocess.Popen(deaf, stdout=subprocess.DEVNULL) as run:
        eventually("the test began", lambda: ran(folder) == ["began"], WITHIN_S)
        run.send_signal(how)
        assert run.wait(WITHIN_S) == INTERRUPTED
    assert ran(folder) == ["began", "ended"]


def test_garbage_of_tests_is_collected() -> None:
    """While files are imported it is not, and what they made is passed over."""
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
