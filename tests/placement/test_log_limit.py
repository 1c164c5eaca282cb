"""Lines about a lost worker: one for many requests, which counts those that were not written."""

from t2i_gateway.log_limit import LOG_EVERY_S, LogLimit


def test_repeats_are_counted_and_not_written() -> None:
    now_s = 5.0
    limit = LogLimit(lambda: now_s)
    assert [limit.take() for _ in range(4)] == ["", None, None, None]
    now_s += LOG_EVERY_S
    assert [limit.take() for _ in range(2)] == ["; 3 more since the line before", None]
    now_s += 10 * LOG_EVERY_S
    assert limit.take() == "; 1 more since the line before"
