"""What goes in is checked by line; the lineage's profiles are as published; the truth is fair and repeatable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t2i_policy.level import Level
from t2i_policy.profile import BandLoss
from t2i_policy.profile_document import render_profile
from t2i_simulated_pools import step_profile
from t2i_simulator import lineage
from t2i_simulator.embedding import embed
from t2i_simulator.errors import SimulatorError, TraceInvalid
from t2i_simulator.profiles import spread
from t2i_simulator.similarity import Vectors
from t2i_simulator.traces import bursty_arrivals, number_prompts, read_arrivals, read_prompts
from t2i_simulator.true_loss import Truth

BAD_ARRIVALS = {
    "not a number": ("0\n5\nsoon\n", "trace.txt, line 3: expected a time in ms, got 'soon'"),
    "after comments and blanks": ("# start\n10\n\n9 s\n", "trace.txt, line 4"),
    "negative": ("-1\n", "trace.txt, line 1"),
    "infinite": ("0\ninf\n", "trace.txt, line 2"),
    "not a time at all": ("0\nnan\n", "trace.txt, line 2"),
    "empty": ("", "holds no arrivals"),
    "only comments": ("# nothing\n", "holds no arrivals"),
    "not text": (b"0\n\xff\xfe\n", "trace.txt, line 2: not UTF-8"),
}


@pytest.mark.parametrize("mistake", BAD_ARRIVALS)
def test_bad_arrivals_name_the_line(tmp_path: Path, mistake: str) -> None:
    """File and line, and what was expected."""
    content, message = BAD_ARRIVALS[mistake]
    path = tmp_path / "trace.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TraceInvalid, match=message):
        read_arrivals(path)


def test_arrivals_begin_at_zero_and_are_sped_up(tmp_path: Path) -> None:
    """Milliseconds to seconds, sorted, comments and blank lines left out, equal times kept."""
    path = tmp_path / "trace.txt"
    path.write_text("# ms\n1000\n\n3000.5\n1000\n")
    assert read_arrivals(path, speedup=2.0) == pytest.approx([0.0, 0.0, 1.00025])


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    """Named, without a traceback."""
    with pytest.raises(TraceInvalid, match=r"nowhere\.txt: cannot be read"):
        read_arrivals(tmp_path / "nowhere.txt")


def test_prompts_keep_their_order(tmp_path: Path) -> None:
    """Blank lines are skipped, repeats are one prompt, and what cannot be a prompt is named by its line."""
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n" + 200_000 * "x" + "\n")
    with pytest.raises(TraceInvalid, match=r"prompts\.txt, line 2: 200000 characters"):
        read_prompts(path)
    path.write_text("a cat\n\na dog\na cat\n")
    assert number_prompts(read_prompts(path)) == (["a cat", "a dog"], [0, 1, 0])


def test_bursts_have_the_lineages_heights() -> None:
    """On 16 workers: about 100 a minute at the base, 780 at the peaks, three of them."""
    times_min = np.array(bursty_arrivals(600, 16, seed=1)) / 60
    per_min = np.bincount(times_min.astype(int), minlength=600)
    assert per_min[10:90].mean() == pytest.approx(100, rel=0.05)
    for peak in (150, 300, 450):
        assert per_min[peak - 1 : peak + 1].mean() == pytest.approx(780, rel=0.1)


def test_profiles_are_what_the_module_says() -> None:
    """Drift: run `python -m t2i_simulator.lineage` after a change."""
    for name, profile in lineage.profiles().items():
        assert (lineage.PROFILES / f"{name}.json").read_text() == render_profile(profile), name


def test_mean_losses_are_the_published_ones() -> None:
    """The histogram-weighted mean at each K is the artifact's relative quality, exactly."""
    for skip, quality in lineage.RELATIVE_QUALITY.items():
        mean = sum(share * lineage.skip_loss(band, skip) for band, share in lineage.shares().items())
        assert 1 - mean == pytest.approx(quality, abs=1e-12)


def test_losses_are_ordered() -> None:
    """More skipped loses no less, more alike loses no more, one's own level under a percent."""
    table = [[lineage.skip_loss(band, skip) for skip in lineage.SKIPS] for band in lineage.SKIPS]
    for row in table:
        assert row == sorted(row)
    for column in zip(*table, strict=True):
        assert list(column) == sorted(column, reverse=True)
    assert all(table[place][place] < 0.01 for place in range(len(table)))
    short = [lineage.short_loss(steps) for steps in (50, *lineage.SHORT_SCHEDULES)]
    assert short == sorted(short)
    assert short[0] == 0.0


def test_capacity_of_the_profile_is_the_published_one() -> None:
    """A10G: 1.65 x 14.29 images a minute at K = 0 and twice that at K = 25."""
    profile = lineage.profiles()["sdxl-a10g"]
    for skip, per_min in ((0, 14.29), (25, 28.57)):
        assert 60 * 4 / profile.service_s(Level(skip, 50), 4) == pytest.approx(1.65 * per_min, rel=1e-3)


def test_truth_is_repeatable_and_right_on_average() -> None:
    """The same prompt loses the same; over many the mean is the profile's, and `scale` makes it wrong on purpose."""
    profile, level, prompts = step_profile(), Level(4, 10), np.arange(50_000)
    similarity = np.full(len(prompts), 0.8)  # a band's centre
    truth, once = Truth(profile, seed=7), np.zeros(len(prompts), bool)
    losses = truth.losses(level, similarity, prompts, once)
    assert (losses == truth.losses(level, similarity, prompts, once)).all()
    assert losses[:3].tolist() == truth.losses(level, similarity[:3], prompts[:3], once[:3]).tolist()
    assert losses.mean() == pytest.approx(0.01, rel=0.02)
    assert losses.std() > 0.002
    wrong = Truth(profile, 7, scale=1.5).losses(level, similarity, prompts, once)
    assert wrong.mean() == pytest.approx(1.5 * losses.mean())
    assert not truth.losses(Level(0, 10), similarity, prompts, ~once).any()


def test_repeated_prompts_lose_diversity_too() -> None:
    """Whatever policy serves them: a rival that resumes every repeat pays for images that look alike."""
    profile = step_profile()
    short = Level(0, 5)
    skips = [replace(band, diversity_loss=0.4) for band in profile.losses if band.level.needs_latent]
    bands = (*skips, BandLoss(short, -1.0, 1.01, 0.03, 0.0, 50))
    truth, similarity = Truth(replace(profile, losses=bands), spread=0.0), np.full(2, 0.8)
    asked_again = np.array([False, True])
    first, again = truth.losses(Level(4, 10), similarity, np.arange(2), asked_again)
    assert again == pytest.approx(first + 0.4)
    first, again = truth.losses(short, similarity, np.arange(2), asked_again)
    assert again == first


def test_truth_falls_between_band_centres() -> None:
    """Within a band the more similar prompt loses less, on average."""
    truth = Truth(step_profile(), spread=0.0)
    losses = truth.losses(Level(4, 10), np.array([0.5, 0.75, 0.85, 0.93, 1.0]), np.arange(5), np.zeros(5, bool))
    assert losses.tolist() == sorted(losses.tolist(), reverse=True)
    assert losses[1] > losses[2]


class CountingEncoder:
    """Counts how often it is asked."""

    name = "counting"
    asked = 0

    def encode(self, prompts: list[str], progress: object) -> Vectors:
        """Two numbers a prompt."""
        self.asked += 1
        return np.array([[len(prompt), 1.0] for prompt in prompts], np.float32)


def test_prompts_are_encoded_once(tmp_path: Path) -> None:
    """The second time vectors come from the file; a damaged file is written anew; rows have unit length."""
    encoder = CountingEncoder()
    vectors = embed(encoder, ["a", "bc"], tmp_path)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0])
    assert (embed(encoder, ["a", "bc"], tmp_path) == vectors).all()
    assert encoder.asked == 1
    next(tmp_path.glob("*.npy")).write_bytes(b"cut off")
    assert (embed(encoder, ["a", "bc"], tmp_path) == vectors).all()
    assert encoder.asked == 2


def test_workers_are_spread_in_proportion() -> None:
    """Another total keeps the groups' proportions and is met exactly."""
    assert spread(16, {"a": 6, "b": 2}) == {"a": 12, "b": 4}
    assert sum(spread(7, {"a": 1, "b": 1, "c": 1}).values()) == 7


def test_errors_have_one_root() -> None:
    """The command line catches one."""
    assert issubclass(TraceInvalid, SimulatorError)
