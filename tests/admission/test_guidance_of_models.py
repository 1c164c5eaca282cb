"""What a request says of guidance, in a pool of several models: which may draw it, whether it is measured, its cost."""

import pytest

from t2i_policy.request.guidance import AskedGuidance, guidance_cost, heed_guidance, ignores_negative
from t2i_policy.request.options import Limits

ONE, TWO, GUIDED = {"": 2.0}, {"": 3.3, "turbo": 1.0}, {"": 2.0, "small": 2.5}
ANY, DEMANDED = Limits(0.2), Limits(0.2, model="turbo")
ROUNDED = 3.299999952316284  # 3.3 in 32 bits


@pytest.mark.parametrize(
    ("limits", "asked", "scales", "own_alone", "measured"),
    [
        pytest.param(ANY, AskedGuidance(), TWO, False, True, id="nothing said"),
        pytest.param(ANY, AskedGuidance(7.0), TWO, True, True, id="a number of the pool's own model"),
        pytest.param(ANY, AskedGuidance(ROUNDED), TWO, False, True, id="the pool's default"),
        pytest.param(ANY, AskedGuidance(1.0), TWO, True, True, id="the other model's default, without a demand"),
        pytest.param(ANY, AskedGuidance(negative=True), TWO, True, True, id="negative prompt"),
        pytest.param(ANY, AskedGuidance(negative=True), GUIDED, False, True, id="negative prompt that others heed"),
        pytest.param(DEMANDED, AskedGuidance(), TWO, False, True, id="demanded"),
        pytest.param(DEMANDED, AskedGuidance(1.0), TWO, False, True, id="demanded with its default"),
        pytest.param(DEMANDED, AskedGuidance(ROUNDED), TWO, False, False, id="demanded with the pool's default"),
        pytest.param(Limits(0.2, model=""), AskedGuidance(7.0), TWO, False, True, id="pool's own demanded"),
        pytest.param(ANY, AskedGuidance(7.0, negative=True), ONE, False, True, id="pool of one model"),
    ],
)
def test_guidance_decides_who_may_draw(
    limits: Limits, asked: AskedGuidance, scales: dict[str, float], own_alone: bool, measured: bool
) -> None:
    heeded = heed_guidance(limits, asked, scales)
    assert (heeded.own_alone, heeded.measured, heeded.model) == (own_alone, measured, limits.model)


@pytest.mark.parametrize(
    ("limits", "asked", "ignored"),
    [
        (DEMANDED, AskedGuidance(negative=True), True),
        (DEMANDED, AskedGuidance(0.0, negative=True), True),
        (DEMANDED, AskedGuidance(2.0, negative=True), False),
        (DEMANDED, AskedGuidance(negative=True, heeds_negative=True), False),
        (DEMANDED, AskedGuidance(), False),
        (ANY, AskedGuidance(negative=True), False),
    ],
)
def test_negative_prompt_needs_guidance(limits: Limits, asked: AskedGuidance, ignored: bool) -> None:
    assert ignores_negative(limits, asked, TWO) is ignored


def test_guidance_makes_two_rows_of_an_unguided_model() -> None:
    assert guidance_cost(DEMANDED, AskedGuidance(2.0), TWO) == 2.0
    assert guidance_cost(DEMANDED, AskedGuidance(1.0), TWO) == 1.0
    assert guidance_cost(DEMANDED, AskedGuidance(), TWO) == 1.0
    assert guidance_cost(ANY, AskedGuidance(7.0), TWO) == 1.0
    assert guidance_cost(Limits(0.2, model="small"), AskedGuidance(7.0), GUIDED) == 1.0
