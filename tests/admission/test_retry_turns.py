"""Who is refused for load is told a turn of its own, so that not all come back at once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.request.admission import MAX_RETRY_S, Refused, RefusedReason
from t2i_policy.request.retry_turns import RetryTurns

RATE_RPS = 4.0
OVERLOADED = Refused(RefusedReason.OVERLOADED, "too much", 0.1)


def told(turns: RetryTurns, now_s: float, refused: Refused = OVERLOADED, model: str = "") -> float:
    after_s = turns.give(refused, now_s, model, RATE_RPS).retry_after_s
    assert after_s is not None
    return after_s


def test_turns_follow_at_the_rate_of_the_pool() -> None:
    turns = RetryTurns()
    assert [round(told(turns, 10.0), 3) for _ in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_a_turn_is_not_before_the_backlog_has_gone() -> None:
    late = Refused(RefusedReason.QUEUE_FULL, "full", 3.0)
    turns = RetryTurns()
    assert [told(turns, 10.0, late), told(turns, 10.0, late)] == [3.0, 3.25]


def test_who_comes_after_a_quiet_time_waits_for_nobody() -> None:
    turns = RetryTurns()
    for _ in range(8):
        told(turns, 10.0)
    assert round(told(turns, 100.0), 3) == 0.1


def test_models_have_turns_of_their_own() -> None:
    turns = RetryTurns()
    for _ in range(8):
        told(turns, 10.0, model="large")
    assert told(turns, 10.0, model="small") == 0.25


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=400))
def test_turns_are_bounded_however_many_are_refused(pauses: list[float]) -> None:
    turns, now_s = RetryTurns(), 0.0
    for pause_s in pauses:
        now_s += pause_s
        assert 0.1 - 1e-9 <= told(turns, now_s) <= MAX_RETRY_S


def test_who_is_beyond_the_bound_does_not_come_all_at_once() -> None:
    turns = RetryTurns()
    at_one_instant = Counter(round(told(turns, 0.0), 6) for _ in range(180))  # 45 s of work
    assert max(at_one_instant.values()) == 2


def test_other_refusals_stay_as_they_are() -> None:
    turns = RetryTurns()
    for refused in (
        Refused(RefusedReason.NO_WORKERS, "none", 1.0),
        Refused(RefusedReason.DEADLINE_PASSED, "gone", None),
        Refused(RefusedReason.RATE_LIMITED, "enough", 12.0),
    ):
        assert turns.give(refused, 0.0, "", RATE_RPS) is refused
    assert turns.give(OVERLOADED, 0.0, "", 0.0) is OVERLOADED
