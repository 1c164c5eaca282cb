"""A pool whose workers hold several models: one ladder, losses against one reference, a price for each model."""

import json
from dataclasses import replace
from math import inf

import pytest

from small_pools import ANYTHING, BANDS, EXACT, RULES, SLO_S, STEP_S, N, asks, pool_of, worker
from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level, build_ladder, parse_level, render_level
from t2i_policy.measured_with import MeasuredWith
from t2i_policy.model_section import ModelSection
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.plan import GroupCapacity, Method, Plan, PromptClass, make_plan
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import PoolView, WorkerView, join_parts
from t2i_policy.profile import BandLoss, ProfileError
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.admission import NO_WORKERS_RETRY_S, Admitted, Refused, RefusedReason, decide_admission
from t2i_policy.request.decide import Rules, build_rules
from t2i_policy.request.models import relief
from t2i_policy.request.options import Limits, WantedReason
from t2i_policy.request.served import ServedReason

TURBO, HALF_TURBO = Level(0, 4, model="turbo"), Level(0, 2, model="turbo")
TURBO_STEP_S = tuple(seconds / 2 for seconds in STEP_S)
SECTION = ModelSection(
    "turbo",
    4,
    TURBO_STEP_S,
    0.1,
    (BandLoss(TURBO, -1.0, 1.01, 0.05, 0.0, 100), BandLoss(HALF_TURBO, -1.0, 1.01, 0.12, 0.0, 100)),
)
PROFILE = replace(RULES.profile, models=(SECTION,))
LADDER = choose_ladder(N, RULES.ladder.levels, PROFILE, models=("turbo",)).ladder
FAR, NEAR = None, 0.97
FLOOR = Limits(0.2)
SOME_S = 9.7  # of backlog: a step has a price, and not yet the whole floor


def rules_of(max_loss: float = 0.2, loss: float = 0.05) -> Rules:
    """As `RULES`, beside a model of four steps that loses so much."""
    bands = (replace(SECTION.losses[0], mean_loss=loss), SECTION.losses[1])
    profile = replace(PROFILE, models=(SECTION._replace(losses=bands),))
    return build_rules(LADDER, profile, SLO_S, max_loss)


def turbo_worker(name: str, running: int = 0) -> WorkerView:
    return WorkerView(name, True, running, 0, 4, TURBO_STEP_S, 0.1, 2 * running, "turbo", model="turbo")


def two_models(own_waits: float = 0.0, turbo_waits: float = 0.0, ready: bool = True) -> PoolView:
    """Four workers of each model; each model is so many seconds behind with what waits for it."""
    own = [replace(worker(f"w{n}", 4 if own_waits else 0, steps_left=0), ready=ready) for n in range(4)]
    turbo = [turbo_worker(f"t{n}", 4 if turbo_waits else 0) for n in range(4)]
    return join_parts({"": behind(own, own_waits), "turbo": behind(turbo, turbo_waits)})


def behind(workers: list[WorkerView], seconds: float) -> PoolView:
    view = PoolView(tuple(workers), 0, 0)
    return replace(view, queued=int(seconds > 0), queued_steps=round(seconds * view.steps_per_s))


def test_a_level_of_another_model_is_read_back_and_named() -> None:
    assert parse_level(json.loads(json.dumps(render_level(TURBO)))) == TURBO
    assert TURBO.label(N) == "turbo:0/4"
    assert "model" not in render_level(EXACT), "documents of pools with one model stay as they were"
    assert "turbo" in TURBO.phrase


def test_the_ladder_is_the_union_with_the_reference_first() -> None:
    assert LADDER.levels == (*RULES.ladder.levels, TURBO, HALF_TURBO)
    assert LADDER.exact == EXACT
    assert LADDER.skips == RULES.ladder.skips
    assert LADDER.models == ("turbo",)
    assert LADDER.full_schedule("turbo") == TURBO


def test_a_level_that_its_model_does_not_beat_is_left_out() -> None:
    """Levels of a model compete among themselves: its workers run nothing else."""
    worse = SECTION._replace(losses=(SECTION.losses[0], replace(SECTION.losses[1], mean_loss=0.05)))
    three = BandLoss(Level(0, 3, model="turbo"), -1.0, 1.01, 0.2, 0.0, 100)
    profile = replace(PROFILE, models=(worse._replace(losses=(*worse.losses, three)),))
    chosen = choose_ladder(N, RULES.ladder.levels, profile, models=("turbo",))
    kept = {one.level: one.kept for one in chosen.judged}
    assert kept[TURBO], "the full schedule stays"
    assert kept[HALF_TURBO]
    assert not kept[three.level]
    assert three.level not in chosen.ladder.levels


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (Level(0, 4, model="lightning"), "names no model of the pool; there is turbo"),
        (Level(1, 4, model="turbo"), "latents are stored of the pool's own model only"),
        (Level(0, 8, model="turbo"), "runs longer than the model's numInferenceSteps = 4"),
    ],
)
def test_a_level_that_no_worker_can_run_is_refused(level: Level, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build_ladder(N, [EXACT, TURBO, level], {"turbo": 4})


def test_each_model_has_its_full_schedule_on_the_ladder() -> None:
    with pytest.raises(ValueError, match=r"numInferenceSteps: 4, model: turbo"):
        build_ladder(N, [EXACT, HALF_TURBO], {"turbo": 4})


def test_a_model_that_was_not_measured_is_an_error_that_names_it() -> None:
    with pytest.raises(ProfileError, match="no section for 'lightning', there is turbo"):
        choose_ladder(N, (), PROFILE, models=("lightning",))


def test_a_profile_with_a_section_is_read_back_equal() -> None:
    assert parse_profile(render_profile(PROFILE)) == PROFILE
    known = MeasuredWith(7.5, "bf16", ("pixel", "papercut")), MeasuredWith(1.0, "fp16", ())
    told = replace(PROFILE, models=(SECTION._replace(measured_with=known[1]),), measured_with=known[0])
    assert parse_profile(render_profile(told)) == told
    assert "models" not in json.loads(render_profile(RULES.profile))


def test_a_section_holds_its_own_levels_only() -> None:
    document = json.loads(render_profile(PROFILE))
    document["models"][0]["losses"][0]["model"] = "lightning"
    with pytest.raises(ProfileError, match="models: losses of 'turbo' must be of its own levels"):
        parse_profile(json.dumps(document))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("stepSeconds", [0.1, -0.1], "stepSeconds of 'turbo' must be seconds above 0"),
        ("stepSeconds", [], "stepSeconds of 'turbo' must be seconds above 0"),
        ("fixedSeconds", float("nan"), "fixedSeconds of 'turbo' must be seconds, 0 or more, got nan"),
        ("losses", [], "losses of 'turbo' are empty"),
        ("guidanceScale", -1, "guidanceScale must be a number, 0 or more, got -1.0"),
        ("precision", 16, "precision must be a text such as bf16, got 16"),
        ("adapters", "pixel", "adapters must be a list of their names, got 'pixel'"),
        ("adapters", [1], r"adapters must be a list of their names, got \[1\]"),
        ("baseSteps", 0, "baseSteps of 'turbo' must be at least 1, got 0"),
        ("baseSteps", float("inf"), "cannot convert float infinity"),
    ],
)
def test_a_section_that_cannot_be_used_names_the_field(field: str, value: object, told: str) -> None:
    document = json.loads(render_profile(PROFILE))
    document["models"][0][field] = value
    with pytest.raises(ProfileError, match=f"models: {told}"):
        parse_profile(json.dumps(document))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("baseSteps", 0, "baseSteps must be at least 1, got 0"),
        ("stepSeconds", [], r"stepSeconds must be seconds above 0, one for each batch size: \[\]"),
        ("stepSeconds", [0.1, 0], r"stepSeconds must be seconds above 0, one for each batch size: \[0.1, 0.0\]"),
        ("stepSeconds", [float("inf")], "stepSeconds must be seconds above 0"),
        ("fixedSeconds", -1, "fixedSeconds must be seconds, 0 or more, got -1.0"),
        ("fixedSeconds", float("nan"), "fixedSeconds must be seconds, 0 or more, got nan"),
    ],
)
def test_the_profiles_own_model_is_checked_as_the_others_are(field: str, value: object, told: str) -> None:
    document = {**json.loads(render_profile(PROFILE)), field: value}
    with pytest.raises(ProfileError, match=f"^{told}.*; measure it again with t2ictl profile"):
        parse_profile(json.dumps(document))


def test_a_model_has_one_section() -> None:
    twice = replace(PROFILE, models=(SECTION, SECTION))
    with pytest.raises(ProfileError, match="models: name: 'turbo' has more than one section"):
        parse_profile(render_profile(twice))


@pytest.mark.parametrize("text", ["[" * 200_000, "null", "[]"], ids=["nested deeply", "nothing", "a list"])
def test_a_file_that_is_no_profile_is_said(text: str) -> None:
    with pytest.raises(ProfileError, match="profile is not usable"):
        parse_profile(text)


def test_what_a_model_takes_is_its_own_steps() -> None:
    assert PROFILE.service_s(TURBO, 1) == pytest.approx(0.1 + 4 * STEP_S[0] / 2)
    assert PROFILE.own_steps(TURBO) == pytest.approx(2), "its steps take half as long"
    assert PROFILE.own_steps(EXACT) == N


@pytest.mark.parametrize("similarity", [None, 0.6, 0.8, 0.97])
@pytest.mark.parametrize("waits", [0, 4, 12, 40])
def test_a_pool_of_one_model_decides_to_the_digit_as_before(similarity: float | None, waits: int) -> None:
    """Also where the pool is seen in parts, of which one holds everything."""
    pool, arrival = pool_of(running=4 if waits else 0, queued=waits), asks(similarity)
    plain = RULES.decide(arrival, pool)
    assert RULES.decide(arrival, join_parts({"": pool})) == plain
    beside = rules_of().decide(arrival, join_parts({"": pool}))
    assert (beside.served, beside.pressed) == (plain.served, plain.pressed), "nobody holds the other model"


def test_at_rest_the_reference_serves() -> None:
    """However much cheaper the other model is: it loses something."""
    decided = rules_of().decide(asks(FAR, limits=FLOOR), two_models())
    assert decided.served.level == EXACT
    assert decided.served.reason is ServedReason.AS_WANTED


def test_at_rest_a_harmless_model_serves_as_it_takes_least() -> None:
    decided = rules_of(loss=0.005).decide(asks(FAR, limits=FLOOR), two_models())
    assert decided.served.level == TURBO
    assert decided.reason == WantedReason.OTHER_MODEL
    busy = rules_of(loss=0.005).decide(asks(FAR, limits=FLOOR), two_models(own_waits=5.0))
    assert busy.served.level == TURBO, "a backlog of the reference draws nobody to it"


def test_a_prompt_leaves_the_reference_where_that_costs_least_quality() -> None:
    """Near a cached prompt half of the steps lose 1 %, far from all of them 17 %: the far one goes first."""
    pool = two_models(own_waits=SOME_S)
    near, far = (rules_of().decide(asks(at, limits=FLOOR, left_s=100.0), pool) for at in (NEAR, FAR))
    assert near.served.level.model == ""
    assert far.served.level == TURBO
    assert far.served.reason is ServedReason.LOAD


def test_a_backlog_of_one_model_is_no_price_of_the_other() -> None:
    pool = two_models(turbo_waits=30.0)
    assert rules_of().decide(asks(FAR, limits=FLOOR), pool).served.level == EXACT
    assert rules_of().decide(asks(FAR, limits=FLOOR), pool).pressed == 0


@pytest.mark.parametrize(("own", "turbo", "expected"), [(100.0, 50.0, "turbo"), (50.0, 100.0, "")])
def test_where_both_are_past_the_barrier_the_one_that_is_less_behind_serves(
    own: float, turbo: float, expected: str
) -> None:
    arrival = replace(asks(FAR, limits=FLOOR), left_s=1000.0)
    assert rules_of().decide(arrival, two_models(own, turbo)).served.level.model == expected


def test_a_floor_holds_across_models() -> None:
    """The other model loses 5 %: who bears 3 % waits for the reference."""
    arrival = asks(FAR, limits=Limits(0.03))
    assert rules_of().decide(arrival, two_models(own_waits=SOME_S)).served.level.model == ""
    assert rules_of().decide(asks(FAR, limits=Limits(0.2, exact=True)), two_models(40.0)).served.level == EXACT


def test_a_model_without_a_ready_worker_offers_nothing() -> None:
    decided = rules_of().decide(asks(FAR, limits=FLOOR), two_models(ready=False))
    assert decided.served.level == TURBO
    assert decided.served.estimated_s < inf


def test_who_would_be_late_goes_to_the_model_that_is_in_time() -> None:
    """Also where the reference would lose less: half of its steps take two seconds."""
    decided = rules_of().decide(replace(asks(NEAR), left_s=1.0), two_models())
    assert decided.served.level == TURBO
    assert decided.served.reason is ServedReason.DEADLINE


def test_admission_asks_the_workers_of_the_model() -> None:
    """A full queue for one model is none for the other; without its workers a request is told so."""
    served = rules_of().decide(asks(FAR, limits=FLOOR), two_models()).served
    assert isinstance(decide_admission(two_models(turbo_waits=30.0), served, SLO_S, 1), Admitted)
    refused = decide_admission(two_models(own_waits=30.0), served, SLO_S, 1)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusedReason.QUEUE_FULL
    nobody = decide_admission(two_models(ready=False), served, SLO_S, 1)
    assert isinstance(nobody, Refused)
    assert nobody.reason is RefusedReason.NO_WORKERS
    for said in ("holds the model of the pool", "ModelNotServed", "t2ictl local up"):
        assert said in nobody.message
    assert nobody.retry_after_s == NO_WORKERS_RETRY_S


def test_a_request_is_placed_with_its_model() -> None:
    pool = two_models()
    for level, name in ((TURBO, "t0"), (EXACT, "w0")):
        placement = PromptAware().place(level, pool, SLO_S, frozenset())
        assert placement is not None
        assert placement.worker == name


def test_a_fixed_mix_draws_the_model_too() -> None:
    drawn = Plan(shift_map={RULES.classes.classify(asks(FAR, limits=FLOOR).near, ANYTHING): {TURBO: 1.0}}, binds=True)
    decided = rules_of().decide(asks(FAR, limits=FLOOR), two_models(), drawn)
    assert decided.served.level == TURBO
    assert decided.served.reason is ServedReason.PLANNED


def test_a_plan_puts_no_worker_on_a_level_of_another_model() -> None:
    """Each group makes images of its own model only; prompts that lose least by the other one go there."""
    rules = rules_of()
    groups = group_capacities(two_models().workers, rules.ladder.levels, SLO_S)
    assert {level.model for group in groups if group.name == "turbo" for level in group.rates_rps} == {"turbo"}
    assert {level.model for group in groups if group.name == "gpu" for level in group.rates_rps} == {""}
    plan = make_plan(groups, rules.classes.with_rates({"none": 1.5, f"{BANDS[-1][0]:.2f}": 1.5}))
    assert all((level.model or "gpu") == group for group, level in plan.workers)
    assert plan.share("none", TURBO) > 0.3
    assert plan.share(f"{BANDS[-1][0]:.2f}", TURBO) == 0
    assert plan.shed_rps == 0


def test_without_workers_of_a_model_its_levels_carry_nothing() -> None:
    groups = group_capacities(pool_of(4).workers, LADDER.levels, SLO_S)
    plan = make_plan(groups, [PromptClass("none", 0.1, {TURBO: 0.0, EXACT: 0.01})])
    assert plan.shift_map == {"none": {EXACT: 1.0}}


def many_places(times: int) -> tuple[list[GroupCapacity], list[PromptClass]]:
    """Sixteen groups of four models, ten levels each, and twelve classes; all of it so many times."""
    groups, classes = [], []
    levels = {name: [Level(0, 20 - 2 * n, model=name) for n in range(10)] for name in ("", "a", "b", "c")}
    for at, name in enumerate(levels):
        for device in range(1, 5):
            rates = {level: device * (1 + at) * 2 / level.cost for level in levels[name]}
            groups.append(GroupCapacity(f"{name or 'own'}-{device}", 16 * times, rates))
    for number in range(12):
        losses = {
            level: 0.01 * at * (1 + number % 3) + (1 - level.cost / 20) ** 2 * (0.1 + 0.01 * number)
            for at, name in enumerate(levels)
            for level in levels[name]
        }
        classes.append(PromptClass(f"class-{number}", (10 + 3 * number) * times, losses))
    return groups, classes


def test_a_plan_of_many_places_is_almost_the_fractional_one() -> None:
    """A hundred times as many workers hardly feel that they are whole: five hundredths of a percent lie between."""
    plan, whole = make_plan(*many_places(1)), make_plan(*many_places(100))
    assert plan.shed_rps <= 1e-3 * plan.demand_rps
    assert plan.method is Method.NEAR
    assert whole.mean_loss - 1e-6 <= plan.mean_loss <= whole.mean_loss + 5e-4
    for group in many_places(1)[0]:
        assert sum(count for (name, _), count in plan.workers.items() if name == group.name) == 16


def test_a_model_bends_later_where_another_one_has_room() -> None:
    """So its workers do not run dry between bursts. Where both are behind it bends as in a pool of one model."""
    arrival, behind_s = asks(0.8, limits=FLOOR, left_s=100.0), 8.0
    room, none = two_models(own_waits=behind_s), two_models(own_waits=behind_s, turbo_waits=40.0)
    assert rules_of().decide(arrival, room).served.level == rules_of().decide(arrival, two_models()).served.level
    alone = rules_of().decide(arrival, join_parts({"": room.of_model("")})).served.level
    assert rules_of().decide(arrival, none).served.level == alone
    assert alone.cost < rules_of().decide(arrival, room).served.level.cost


def test_relief_is_the_room_of_the_model_that_has_most() -> None:
    assert relief({"": 9.0, "a": 0.0, "b": 0.5}, "") == 1
    assert relief({"": 0.0, "a": 0.325, "b": inf}, "b") == 1
    assert relief({"": 9.0, "a": 0.325}, "") == pytest.approx(0.5)
    assert relief({"": 0.0, "a": 9.0}, "") == relief({"": 0.0}, "") == 0
