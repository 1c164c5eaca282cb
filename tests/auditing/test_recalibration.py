"""Corrections bring promises to what audits measure: by evidence, in small steps, carefully where they promise more."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from t2i_policy.audits import Audit, BandOf, band_of, summarise
from t2i_policy.band_loss import BandLoss
from t2i_policy.corrections import (
    NO_CORRECTIONS,
    Correction,
    Corrections,
    CorrectionsInvalid,
    parse_corrections,
    render_corrections,
)
from t2i_policy.kept_promise import judge_promise
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.recalibration import LEAST_AUDITS, MOST_CHANGE, WINDOW, band_shifts, recalibrate, since_change
from t2i_policy.request.decide import build_rules
from t2i_policy.twin_loss import TwinLoss

EXACT, SHORT, SKIP = Level(0, 20), Level(0, 10), Level(10, 20)
LOW, HIGH = BandOf(SKIP, -1.0), BandOf(SKIP, 0.8)
PROFILE = LevelProfile(
    "model",
    "device",
    20,
    (0.01,),
    0.0,
    (
        BandLoss(SHORT, -1.0, 1.01, 0.05, 0.0, 100),
        BandLoss(SKIP, -1.0, 0.8, 0.2, 0.0, 100),
        BandLoss(SKIP, 0.8, 1.01, 0.02, 0.0, 100, twins=TwinLoss(0.1, 0.0, 10)),
    ),
)


def audits(band: BandOf, lost: float, promised: float, count: int, noise: float = 0.0) -> list[Audit]:
    rng = random.Random(1)
    return [Audit(band, 0.8 * (1 - lost + rng.gauss(0, noise)), 0.8, promised, promised) for _ in range(count)]


def settled(given: Sequence[Audit]) -> Corrections:
    """After so many revisions that nothing changes any more."""
    corrections = NO_CORRECTIONS
    while (found := recalibrate(given, corrections, PROFILE, LEAST_AUDITS)) is not None:
        corrections = found
    return corrections


def test_few_new_audits_change_nothing() -> None:
    """The gateways' next audits are to show first what the last revision did."""
    given = audits(BandOf(SHORT, -1.0), 0.2, 0.05, 200)
    assert recalibrate(given, NO_CORRECTIONS, PROFILE, LEAST_AUDITS - 1) is None
    assert recalibrate(given, NO_CORRECTIONS, PROFILE, LEAST_AUDITS) is not None


def test_kept_promises_change_nothing() -> None:
    given = audits(BandOf(SHORT, -1.0), 0.05, 0.05, 200)
    assert recalibrate(given, NO_CORRECTIONS, PROFILE, LEAST_AUDITS) is None


def test_a_revision_is_a_small_step_with_its_reason() -> None:
    """However far off the promise is."""
    found = recalibrate(audits(BandOf(SHORT, -1.0), 0.4, 0.05, 200), NO_CORRECTIONS, PROFILE, 200, "a judge")
    assert found is not None
    assert (found.revision, found.judge, found.profile) == (1, "a judge", PROFILE.losses_digest)
    assert found.of(SHORT, -1.0) == MOST_CHANGE
    assert found.reason == (
        "200 recent audits: level 0/10 is promised to lose 3.0 points more than before, the largest change"
    )


@pytest.mark.parametrize("true_loss", [0.0, 0.12, 0.3])
def test_promises_come_within_a_point_of_what_is_measured(true_loss: float) -> None:
    """Each band's own, whatever the others' are."""
    given = audits(BandOf(SHORT, -1.0), true_loss, 0.05, WINDOW, noise=0.05)
    corrected = PROFILE.corrected(settled(given))
    promised = corrected.expected_loss(SHORT, None)
    assert promised is not None
    assert abs(promised - summarise(given).measured_loss) < 0.01


def test_a_band_without_audits_takes_a_rise_of_its_level_and_no_fall() -> None:
    """What is worse than promised may be worse next door. That something is better is believed where it was seen."""
    worse = band_shifts(audits(HIGH, 0.3, 0.1, 200), PROFILE)
    assert 0.1 < worse[LOW].safe <= worse[HIGH].safe
    assert worse[BandOf(SHORT, -1.0)].safe > 0.1
    better = band_shifts(audits(HIGH, 0.0, 0.1, 200), PROFILE)
    assert better[HIGH].safe < -0.08
    assert better[LOW].safe == better[BandOf(SHORT, -1.0)].safe == 0.0


def test_few_audits_say_little() -> None:
    """The same residual moves a promise the more the more audits show it."""
    few, many = (band_shifts(audits(LOW, 0.5, 0.2, count), PROFILE)[LOW].safe for count in (3, 300))
    assert 0 < few < many / 2
    assert many == pytest.approx(0.3, abs=0.02)


def test_a_promise_falls_only_as_far_as_its_error_bears() -> None:
    noisy = band_shifts(audits(LOW, 0.1, 0.2, 100, noise=0.3), PROFILE)[LOW]
    quiet = band_shifts(audits(LOW, 0.1, 0.2, 100), PROFILE)[LOW]
    assert noisy.loss < 0
    assert noisy.safe > noisy.loss + 0.02
    assert quiet.safe < noisy.safe


def test_audits_are_held_against_the_profile_alone() -> None:
    """Corrections that were in force when they were served do not count twice."""
    given = [replace(one, promised_loss=0.3) for one in audits(LOW, 0.3, 0.2, 200)]
    assert band_shifts(given, PROFILE)[LOW].safe == pytest.approx(0.1, abs=0.01)
    assert summarise(given).promised_loss == pytest.approx(0.3)


# The corrected profile.


def test_all_bounds_of_a_band_are_shifted_alike() -> None:
    """The twins' bound, which was the larger one, too; other bands stay as they were."""
    corrected = PROFILE.corrected(Corrections(1, (Correction(SKIP, 0.8, 0.07),), PROFILE.losses_digest))
    assert corrected.expected_loss(SKIP, 0.9) == pytest.approx(0.17)
    assert corrected.expected_loss(SKIP, 0.9, words_agree=False) == pytest.approx(0.17)
    assert corrected.expected_loss(SKIP, 0.5) == PROFILE.expected_loss(SKIP, 0.5)
    assert corrected.expected_loss(EXACT, 0.9) == 0.0
    assert corrected.repeated_loss(SKIP, 0.9) == pytest.approx(min(1.0, 0.17 + 1.0))
    assert "audits add +7.0%" in corrected.explain(SKIP, 0.9)


def test_promises_stay_between_none_and_all() -> None:
    corrected = PROFILE.corrected(Corrections(1, (Correction(SHORT, -1.0, -0.4),)))
    assert corrected.expected_loss(SHORT, None) == 0.0


def test_the_file_of_a_profile_knows_no_corrections() -> None:
    """They are kept beside it; its digest is that of what was measured."""
    corrected = PROFILE.corrected(Corrections(1, (Correction(SHORT, -1.0, 0.4),)))
    assert parse_profile(render_profile(corrected)) == PROFILE
    assert corrected.losses_digest == PROFILE.losses_digest
    assert replace(PROFILE, losses=PROFILE.losses[:1]).losses_digest != PROFILE.losses_digest


def test_rules_plan_by_corrected_losses_too() -> None:
    """Requests and plans see one profile."""
    rules = build_rules(Ladder(20, (EXACT, SKIP, SHORT)), PROFILE, 5.0, 0.5)
    found = rules.corrected(Corrections(1, (Correction(SHORT, -1.0, 0.1),)))
    assert rules.classes.losses["none"][SHORT] == pytest.approx(0.05)
    assert found.classes.losses["none"][SHORT] == pytest.approx(0.15)
    assert found.corrected(NO_CORRECTIONS) == rules


# Their file.


def test_the_file_is_read_back_equal() -> None:
    level = Level(2, 20, forecast=2, guided_steps=10, solver="unipc")
    found = Corrections(3, (Correction(level, 0.8, -0.02), Correction(SHORT, -1.0, 0.1)), "digest", "judge", "because")
    assert parse_corrections(render_corrections(found)) == found


GOOD = render_corrections(Corrections(1, (Correction(SHORT, -1.0, 0.1),)))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[]", "corrections are not usable"),
        ("{", "corrections are not usable"),
        ('{"schema": "other"}', "schema: expected"),
        (render_corrections(Corrections(1, (Correction(SHORT, -1.0, 0.9),))), "addedLoss: must be from -0.5 to 0.5"),
        ("[" * 200_000, "nested too deeply"),
        (GOOD.replace('"revision": 1', '"revision": 1e400'), "corrections are not usable"),
        (GOOD.replace('"revision": 1', '"revision": -5'), "revision: must be from 0 to"),
        (GOOD.replace('"revision": 1', '"revision": 1e30'), "revision: must be from 0 to"),
        (GOOD.replace('"addedLoss": 0.1', '"addedLoss": 1e400'), "addedLoss: must be"),
        (GOOD.replace('"similarityMin": -1.0', '"similarityMin": 1e400'), "similarityMin: must be a number"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text: str, names: str) -> None:
    with pytest.raises(CorrectionsInvalid, match=names):
        parse_corrections(text)


# What audits say together.


def test_an_audit_belongs_to_the_band_of_its_similarity() -> None:
    assert band_of(PROFILE, SKIP, 0.79) == LOW
    assert band_of(PROFILE, SKIP, 0.8) == HIGH
    assert band_of(PROFILE, SHORT, None) == BandOf(SHORT, -1.0)


def test_a_broken_promise_is_noticed_within_few_audits() -> None:
    """Ten points worse than promised, with the spread of a real judge: in some dozen audits."""
    given = audits(LOW, 0.3, 0.2, 300, noise=0.2)
    noticed = next(count for count in range(1, 300) if judge_promise(summarise(given[:count]).quality).holds is False)
    assert noticed < 100


def test_audits_of_before_a_change_do_not_hold_the_new_ones_back() -> None:
    """Prompts that change at once are promised by what they lose, not by the mean with those of before."""
    before = audits(LOW, 0.2, 0.2, 300, noise=0.1)
    after = audits(LOW, 0.5, 0.2, 60, noise=0.1)
    assert since_change(before) == before
    assert abs(len(since_change([*before, *after])) - 60) <= 10
    assert band_shifts(since_change([*before, *after]), PROFILE)[LOW].safe > 0.2
