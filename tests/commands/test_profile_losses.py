"""What `t2ictl profile` makes of scores: losses by band that the policy can read, and prompts to measure with."""

import itertools
from pathlib import Path

import pytest

from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_profiler.bands import EDGES, MIN_SAMPLES, Scored, band_losses, merged_edges
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import Sample
from t2i_profiler.samples import Samples, file_samples, only_read, scene_samples, with_scenes

SKIP, SHORT = Level(8, 16), Level(0, 8)


def scored(similarity: float, skip: float, short: float, count: int = 20) -> list[Scored]:
    return [Scored(similarity, 0.8, {SKIP: skip, SHORT: short})] * count


def test_loss_is_share_of_exact_in_its_band() -> None:
    """Skips are judged by similarity, schedules by all prompts together; the same prompts on both sides."""
    losses = band_losses(scored(0.99, 0.8, 0.72) + scored(0.75, 0.4, 0.72), (SKIP, SHORT))
    found = {(one.level, one.similarity_min, one.similarity_max): (one.mean_loss, one.num_samples) for one in losses}
    assert found[SKIP, 0.8, 1.01] == (pytest.approx(0.0), 20)
    low = next(value for (level, low, _), value in found.items() if level == SKIP and low < 0.75)
    assert low == (pytest.approx(0.5), 20)
    assert found[SHORT, -1.0, 1.01] == (pytest.approx(0.1), 40)


def test_lost_diversity_is_share_of_exact_spread() -> None:
    """Images of two seeds that differ half as much have lost half; where spreads are missing nothing is said."""
    half = [Scored(0.99, 0.8, {SKIP: 0.8, SHORT: 0.8}, 0.2, {SKIP: 0.1, SHORT: 0.2})] * 20
    found = {one.level: one for one in band_losses(half, (SKIP, SHORT))}
    assert (found[SKIP].diversity_loss, found[SHORT].diversity_loss) == (pytest.approx(0.5), pytest.approx(0.0))
    assert found[SKIP].mean_loss == pytest.approx(0.0)
    assert all(one.diversity_loss is None for one in band_losses(half + scored(0.99, 0.8, 0.8), (SKIP, SHORT)))


def test_thin_bands_join() -> None:
    """No band rests on a few samples: a lonely similarity is judged with its neighbours."""
    few = [0.99] * MIN_SAMPLES + [0.96] * (MIN_SAMPLES - 1) + [0.3] * MIN_SAMPLES
    edges = merged_edges(few)
    assert edges[0] == EDGES[0]
    assert edges[-1] == EDGES[-1]
    counts = [sum(low <= one < high for one in few) for low, high in itertools.pairwise(edges)]
    assert min(counts) >= MIN_SAMPLES
    assert merged_edges([0.5] * 3) == (EDGES[0], EDGES[-1])


def test_profile_survives_its_file() -> None:
    """What is written is what is read."""
    profile = LevelProfile(
        "model", "judge", 16, (0.01, 0.02), 0.003, band_losses(scored(0.99, 0.7, 0.6), (SKIP, SHORT))
    )
    assert parse_profile(render_profile(profile)) == profile


def test_asked_captions_are_never_kept_ones() -> None:
    """Losses hold for prompts that the cache never saw; the same seed gives the same ones."""
    samples = scene_samples(50, 60, 1)
    assert (len(samples.kept), len(samples.asked)) == (50, 60)
    assert not {one.prompt for one in samples.kept} & {one.prompt for one in samples.asked}
    assert scene_samples(50, 60, 1) == samples
    assert scene_samples(50, 60, 2) != samples


def test_prompt_file_is_split(tmp_path: Path) -> None:
    """A user's own prompts: kept and asked do not meet."""
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"prompt {n}" for n in range(40)))
    samples = file_samples(path, 10, 20, 1)
    assert (len(samples.kept), len(samples.asked)) == (10, 20)
    assert not {one.prompt for one in samples.kept} & {one.prompt for one in samples.asked}


@pytest.mark.parametrize("text", ["", "one\ntwo\n"], ids=["empty", "too few"])
def test_too_few_prompts_are_refused(tmp_path: Path, text: str) -> None:
    """Said before anything is started."""
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    with pytest.raises(SamplesInvalid, match="prompts"):
        file_samples(path, 10, 20, 1)
    with pytest.raises(SamplesInvalid, match="cannot be read"):
        file_samples(tmp_path / "missing.txt", 10, 20, 1)


def test_the_exact_scorer_takes_captions_of_a_file(tmp_path: Path) -> None:
    """It compares with the scenes that they say; other lines are refused before anything is drawn."""
    path = tmp_path / "prompts.txt"
    own = scene_samples(10, 20, 1)
    captions = [one.prompt for one in (*own.kept, *own.asked)]
    path.write_text("\n".join(captions))
    samples = with_scenes(file_samples(path, 10, 20, 1))
    known = {one.prompt: one.scene for one in (*own.kept, *own.asked)}
    assert all(one.scene == known[one.prompt] is not None for one in (*samples.kept, *samples.asked))
    path.write_text("\n".join([*captions[1:], "my cat"]))
    with pytest.raises(SamplesInvalid, match="1 of 30 lines of --prompts are none"):
        with_scenes(file_samples(path, 10, 20, 1))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SamplesInvalid, match="no UTF-8 text"):
        file_samples(path, 10, 20, 1)


def test_prompts_that_the_embedder_does_not_read_are_not_measured() -> None:
    """A gateway never compares them, so their losses say nothing about a similarity; too few left is said at once."""
    prompts = [Sample(f"prompt {n}", n) for n in range(20)]
    samples = Samples(tuple(prompts[:10]), tuple(prompts[10:]))
    left = only_read(samples, lambda prompt: prompt not in ("prompt 3", "prompt 12"))
    assert [sample.seed for sample in (*left.kept, *left.asked)] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, *range(13, 20)]
    with pytest.raises(SamplesInvalid, match="7 of 10 asked"):
        only_read(samples, lambda prompt: prompt < "prompt 17")
