"""Pauses between tries: they double up to a limit, and a success begins anew."""

from itertools import islice

from t2i_policy.backoff import Backoff

BACKOFF = Backoff(first_s=0.5, most_s=3.0)


def test_pauses_double_up_to_the_limit() -> None:
    assert list(islice(BACKOFF.pauses(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_every_row_of_failures_begins_anew() -> None:
    assert next(BACKOFF.pauses()) == next(BACKOFF.pauses()) == BACKOFF.pause_s(1)


def test_weeks_of_failures_do_not_overflow() -> None:
    assert BACKOFF.pause_s(10_000) == 3.0
