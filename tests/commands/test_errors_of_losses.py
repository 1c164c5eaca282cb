"""What a profile says of its own certainty, by numbers that can be checked by hand."""

import pytest

from t2i_policy.level import Level
from t2i_profiler.bands import Scored, band_losses, bound_by_twins

SHORT, SKIP = Level(0, 10), Level(5, 20)


def _scored(*lost: float) -> list[Scored]:
    """Of prompts whose exact image scores 0.5, and that lose so much of that at either level; spreads likewise."""
    at = {level: [0.5 * (1 - one) for one in lost] for level in (SHORT, SKIP)}
    return [
        Scored(0.9, 0.5, {level: at[level][n] for level in at}, 0.5, {level: at[level][n] for level in at})
        for n in range(len(lost))
    ]


def test_loss_is_the_paired_mean_with_its_standard_error() -> None:
    """Of four losses 20, 0, 40 and 20 %: mean 20 %, standard deviation 16.3 %, its error half of that."""
    (band,) = band_losses(_scored(0.2, 0.0, 0.4, 0.2), [SHORT])
    assert (band.mean_loss, band.num_samples) == (pytest.approx(0.2), 4)
    assert band.standard_error == pytest.approx(0.0816, abs=1e-4)
    assert (band.diversity_loss, band.diversity_error) == (pytest.approx(0.2), pytest.approx(0.0816, abs=1e-4))


def test_one_image_tells_nothing_of_its_error() -> None:
    """Its error is everything, so that no decision trusts it."""
    (band,) = band_losses(_scored(0.0), [SHORT])
    assert band.standard_error == 1.0


def test_twins_have_an_error_of_their_own() -> None:
    """As many twins make it smaller by the root of their number."""
    bands = band_losses(_scored(*[0.0] * 15), [SKIP])
    (few,) = bound_by_twins(bands, _scored(0.1, 0.3))
    (many,) = bound_by_twins(bands, _scored(*[0.1, 0.3] * 50))
    assert few.twins is not None
    assert many.twins is not None
    assert few.twins.standard_error == pytest.approx(0.1)
    assert many.twins.standard_error == pytest.approx(0.01, abs=1e-3)
