"""Twins: prompts of nearly the same words for another picture, and how they bound a profile's bands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level, build_ladder
from t2i_policy.predictor import CurvePoint, LevelPredictor, Predictor
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.options import (
    Limits,
    Neighbourhood,
    choose_wanted_level,
    eligible_options,
)
from t2i_policy.twin_loss import TwinLoss
from t2i_profiler.bands import MIN_PAIRS, Scored, band_losses, bound_by_twins
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import Sample
from t2i_profiler.measure_twins import pair_twins
from t2i_profiler.precision import profile_of
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, TwinScores, read_samples, write_samples
from t2i_profiler.samples import scene_samples
from t2i_profiler.twins import TwinKind, make_twins
from t2i_scenes import embedder_path
from t2i_sources.embedder import Embedder

MADE = {
    "colours change places": ("a red cube on a blue sphere", TwinKind.RECOLOURED, "a blue cube on a red sphere"),
    "articles follow": ("an orange cat and a blue dog", TwinKind.RECOLOURED, "a blue cat and an orange dog"),
    "sizes change places": ("a tiny dog and a huge cat", TwinKind.RESIZED, "a huge dog and a tiny cat"),
    "roles of a verb": ("a dog biting a man", TwinKind.EXCHANGED, "a man biting a dog"),
    "roles, and the place stays": (
        "a horse riding an astronaut on the moon",
        TwinKind.EXCHANGED,
        "an astronaut riding a horse on the moon",
    ),
    "sides of a relation": ("a cat to the left of a dog", TwinKind.EXCHANGED, "a dog to the left of a cat"),
    "left and right": ("a cat left of a dog", TwinKind.REVERSED, "a cat right of a dog"),
    "above and below": ("a ring above a cross", TwinKind.REVERSED, "a ring below a cross"),
    "with": ("a man with a hat", TwinKind.NEGATED, "a man without a hat"),
    "without": ("a street without cars", TwinKind.NEGATED, "a street with cars"),
    "a number in words": ("two rings side by side", TwinKind.RECOUNTED, "three rings side by side"),
    "weights": ("(castle:1.4), (fog:0.2)", TwinKind.REWEIGHTED, "(castle:0.2), (fog:1.4)"),
    "one weight": ("(castle:1.4), fog", TwinKind.REWEIGHTED, "(castle:0.2), fog"),
}


@pytest.mark.parametrize(("prompt", "kind", "twin"), MADE.values(), ids=MADE.keys())
def test_twins_are_made_of_the_prompts_own_words(prompt: str, kind: TwinKind, twin: str) -> None:
    """One of each kind that the words allow, with what was done."""
    made = {one.kind: one for one in make_twins(prompt, np.random.default_rng(0))}
    assert made[kind].prompt == twin
    assert made[kind].reason


TWINLESS = {
    "nothing": "",
    "no such word": "portrait of a king",
    "numbers that are part of names": "8 k, 3 d render, 35mm",
    "another language": "แมวแดง",
    "two words for one colour or size": "red, scarlet, huge, big",
    "a side that is turned round": "boats from left to right",
    "a side among equals": "boats one above the other",
}


@pytest.mark.parametrize("prompt", TWINLESS.values(), ids=TWINLESS.keys())
def test_prompts_without_such_words_have_no_twin(prompt: str) -> None:
    """What would be the same picture, or no picture at all, is no twin."""
    assert make_twins(prompt, np.random.default_rng(0)) == ()


def test_captions_of_the_scenes_model_have_twins_that_its_embedder_reads() -> None:
    """Colours, sizes, relations, sides and counts, about as often each; the same seed gives the same pairs."""
    embedder = Embedder(embedder_path())

    def reads(prompt: str) -> bool:
        return embedder.embed_now(prompt).unread is None

    asked = scene_samples(20, 120, 1).asked
    pairs = pair_twins(asked, 60, 1, reads)
    kinds = [pair.twin.kind for pair in pairs]
    assert len(pairs) == 60
    for kind in (TwinKind.RECOLOURED, TwinKind.RESIZED, TwinKind.EXCHANGED, TwinKind.REVERSED, TwinKind.RECOUNTED):
        assert kinds.count(kind) >= 5, kind
    assert all(pair.twin.prompt != pair.asked.prompt and reads(pair.twin.prompt) for pair in pairs)
    assert pair_twins(asked, 60, 1, reads) == pairs
    assert pair_twins(asked, 60, 2, reads) != pairs


SKIP, SHORT, EXACT = Level(8, 16), Level(0, 8), Level(0, 16)


def bands(high: float = 0.0) -> tuple[BandLoss, ...]:
    return (
        BandLoss(SKIP, -1.0, 0.95, 0.2, 0.001, 50),
        BandLoss(SKIP, 0.95, 1.01, high, 0.001, 50),
        BandLoss(SHORT, -1.0, 1.01, 0.1, 0.001, 100),
    )


def twins(similarity: float, lost: float, count: int) -> list[Scored]:
    return [Scored(similarity, 0.8, {SKIP: 0.8 * (1 - lost)})] * count


def test_a_band_is_bounded_by_the_twins_of_its_similarity() -> None:
    """Schedules without a latent, and bands that no twin reaches, are left alone."""
    top, low = bands()[1], bands()[0]
    found = bound_by_twins(bands(), twins(0.99, 0.4, 20))
    assert found[1] == replace(top, twins=TwinLoss(pytest.approx(0.4), pytest.approx(0.0), 20))
    assert (found[0], found[2]) == (low, bands()[2])
    assert found[1].loss_bound(1.0) == pytest.approx(0.4)
    assert found[0].loss_bound(1.0) == pytest.approx(0.201)
    assert "twins lost 40.0% ± 0.0% in 20 pairs" in found[1].sentence()


def test_paraphrases_that_lost_more_than_twins_stay_the_bound() -> None:
    """The larger of both holds."""
    found = bound_by_twins(bands(high=0.5), twins(0.99, 0.4, 20))
    assert found[1].loss_bound(0.0) == pytest.approx(0.5)


def test_few_twins_borrow_the_most_similar_below() -> None:
    """One lucky twin does not stand for its band; a single twin in all says nothing."""
    mixed = [*twins(0.99, 0.0, 1), *twins(0.9, 0.4, 30)]
    top = bound_by_twins(bands(), mixed)[1].twins
    assert top is not None
    assert top.num_pairs == MIN_PAIRS
    assert top.mean_loss == pytest.approx(0.4 * (MIN_PAIRS - 1) / MIN_PAIRS)
    assert bound_by_twins(bands(), twins(0.99, 0.4, 1)) == bands()


def test_twins_that_words_tell_are_measured_apart() -> None:
    """A prompt that agrees with its neighbour is bounded by those alone that pass; one that differs by the others."""
    told = [replace(one, words_agree=False) for one in twins(0.99, 0.4, 20)]
    band = bound_by_twins(bands(), [*told, *twins(0.985, 0.2, 10)])[1]
    assert [band.loss_bound(0.0, agree) for agree in (None, False, True)] == pytest.approx([1 / 3, 0.4, 0.2])
    assert "its words differ, and such twins lost 40.0%" in band.sentence(words_agree=False)
    alone = bound_by_twins(bands(), told)[1]
    assert [alone.loss_bound(0.0, agree) for agree in (None, False, True)] == pytest.approx([0.4, 0.4, 0.0])
    assert "those of all measured twins differed" in alone.sentence(words_agree=True)


def test_few_told_twins_are_not_told_apart() -> None:
    """They would stand for their part alone; a single one that passes is bounded by all."""
    told = [replace(one, words_agree=False) for one in twins(0.99, 0.4, MIN_PAIRS)]
    few = bound_by_twins(bands(), [*told[1:], *twins(0.985, 0.2, 10)])[1]
    assert len({few.loss_bound(0.0, agree) for agree in (None, False, True)}) == 1
    lone = bound_by_twins(bands(), [*told, *twins(0.985, 0.2, 1)])[1]
    assert lone.loss_bound(0.0, True) == lone.loss_bound(0.0, None)


def test_without_twins_other_words_count_as_unlike() -> None:
    """As the least similar prompts lost, from a similarity of 0.8 on; what agrees or is unknown is judged as before."""
    one, again = profile(bands()), profile(bands(), None)
    assert [one.expected_loss(SKIP, 0.97, 0.0, None, agree) for agree in (None, True, False)] == [0.0, 0.0, 0.2]
    assert [one.expected_loss(SHORT, 0.97, 0.0, None, agree) for agree in (None, False)] == [0.1, 0.1]
    assert "counts as unlike: 20.0%" in again.explain(SKIP, 0.97, None, words_agree=False)
    near = BandLoss(SKIP, 0.5, 0.79, 0.1, 0.0, 50)
    far = profile((BandLoss(SKIP, -1.0, 0.5, 0.6, 0.0, 50), near))
    assert far.expected_loss(SKIP, 0.7, 0.0, None, words_agree=False) == pytest.approx(0.1)


def profile(losses: tuple[BandLoss, ...], predictor: Predictor | None = None) -> LevelProfile:
    return LevelProfile("model", "device", 16, (0.01,), 0.0, losses, predictor)


@pytest.mark.parametrize("learned", [False, True], ids=["bands", "predictor"])
def test_a_level_that_ruins_twins_is_not_harmless(learned: bool) -> None:
    """However little paraphrases lose at this similarity, and whoever promises: bands or the predictor."""
    curve = LevelPredictor(SKIP, (CurvePoint(0.5, 0.2, 0.0), CurvePoint(0.9, 0.0, 0.0)), (), 100)
    predictor = Predictor((curve,)) if learned else None
    ladder = build_ladder(16, [EXACT, SKIP, SHORT])
    near, limits = Neighbourhood(0.985, frozenset({8})), Limits(max_loss=0.9)
    for measured, wanted in ((bands(), SKIP), (bound_by_twins(bands(), twins(0.99, 0.4, 20)), EXACT)):
        one = profile(measured, predictor)
        assert choose_wanted_level(ladder, eligible_options(ladder, one, near, limits), near, limits).level == wanted
    assert "twins lost" in one.explain(SKIP, 0.99)
    assert "twins" not in one.explain(SKIP, 0.7)


def test_twins_survive_the_profiles_file_and_older_ones_mean_what_they_meant() -> None:
    """The field is optional."""
    told = [replace(one, words_agree=False) for one in twins(0.99, 0.4, 20)]
    for made in (twins(0.99, 0.4, 20), told, [*told, *twins(0.985, 0.2, 10)]):
        bound = profile(bound_by_twins(bands(), made))
        assert parse_profile(render_profile(bound)) == bound
    plain = profile(bands())
    assert "twins" not in render_profile(plain)
    assert parse_profile(render_profile(plain)) == plain


def test_twins_survive_the_samples_file(tmp_path: Path) -> None:
    """So a profile that is fitted anew has the same bounds; a twin at other levels is refused by its line."""
    facts = Facts("model", "device", 16, (0.01,), 0.0, JudgeRecord("judge", "", ""))
    asked = PromptScores("a", "b", 0.99, (0.8,), {SKIP: (0.8,), SHORT: (0.7,)})
    twin = TwinScores("Recoloured", PromptScores("a", "c", 0.98, (0.8,), {SKIP: (0.4,)}))
    measurement = Measurement(facts, (asked,) * 20, (twin,) * 10)
    write_samples(measurement, tmp_path / "file.jsonl")
    assert read_samples(tmp_path / "file.jsonl") == measurement
    fitted = profile_of(measurement)
    assert fitted.expected_loss(SKIP, 0.985) == pytest.approx(0.5)
    assert [one for one in fitted.losses if one.level == SHORT] == list(
        band_losses([one.scored() for one in measurement.prompts], (SHORT,))
    )
    lines = (tmp_path / "file.jsonl").read_text().splitlines()
    lines.append(json.dumps({**json.loads(lines[1]), "twin": "Recoloured"}))
    (tmp_path / "file.jsonl").write_text("\n".join(lines))
    with pytest.raises(SamplesInvalid, match=f"line {len(lines)}: levels"):
        read_samples(tmp_path / "file.jsonl")


def test_a_prompt_is_drawn_with_its_twin_only_once() -> None:
    """Each asked prompt gives one pair; fewer pairs are made where words allow no more."""
    asked = [Sample("two red rings", 1), Sample("portrait of a king", 2), Sample("a dog biting a man", 3)]
    pairs = pair_twins(asked, 5, 1, lambda prompt: True)
    assert [pair.asked.seed for pair in pairs] == [1, 3]
