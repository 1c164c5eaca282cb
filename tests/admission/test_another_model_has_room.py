"""A request that its model cannot take: another model of the pool does, if the request allows that and is in time."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest

from small_pools import ANYTHING, EXACT, RULES, SLO_S, STEP_S, N, asks, worker
from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.pool_view import NOBODY, PoolView, WorkerView, join_parts
from t2i_policy.profile import BandLoss
from t2i_policy.request.admission import Admitted, Refused, RefusedReason, decide_admission
from t2i_policy.request.decide import Decided, build_rules
from t2i_policy.request.elsewhere import Settled, decide_elsewhere, decide_with_room
from t2i_policy.request.options import Limits, WantedReason
from t2i_policy.request.served import ServedReason

TURBO, TINY = Level(0, 4, model="turbo"), Level(0, 2, model="tiny")
LOST = {"turbo": (4, 0.05, TURBO), "tiny": (2, 0.15, TINY)}
SECTIONS = tuple(
    ModelSection(name, steps, STEP_S, 0.0, (BandLoss(level, -1.0, 1.01, loss, 0.0, 100),))
    for name, (steps, loss, level) in LOST.items()
)
PROFILE = replace(RULES.profile, models=SECTIONS)
LADDER = choose_ladder(N, RULES.ladder.levels, PROFILE, models=("turbo", "tiny")).ladder
ALL = build_rules(LADDER, PROFILE, SLO_S, 0.2)
FLOOR = Limits(0.2)
NO_QUEUE = 0
BINDING = {
    "exact": replace(FLOOR, exact=True),
    "the pool's own is demanded": replace(FLOOR, model=""),
    "what it sets is about the pool's own": replace(FLOOR, own_alone=True),
    "nobody measured it": replace(FLOOR, measured=False),
    "a floor that no other model keeps": Limits(0.04),
    "a fixed schedule": replace(FLOOR, fixed_steps=40),
}


def held_by(model: str, running: int = 0, ready: bool = True) -> PoolView:
    """Two workers of a model, each with so many requests."""
    seen = [worker(f"{model or 'own'}{n}", running, steps_left=running * 10) for n in range(2)]
    views = tuple(replace(one, ready=ready, model=model) for one in seen)
    return PoolView(views, 0, 0)


def full(model: str) -> PoolView:
    """Nobody waits, and no slot is free."""
    return held_by(model, running=4)


def pool_with(**parts: PoolView) -> PoolView:
    return join_parts({name.replace("own", ""): view for name, view in parts.items()})


def served_by(limits: Limits, left_s: float = SLO_S) -> Callable[[PoolView], Decided]:
    return lambda pool: ALL.decide(asks(None, limits=limits, left_s=left_s), pool)


def with_room(pool: PoolView, limits: Limits = FLOOR, max_queued: int = NO_QUEUE) -> Settled:
    def admit(decided: Decided) -> Admitted | Refused:
        return decide_admission(pool, decided.served, SLO_S, max_queued)

    return decide_with_room(served_by(limits), admit, pool)


def test_full_queue_of_its_model_sends_it_to_one_with_a_free_slot() -> None:
    decided, admission = with_room(pool_with(own=full(""), turbo=held_by("turbo")))
    assert (decided.served.level, decided.reason) == (TURBO, ServedReason.LOAD)
    assert decided.wanted.level == EXACT
    assert isinstance(admission, Admitted)


def test_next_model_is_asked_where_the_second_is_full_too() -> None:
    decided, _ = with_room(pool_with(own=full(""), turbo=full("turbo"), tiny=held_by("tiny")))
    assert decided.served.level == TINY


def test_where_all_are_full_the_first_refusal_stands() -> None:
    """So it is told of the model that serves it best, and in that model's turn."""
    decided, admission = with_room(pool_with(own=full(""), turbo=full("turbo"), tiny=full("tiny")))
    assert decided.served.level == EXACT
    assert isinstance(admission, Refused)
    assert admission.reason is RefusedReason.QUEUE_FULL


@pytest.mark.parametrize(
    ("parts", "models"),
    [
        ({}, [""]),
        ({"turbo": held_by("turbo")}, ["", "turbo"]),
        ({"turbo": full("turbo"), "tiny": full("tiny")}, ["", "turbo", "tiny"]),
    ],
    ids=["one model", "another with room", "all full"],
)
def test_admission_is_decided_once_for_each_model_that_is_asked(parts: dict[str, PoolView], models: list[str]) -> None:
    """What is told of a request is what was decided, not what a second look would say."""
    pool = pool_with(own=full(""), **parts) if parts else full("")
    asked, answers = [], []

    def admit(decided: Decided) -> Admitted | Refused:
        asked.append(decided.served.level.model)
        answers.append(decide_admission(pool, decided.served, SLO_S, NO_QUEUE))
        return answers[-1]

    settled = decide_with_room(served_by(FLOOR), admit, pool)
    assert asked == models
    assert settled.admission is answers[models.index(settled.decided.served.level.model)]


def test_who_is_admitted_stays() -> None:
    decided, _ = with_room(pool_with(own=full(""), turbo=held_by("turbo")), max_queued=10)
    assert (decided.served.level, decided.reason) == (EXACT, WantedReason.NO_NEIGHBOUR)


@pytest.mark.parametrize("limits", BINDING.values(), ids=BINDING)
def test_what_binds_a_request_to_its_model_binds_it_in_a_full_queue_and_late(limits: Limits) -> None:
    pool = pool_with(own=full(""), turbo=held_by("turbo"), tiny=held_by("tiny"))
    decided, admission = with_room(pool, limits)
    assert decided.served.level.model == ""
    assert isinstance(admission, Refused)
    assert decide_elsewhere(served_by(limits), pool, "") is None


def test_demanded_other_model_is_left_by_nobody() -> None:
    pool = pool_with(own=held_by(""), turbo=full("turbo"), tiny=held_by("tiny"))
    assert decide_elsewhere(served_by(replace(FLOOR, model="turbo")), pool, "turbo") is None


def test_elsewhere_is_decided_by_the_same_rules() -> None:
    """The best of the others, not the first."""
    pool = pool_with(own=full(""), tiny=held_by("tiny"), turbo=held_by("turbo"))
    found = decide_elsewhere(served_by(FLOOR), pool, "")
    assert found is not None
    assert found.served.level == TURBO
    assert decide_elsewhere(served_by(FLOOR), pool_with(own=full(""), turbo=held_by("turbo", ready=False)), "") is None
    assert decide_elsewhere(served_by(FLOOR), full(""), "") is None, "a pool of one model"


def no_worker(view: PoolView) -> PoolView:
    return replace(view, workers=tuple(replace(one, ready=False) for one in view.workers))


@pytest.mark.parametrize("gone", [no_worker(held_by("")), NOBODY], ids=["not ready", "none"])
@pytest.mark.parametrize("waits", [0, 8], ids=["idle", "behind"])
def test_who_is_served_by_another_for_want_of_a_worker_is_told_so(gone: PoolView, waits: int) -> None:
    """Not that there was a deadline or a load, even if there is a load as well."""
    turbo: WorkerView = replace(worker("t", waits and 4, steps_left=30 * waits), model="turbo")
    decided = served_by(FLOOR)(pool_with(own=gone, turbo=PoolView((turbo,), 0, 0)))
    assert decided.served.level == TURBO
    assert decided.served.reason is ServedReason.MODEL_GONE


@pytest.mark.parametrize(
    ("limits", "level", "reason"),
    [
        (BINDING["exact"], EXACT, WantedReason.EXACT_REQUESTED),
        (BINDING["what it sets is about the pool's own"], EXACT, WantedReason.NO_NEIGHBOUR),
        (BINDING["nobody measured it"], EXACT, WantedReason.UNMEASURED),
        (replace(FLOOR, model="turbo"), TURBO, WantedReason.MODEL_REQUESTED),
    ],
)
def test_who_needs_a_model_that_nobody_holds_is_told_what_it_would_get(
    limits: Limits, level: Level, reason: WantedReason
) -> None:
    """Nothing is bent for a deadline or a load that do not matter, and no worker is what the refusal says."""
    parts = {"own": held_by(""), "turbo": held_by("turbo")}
    own = "turbo" if level is TURBO else "own"
    pool = pool_with(**{**parts, own: no_worker(parts[own])})
    decided = served_by(limits)(pool)
    assert (decided.served.level, decided.reason, decided.served.estimated_s) == (level, reason, inf)
    refused = decide_admission(pool, decided.served, SLO_S, 10)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusedReason.NO_WORKERS


def test_pool_of_one_model_without_a_worker_bends_nothing() -> None:
    decided = RULES.decide(asks(None, limits=ANYTHING), no_worker(held_by("")))
    assert (decided.served.level, decided.served.reason) == (EXACT, ServedReason.AS_WANTED)
