"""Training on prompts whose true losses are known: the curve is found, promises hold, noise teaches nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level
from t2i_policy.profile_document import parse_profile
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.fit import MIN_PROMPTS, train_predictor
from t2i_profiler.precision import cross_validated, judge_profile, precision_table, profile_of
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, read_samples, write_samples
from t2ictl.commands.profile import refit_profile

SKIP, SHORT = Level(9, 12), Level(0, 4)
FACTS = Facts("digest", "cpu", 12, (0.01, 0.015), 0.001, JudgeRecord("synthetic", "", ""))
EXACT_SCORE = 0.6
WORDS = ("red", "green", "house", "tree", "sky", "old", "calm", "boat", "lake", "hill", "road", "moon")


def true_loss(similarity: float) -> float:
    """What a skip costs, as a fraction: nothing for near-duplicates, half for strangers."""
    return 0.5 * min(1.0, max(0.0, (0.9 - similarity) / 0.5))


def synthetic(count: int, seed: int, noise: float = 0.12, a_word: float = 0.0, seeds: int = 1) -> Measurement:
    """Prompts with scores of a known truth: `noise` a seed, `a_word` more loss a word at the short schedule."""
    rng = np.random.default_rng(seed)
    prompts = []
    for at in range(count):
        similarity = float(rng.uniform(0.35, 1.0))
        words = int(rng.integers(2, 12))
        short = 0.05 + a_word * (np.log2(1 + words) - 2.8)
        exact, skip, brief = (
            tuple(
                float(np.clip(EXACT_SCORE * (1 - loss) + noise * rng.standard_normal(), 0.0, 1.0)) for _ in range(seeds)
            )
            for loss in (0.0, true_loss(similarity), short)
        )
        prompt = " ".join(rng.choice(WORDS, words))
        prompts.append(PromptScores(prompt, f"kept {at % 97}", similarity, exact, {SKIP: skip, SHORT: brief}))
    return Measurement(FACTS, tuple(prompts))


def test_finds_the_true_curve() -> None:
    """Through the noise of seeds, the expected loss is near the truth all along the similarity."""
    predictor = train_predictor(synthetic(480, 1, noise=0.06).prompts)
    assert predictor is not None
    model = predictor.of(SKIP)
    assert model is not None
    for similarity in np.linspace(0.4, 0.99, 12):
        told = model.predict(float(similarity), None)
        assert told is not None
        assert told.expected_loss == pytest.approx(true_loss(float(similarity)), abs=0.07)


def test_a_bump_is_shared_not_followed() -> None:
    """Where middling prompts lost more than strangers, that was luck or the cache's: no lower promise for strangers."""
    rng = np.random.default_rng(1)
    samples = synthetic(300, 1, noise=0.02).prompts
    bumpy = []
    for one in samples:
        loss = 0.0 if one.similarity > 0.8 else 0.4 if one.similarity > 0.6 else 0.1
        score = float(np.clip(EXACT_SCORE * (1 - loss) + 0.02 * rng.standard_normal(), 0, 1))
        bumpy.append(replace(one, by_level={SKIP: (score,)}))
    predictor = train_predictor(bumpy)
    assert predictor is not None
    model = predictor.of(SKIP)
    assert model is not None
    strangers, middling = (model.predict(similarity, None) for similarity in (0.45, 0.65))
    assert strangers is not None
    assert middling is not None
    assert strangers.expected_loss >= middling.expected_loss > 0.15


def test_promises_hold_as_often_as_they_say() -> None:
    """One standard error above the mean covers the truth in about five of six cases, over many measurements."""
    held = []
    for seed in range(12):
        predictor = train_predictor(synthetic(240, seed).prompts)
        assert predictor is not None
        skip, short = predictor.of(SKIP), predictor.of(SHORT)
        assert skip is not None
        assert short is not None
        for similarity in (0.45, 0.6, 0.75, 0.85, 0.95):
            told = skip.predict(similarity, None)
            assert told is not None
            held.append(true_loss(similarity) <= told.bound(1.0))
        brief = short.predict(None, None)
        assert brief is not None
        held.append(brief.bound(1.0) >= 0.05)
    assert np.mean(held) >= 0.75


def test_a_measured_gain_is_luck() -> None:
    """Scores above exact promise no loss at most within the margin, never less than the margin allows to know."""
    samples = [
        replace(one, by_level={SKIP: tuple(min(1.0, score + 0.05) for score in one.exact)})
        for one in synthetic(240, 2, seeds=2).prompts
    ]
    rng = np.random.default_rng(3)
    noisy = [replace(one, exact=tuple(np.clip(one.exact + 0.1 * rng.standard_normal(2), 0, 1))) for one in samples]
    predictor = train_predictor(noisy)
    assert predictor is not None
    model = predictor.of(SKIP)
    assert model is not None
    for point in model.curve:
        told = model.predict(point.similarity, None)
        assert told is not None
        assert told.expected_loss == 0.0
        assert told.bound(1.0) == point.margin > 0.005


def test_wilder_scores_widen_the_margin() -> None:
    """Calibration: what is known less well is promised with more room."""
    margins = []
    for noise in (0.03, 0.24):
        predictor = train_predictor(synthetic(240, 3, noise).prompts)
        assert predictor is not None
        model = predictor.of(SKIP)
        assert model is not None
        margins.append(np.mean([point.margin for point in model.curve]))
    assert margins[1] > 3 * margins[0]


def test_a_feature_is_taken_only_if_it_tells() -> None:
    """Loss that grows with words is learned from words; where words say nothing, no term is kept."""
    telling = train_predictor(synthetic(480, 5, noise=0.05, a_word=0.06).prompts)
    silent = train_predictor(synthetic(480, 5, noise=0.05).prompts)
    assert telling is not None
    assert silent is not None
    short = telling.of(SHORT)
    assert short is not None
    assert [term.feature for term in short.terms] == ["words"]
    assert short.terms[0].weight == pytest.approx(0.06, abs=0.02)
    assert all(not one.terms for one in silent.levels)


def test_promises_are_precise_on_prompts_not_trained_on() -> None:
    """What a rule promises is what unseen prompts lose, within noise; it bends more than nothing."""
    rows = judge_profile(profile_of(synthetic(480, 7)), synthetic(300, 8, seeds=2), tolerances=(0.05, 0.1))
    mine = [row for row in rows if row.rule == "predictor" and row.level == "all"]
    assert [row.tolerance for row in mine] == [0.05, 0.1]
    for row in mine:
        assert row.steps_saved_share > 0.1
        assert row.measured <= row.promised + 2 * row.standard_error
    assert {row.rule for row in rows} == {"bands", "predictor", "NIRVANA"}
    assert sum(row.prompts for row in rows if row.rule == "predictor" and row.tolerance == 0.1) == 2 * 300


def test_cross_validation_judges_every_prompt_once() -> None:
    """Each prompt is judged by a profile that saw neither it nor another of the same nearest prompt."""
    rows = cross_validated(synthetic(200, 9), tolerances=(0.05,))
    assert {row.rule: row.prompts for row in rows if row.level == "all"} == dict.fromkeys(
        ("bands", "predictor", "NIRVANA"), 200
    )
    assert precision_table(rows, "precision").row_count == len(rows)


def test_too_few_prompts_train_nothing() -> None:
    """A profile of few prompts has bands only, and is whole."""
    few = synthetic(MIN_PROMPTS - 1, 1)
    assert train_predictor(few.prompts) is None
    assert profile_of(few).predictor is None
    one_nearest = [replace(one, nearest="the same") for one in synthetic(200, 1).prompts]
    assert train_predictor(one_nearest) is None


def test_training_is_repeatable() -> None:
    """The same samples give the same predictor to the last digit."""
    samples = synthetic(150, 2)
    assert train_predictor(samples.prompts) == train_predictor(samples.prompts)


def test_samples_file_round_trips(tmp_path: Path) -> None:
    """Scores come back to six digits; a refit needs nothing else."""
    samples = synthetic(20, 4, seeds=2)
    write_samples(samples, tmp_path / "s.jsonl")
    again = read_samples(tmp_path / "s.jsonl")
    assert again.facts == samples.facts
    for one, other in zip(samples.prompts, again.prompts, strict=True):
        assert (one.prompt, one.nearest) == (other.prompt, other.nearest)
        assert other.exact == pytest.approx(one.exact, abs=1e-6)
        assert other.by_level[SKIP] == pytest.approx(one.by_level[SKIP], abs=1e-6)


async def test_refit_writes_a_profile_without_prompts(tmp_path: Path) -> None:
    """`t2ictl profile --from-samples`: profile, plot and tables from the file alone; no prompt leaves it."""
    write_samples(synthetic(120, 6), tmp_path / "s.jsonl")
    console = Console(record=True, width=160)
    await refit_profile(console, [tmp_path / "s.jsonl"], tmp_path / "profile.json", with_predictor=True)
    text = (tmp_path / "profile.json").read_text()
    profile = parse_profile(text)
    assert profile.predictor is not None
    assert profile.step_s == FACTS.step_s
    assert (tmp_path / "profile.png").exists()
    told = console.export_text()
    assert "learned predictor" in told
    assert "promises on prompts not trained on" in told
    assert not any(one.prompt in text for one in synthetic(120, 6).prompts if len(one.prompt.split()) > 1)


async def test_predictor_is_written_only_if_asked_for(tmp_path: Path) -> None:
    """Its precision is told first; until somebody chooses it, decisions stay with the bands."""
    write_samples(synthetic(120, 6), tmp_path / "s.jsonl")
    console = Console(record=True, width=160)
    await refit_profile(console, [tmp_path / "s.jsonl"], tmp_path / "profile.json", with_predictor=False)
    assert parse_profile((tmp_path / "profile.json").read_text()).predictor is None
    told = console.export_text()
    assert "promises on prompts not trained on" in told
    assert "--predictor" in told


LINE = '{"prompt":"a","nearest":"b","similarity":0.5,"exact":[0.5],"levels":[%s]}'
LEVEL = '{"skippedSteps":9,"numInferenceSteps":12,"scores":[%s]}'
HEAD = (
    '{"schema":"t2iserving.dev/profile-samples/v1","modelDigest":"d","device":"cpu","baseSteps":12,'
    '"stepSeconds":[0.1],"fixedSeconds":0,"judge":"j"}'
)
FAULTS = {
    "empty": ("", "holds no samples"),
    "another file": ("{}\n{}", "line 1: schema is missing"),
    "another version": (HEAD.replace("/v1", "/v9") + "\n{}", "line 1: schema: expected"),
    "not JSON": (HEAD + "\nhello", "line 2: "),
    "a field is missing": (HEAD + "\n" + LINE.replace('"nearest":"b",', "") % "", "line 2: nearest is missing"),
    "seeds do not pair up": (HEAD + "\n" + LINE % (LEVEL % "0.1, 0.2"), "line 2: scores: every level needs one"),
    "a score above one": (HEAD + "\n" + LINE % (LEVEL % "7"), "line 2: scores: must be from 0 to 1"),
    "other levels": (HEAD + "\n" + LINE % (LEVEL % "0.1") + "\n" + LINE % "", "line 3: levels: not those"),
    "no such cosine": (HEAD + "\n" + LINE.replace("0.5,", "5,", 1) % "", "line 2: similarity: must be from -1 to 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_samples_name_line_and_field(tmp_path: Path, fault: str) -> None:
    """Said in one line, before anything is fitted."""
    text, message = FAULTS[fault]
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(SamplesInvalid, match=message):
        read_samples(path)
    with pytest.raises(SamplesInvalid, match="cannot be read"):
        read_samples(tmp_path / "missing.jsonl")
