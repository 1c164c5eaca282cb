"""Every benchmark of the Makefile starts, and asks for no file that a stranger does not have."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1200)  # its one process imports every benchmark
ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
VERBS = sorted(set(re.findall(r"^bench-([a-z-]+): \S+ +##", MAKEFILE, re.MULTILINE)))
#: One process for all: each imports torch or HiGHS.
START_ALL = """
import contextlib, importlib, io, json, pathlib, sys
found = {}
for verb in sys.argv[1:]:
    parser = importlib.import_module(f"bench.{verb.replace('-', '_')}.run").PARSER
    defaults, said = vars(parser.parse_args([])).values(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        parser.parse([])
    trial = vars(parser.parse(["--quick"]))
    found[verb] = {
        "help": parser.format_help(),
        "paths": [str(value) for value in defaults if isinstance(value, pathlib.Path)],
        "missing": said.getvalue(),
        "trial": [str(trial[name]) for name in ("out", "results") if name in trial],
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def benches() -> dict[str, dict[str, Any]]:
    """What each says of itself."""
    command = [sys.executable, "-c", START_ALL, *VERBS, "e2e"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_verb_starts(benches: dict[str, dict[str, Any]]) -> None:
    """`make bench-NAME ARGS=--help` names the verb and the trial."""
    assert len(VERBS) >= 15
    for verb, bench in benches.items():
        assert bench["help"].startswith(f"usage: make {'e2e-results' if verb == 'e2e' else f'bench-{verb}'} "), verb
        assert "--quick" in bench["help"], verb


def test_no_default_lies_outside_the_repository(benches: dict[str, dict[str, Any]]) -> None:
    """Nor does the Makefile know a file that a clone does not have."""
    assert "../" not in MAKEFILE
    for verb, bench in benches.items():
        for path in bench["paths"]:
            assert (ROOT / path).resolve().is_relative_to(ROOT), f"{verb}: {path}"


def test_trial_overwrites_no_result(benches: dict[str, dict[str, Any]]) -> None:
    """Figures of a trial are no figures."""
    for verb, bench in benches.items():
        assert all(path.startswith("build/bench/quick") for path in bench["trial"]), verb


def test_missing_files_are_explained(benches: dict[str, dict[str, Any]]) -> None:
    """Which variable, what the file must hold, where a public one is; nobody else asks for a file."""
    both = ("PROMPTS", "ARRIVALS")
    needing = {"policy": both, "models": both, "carried": both, "eviction": ("PROMPTS",)}
    for verb, bench in benches.items():
        if verb not in needing:
            assert bench["missing"] == "", verb
        for variable in needing.get(verb, ()):
            assert re.search(rf"{variable}=FILE .*: text, one .* a line.* Public: .*https://", bench["missing"]), verb
