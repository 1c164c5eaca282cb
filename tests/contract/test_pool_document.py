"""The pool document: examples parse, and each mistake is answered by the field's name and what it should be."""

from pathlib import Path

import pytest

from t2i_api.parse import PoolError, parse_pool
from t2i_policy.level import Level

ROOT = Path(__file__).parents[2]
MINIMAL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: demo}
spec:
  model: {source: "builtin://scenes"}
  workerGroups:
  - {name: cpu, workers: 2}
"""


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/pool*.yaml")), ids=lambda path: path.name)
def test_example_parses(path: Path) -> None:
    """What the README tells people to apply is valid."""
    assert parse_pool(path.read_text()).spec.ladder.levels


def test_default_ladder_is_the_papers() -> None:
    """Skips 0, 5 ... 25 of 50 steps when nothing is said."""
    ladder = parse_pool(MINIMAL).spec.ladder
    assert ladder.levels == tuple(Level(skip, 50) for skip in (0, 5, 10, 15, 20, 25))


def test_a_wrong_judge_is_told_in_words() -> None:
    """Its pattern holds every port number; nobody reads that."""
    with pytest.raises(PoolError) as caught:
        parse_pool(MINIMAL + '  quality: {judge: "command://judge"}\n')
    said = str(caught.value)
    assert said.startswith("spec.quality.judge: must be scenes; pickscore, ")
    assert said.endswith("(got 'command://judge')")
    assert "^(" not in said


MISTAKES = {
    "no workers": ("workers: 2", "workers: 0", "spec.workerGroups.0.workers"),
    "no groups": ("\n  - {name: cpu, workers: 2}", " []", "spec.workerGroups: "),
    "unknown field": ("workers: 2", "workers: 2, replicas: 3", "spec.workerGroups.0.replicas"),
    "a source without scheme": ("builtin://scenes", "scenes", "spec.model.source"),
    "another kind": ("T2IServingPool", "Deployment", "kind"),
    "an upper-case name": ("name: demo", "name: Demo", "metadata.name"),
    "no exact level": ("workerGroups", "levels: [{skippedSteps: 5}]\n  workerGroups", "must contain the exact one"),
    "skips all steps": (
        "workerGroups",
        "levels: [{skippedSteps: 50}]\n  workerGroups",
        "skippedSteps of every level must be",
    ),
    "negative skip": ("workerGroups", "levels: [{skippedSteps: -1}]\n  workerGroups", "spec.levels.0.skippedSteps"),
    "a group twice": ("- {name: cpu, workers: 2}", "- {name: cpu, workers: 2}\n  - {name: cpu, workers: 1}", "unique"),
    "not a mapping": (MINIMAL, "- a\n- b\n", "must be one mapping"),
    "not YAML": (MINIMAL, "a: [", "not valid YAML"),
    "a YAML tag that would run code": ("{name: demo}", "!!python/object/apply:os.system ['true']", "not valid YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_names_field(mistake: str) -> None:
    """The message says where and what, so nobody has to read our code."""
    old, new, expected = MISTAKES[mistake]
    assert old in MINIMAL
    with pytest.raises(PoolError, match=expected.replace(".", r"\.")):
        parse_pool(MINIMAL.replace(old, new))


def test_a_wrong_item_does_not_make_its_list_too_short() -> None:
    """The group is there, its number of workers is what is wrong."""
    with pytest.raises(PoolError) as raised:
        parse_pool(MINIMAL.replace("workers: 2", "workers: two"))
    assert [line.partition(": ")[0] for line in str(raised.value).splitlines()] == ["spec.workerGroups.0.workers"]
