"""`t2ictl profile` from a pool file to its report: a real worker, two judges, one of which breaks down on the way."""

import io
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from t2i_policy.measured_with import MeasuredWith
from t2i_policy.profile_document import parse_profile
from t2i_profiler.errors import JudgeFailed, SamplesInvalid
from t2i_profiler.measure import Asking
from t2ictl.commands.profile import profile_file, refit_profile
from t2ictl.profiling import ProfilePlan

POOL = {
    "apiVersion": "t2iserving.dev/v1alpha1",
    "kind": "T2IServingPool",
    "metadata": {"name": "scenes"},
    "spec": {
        "model": {
            "source": "builtin://scenes",
            "numInferenceSteps": 4,
            "guidanceScalePercent": 200,
            "width": 48,
            "height": 48,
            "precision": "fp32",
        },
        "levels": [{"skippedSteps": 0}, {"skippedSteps": 2}, {"numInferenceSteps": 2}],
        "workerGroups": [{"name": "cpu", "workers": 1}],
    },
}
JUDGE = """
import json, os, sys
print(json.dumps({"name": "length", "digest": "1", "lowest": 0, "highest": 100000}), flush=True) if sys.stdin.readline() else 0
for at, line in enumerate(sys.stdin):
    if at == 3 and not os.path.exists("MARK"):
        open("MARK", "w").close()
        sys.exit(1)
    print(json.dumps({"scores": [len(one["image"]) for one in json.loads(line)["images"]]}), flush=True)
"""  # noqa: E501 - a program in a text


@pytest.mark.process
async def test_a_profile_goes_on_after_its_judge_broke_down(tmp_path: Path) -> None:
    """The second run draws the rest only; profile, samples and report name both judges; the journal is gone."""
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(POOL))
    (tmp_path / "judge.py").write_text(JUDGE.replace("MARK", str(tmp_path / "mark")))
    out = tmp_path / "out" / "p.json"
    plan = ProfilePlan(
        prompts=None,
        embedder=None,
        judges=("scenes", f"command://{sys.executable} {tmp_path}/judge.py"),
        num_kept=8,
        num_asked=8,
        seed=1,
        asking=Asking(1),
        journal=out.with_suffix(".journal"),
        num_twins=2,
    )
    console, text = Console(file=io.StringIO(), width=200), io.StringIO()
    with pytest.raises(JudgeFailed, match="ended with code 1"):
        await profile_file(console, plan, tmp_path / "pool.yaml", "", out, False)
    done = (plan.journal / "journal.jsonl").read_text().count('"asked-')
    assert 0 < done < 8
    console = Console(file=text, width=200)
    await profile_file(console, plan, tmp_path / "pool.yaml", "", out, False)
    assert "going on with what" in text.getvalue()
    profile = parse_profile(out.read_text())
    assert [one.judge.kind for one in profile.judged] == ["scenes", "length"]
    assert profile.measured_with == MeasuredWith(2.0, "fp32", ()), "as the workers say"
    assert profile.judged[0].judge.num_images == 8 * 3 + 2 * 2
    assert not plan.journal.exists()
    names = {path.name for path in out.parent.iterdir()}
    assert names >= {"p.md", "p.png", "p.frontier.png", "p.cases.png", "p.samples.jsonl", "p.2.samples.jsonl"}
    samples = [out.with_suffix(".samples.jsonl"), out.with_suffix(".2.samples.jsonl")]
    assert await refit_profile(console, samples, tmp_path / "again.json", False) == profile


async def test_prompts_that_the_exact_scorer_cannot_read_are_refused_before_drawing(tmp_path: Path) -> None:
    """Neither a worker is asked nor a journal begun."""
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(POOL))
    words = product(("large", "small"), ("red", "blue", "green", "yellow"), ("circle", "square"))
    (tmp_path / "prompts.txt").write_text("\n".join(f"a {' '.join(one)}" for one in words))
    journal = tmp_path / "p.journal"
    plan = ProfilePlan(tmp_path / "prompts.txt", None, ("scenes",), 8, 8, 1, Asking(1), journal)
    console = Console(file=io.StringIO())
    with pytest.raises(SamplesInvalid, match="16 of 16 lines of --prompts are none"):
        await profile_file(console, plan, tmp_path / "pool.yaml", "127.0.0.1:9", tmp_path / "p", False)
    assert not journal.exists()
