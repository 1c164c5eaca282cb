"""Served level and admission: quality bends with pressure and deadline, and what cannot be served is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.request.admission import Admitted, Refused, RefusedReason, decide_admission
from t2i_policy.request.options import Limits, Option, WantedLevel, WantedReason
from t2i_policy.request.price import backlog_price
from t2i_policy.request.served import LoadState, Served, ServedReason, choose_served_level, pressure

EXACT, HALF, QUARTER = Level(0, 20), Level(10, 20), Level(0, 5)
OPTIONS = (Option(QUARTER, 0.08), Option(HALF, 0.03), Option(EXACT, 0.0))
WANTED = WantedLevel(EXACT, 0.0, WantedReason.NOTHING_HARMLESS)
LIMITS = Limits(max_loss=0.10)


def worker(name: str = "a", in_flight: int = 0, **changes: object) -> WorkerView:
    facts: dict[str, object] = {
        "name": name,
        "ready": True,
        "running": min(in_flight, 2),
        "waiting": max(0, in_flight - 2),
        "batch_cap": 2,
        "step_s": (0.1, 0.15),
        "fixed_s": 0.1,
        "steps_left": 20 * in_flight,
    }
    return WorkerView(**(facts | changes))  # type: ignore[arg-type]


def pool(*workers: WorkerView, queued: int = 0) -> PoolView:
    return PoolView(workers or (worker(),), queued, queued_steps=20 * queued)


def served_at(pressed: float, left_s: float = 60.0) -> Served:
    price = backlog_price(pressed, LIMITS.max_loss, EXACT.num_inference_steps)
    return choose_served_level(WANTED, OPTIONS, pool(), LoadState(left_s, price))


LOAD_CASES = {
    "an idle pool serves what is wanted": (0.0, EXACT, ServedReason.AS_WANTED),
    "just under the low mark too": (0.25, EXACT, ServedReason.AS_WANTED),
    "pressure buys a cheaper level within its allowance": (0.45, HALF, ServedReason.LOAD),
    "full pressure spends quality to the floor": (1.5, QUARTER, ServedReason.LOAD),
}


@pytest.mark.parametrize("case", LOAD_CASES)
def test_served_level_by_pressure(case: str) -> None:
    """Quality is spent only as load asks for it."""
    pressed, level, reason = LOAD_CASES[case]
    served = served_at(pressed)
    assert (served.level, served.reason) == (level, reason)


def test_deadline_takes_most_faithful_level_in_time() -> None:
    """1.3 s left: exact needs 2.1 s, half 1.1 s, quarter 0.6 s; half loses less than quarter."""
    served = served_at(0.0, left_s=1.3)
    assert (served.level, served.reason) == (HALF, ServedReason.DEADLINE)


def test_floor_holds_under_any_pressure() -> None:
    """A request whose floor leaves only exact is served exactly, however long the queue."""
    only_exact = (Option(EXACT, 0.0),)
    served = choose_served_level(WANTED, only_exact, pool(queued=50), LoadState(0.1, float("inf")))
    assert served.level == EXACT


@given(low=st.floats(0, 3), high=st.floats(0, 3), max_loss=st.floats(0.001, 1))
def test_price_of_a_step_rises_with_pressure(low: float, high: float, max_loss: float) -> None:
    """Monotone in pressure, nothing at rest: no oscillation from the rule itself."""
    low, high = min(low, high), max(low, high)
    assert backlog_price(low, max_loss, 20) <= backlog_price(high, max_loss, 20)
    assert backlog_price(min(low, 0.15), max_loss, 20) == 0.0


@given(low=st.floats(0, 3), high=st.floats(0, 3))
def test_more_pressure_never_takes_more_steps(low: float, high: float) -> None:
    """The level follows the price down the ladder."""
    low, high = min(low, high), max(low, high)
    assert served_at(high).level.steps_run <= served_at(low).level.steps_run


DRAWN_CASES = {
    "a fixed mix's draw is served, in an idle pool too": (HALF, 0.0, OPTIONS, HALF, ServedReason.PLANNED),
    "a price goes on down from the draw": (HALF, float("inf"), OPTIONS, QUARTER, ServedReason.LOAD),
    "a price never makes it dearer": (QUARTER, 1e-3, OPTIONS, QUARTER, ServedReason.PLANNED),
    "a hole in the cache serves what is wanted": (HALF, 0.0, OPTIONS[::2], EXACT, ServedReason.AS_WANTED),
    "a request that may not bend does not": (HALF, 0.0, OPTIONS[2:], EXACT, ServedReason.AS_WANTED),
}


@pytest.mark.parametrize("case", DRAWN_CASES)
def test_fixed_mix_steers_served_level(case: str) -> None:
    """Its owner fixed the mix: the draw holds as far as the request's own floor allows."""
    drawn, price, options, level, reason = DRAWN_CASES[case]
    served = choose_served_level(WANTED, options, pool(), LoadState(60.0, price, drawn))
    assert (served.level, served.reason) == (level, reason)


def test_pressure_grows_with_backlog() -> None:
    """An idle pool presses nothing; a backlog as long as the slack presses 1."""
    assert pressure(pool(), slack_s=3) == 0.0
    rate = worker().steps_per_s
    waiting = PoolView((worker(),), queued=1, queued_steps=round(3 * rate))
    assert pressure(waiting, slack_s=3) == pytest.approx(1.0, rel=0.02)


def admission(view: PoolView, left_s: float, steps: int = 20, max_queued: int = 4) -> Admitted | Refused:
    level = Level(0, steps)
    estimated = choose_served_level(
        WantedLevel(level, 0, WantedReason.NO_NEIGHBOUR), (Option(level, 0),), view, LoadState(left_s, 0.0)
    )
    return decide_admission(view, estimated, left_s, max_queued)


REFUSALS = {
    "the deadline has passed": (pool(), 0.0, RefusedReason.DEADLINE_PASSED, False),
    "no allowed level is fast enough even alone": (pool(), 1.0, RefusedReason.DEADLINE_UNREACHABLE, False),
    "it would have been in time but for the backlog": (
        pool(worker(in_flight=2), queued=3),
        3.0,
        RefusedReason.OVERLOADED,
        True,
    ),
    "the queue is full": (pool(worker(in_flight=2), queued=4), 600.0, RefusedReason.QUEUE_FULL, True),
    "no worker is ready": (pool(worker(ready=False)), 60.0, RefusedReason.NO_WORKERS, True),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_says_why_and_when(case: str) -> None:
    """Each refusal has its own reason, and a retry hint only where retrying can help."""
    view, left_s, reason, hint = REFUSALS[case]
    outcome = admission(view, left_s)
    assert isinstance(outcome, Refused)
    assert outcome.reason is reason
    assert (outcome.retry_after_s is not None) is hint


def test_free_slot_admits_past_full_queue_limit() -> None:
    """`max_queued` 0 means no waiting, not no serving."""
    assert isinstance(admission(pool(), 60.0, max_queued=0), Admitted)
